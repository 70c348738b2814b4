"""What expressions stand for. Every call that is met is written down."""

import ast
from dataclasses import replace

from keras_adjoint.doctor.scripts import kernels
from keras_adjoint.doctor.scripts.events import Called
from keras_adjoint.doctor.scripts.names import array_function, layer_type
from keras_adjoint.doctor.scripts.values import POSITIONAL, Array, Built, Config, Kernel, Layer, Several

KERNELS = ("kernel", "_kernel", "embeddings")
WEIGHTS = ("weights", "trainable_weights", "variables", "trainable_variables")
MODELS = ("keras.Model", "keras.models.Model", "keras.Sequential", "keras.models.Sequential", "keras.Functional")
ADJOINTS = ("keras_adjoint.adjoint",)
TIED_MODELS = ("keras_adjoint.mirror", "keras_adjoint.autoencoder", "keras_adjoint.clone_tied")
LEAVES_UNBUILT = ("set_weights", "get_weights", "get_config", "count_params", "summary")


class Evaluation:
    """Evaluates expressions; `flow.py` adds the statements.

    Attributes:
        names: What names, attributes and the like stand for, by their text.
        imports: The `Names` of the script.
        scope: The function that is being read.
        events: Everything that was written down.
        ties: By the name of a class of this script, whether it holds the layer that it reads the kernel of.
    """

    def __init__(self, imports):
        self.imports = imports
        self.names = {}
        self.scope = None
        self.events = []
        self.ties = set()

    def value(self, node):
        """What an expression stands for, or `None`."""
        if node is None:
            return None
        method = getattr(self, f"value_of_{type(node).__name__.lower()}", None)
        return method(node) if method else self.value_of_parts(node)

    def value_of_parts(self, node):
        """An expression of no particular interest: what it is made of may be a tensor or contain calls."""
        values = [self.value(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        return joined(value for value in values if isinstance(value, Built)) if isinstance(node, ast.BinOp) else None

    # --- names, attributes, subscripts

    def value_of_name(self, node):
        return self.at(node, self.names.get(node.id))

    def at(self, node, value):
        """A value that is reached by a name: a kernel can be had there again."""
        return replace(value, origin=node) if isinstance(value, Kernel) and value.is_as_it_is else value

    def path(self, node):
        """The dotted path of an expression that begins with an import, and not with a name of this script's own."""
        first = node
        while isinstance(first, ast.Attribute):
            first = first.value
        return None if isinstance(first, ast.Name) and first.id in self.names else self.imports.path(node)

    def value_of_attribute(self, node):
        known = self.names.get(ast.unparse(node))
        if known is not None or self.path(node):
            return self.at(node, known)
        owner = self.value(node.value)
        if isinstance(owner, (Kernel, Array)):
            if node.attr == "T":
                return kernels.reordered(owner, None, node)
            return kernels.kept(owner, node, is_array=False) if node.attr == "value" else None
        if node.attr in KERNELS:
            return self.kernel_of(self.layer_at(node.value, owner), node, is_array=False)
        if node.attr in WEIGHTS:
            layer = self.layer_at(node.value, owner)
            return Several((self.kernel_of(layer, node, is_array=False), None), layer)
        return None

    def layer_at(self, node, value):
        """The layer that an expression stands for; where it was made elsewhere, the same one for the same text."""
        if isinstance(value, Layer):
            return value
        text = ast.unparse(node)
        return self.names.setdefault(f"({text})", Layer(None, text=text, used=True))

    def kernel_of(self, layer, node, *, is_array):
        rank = layer.rank
        axes = None if rank is None else tuple(range(rank + 2))
        return Kernel(layer, axes, (False,) * len(axes or ()), node, node, is_array)

    def value_of_subscript(self, node):
        known = self.names.get(ast.unparse(node))
        if known is not None:
            return self.at(node, known)
        owner = self.value(node.value)
        self.value(node.slice)
        if isinstance(owner, Several):
            index = kernels.literal(node.slice)
            inside = isinstance(index, int) and -len(owner.items) <= index < len(owner.items)
            return self.at(node, owner.items[index]) if inside else None
        return kernels.subscripted(owner, node.slice, node)

    def value_of_list(self, node):
        return Several(tuple(self.value(item) for item in node.elts))

    value_of_tuple = value_of_list

    # --- expressions with names of their own

    def value_of_lambda(self, node):
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self.without({argument.arg for argument in every}, lambda: self.value(node.body))

    def value_of_listcomp(self, node):
        for generator in node.generators:
            self.value(generator.iter)
        targets = {
            name.id for generator in node.generators for name in ast.walk(generator.target) if hasattr(name, "id")
        }
        parts = [part for part in (getattr(node, "elt", None), getattr(node, "key", None)) if part is not None]
        parts += [condition for generator in node.generators for condition in generator.ifs]
        parts += [node.value] if isinstance(node, ast.DictComp) else []
        self.without(targets, lambda: [self.value(part) for part in parts])

    value_of_setcomp = value_of_generatorexp = value_of_dictcomp = value_of_listcomp

    def without(self, names, evaluate):
        """Evaluate something in which some names stand for nothing that is known."""
        outside = self.names
        self.names = {name: value for name, value in outside.items() if name not in names}
        evaluate()
        self.names = outside

    def value_of_namedexpr(self, node):
        value = self.value(node.value)
        self.names[node.target.id] = value
        return value

    # --- calls

    def value_of_call(self, node):
        path = self.path(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        receiver = None
        if path is None:
            receiver = self.value(node.func.value if method else node.func)
        arguments = [(argument, self.value(argument)) for argument in node.args]
        keywords = {keyword.arg: (keyword.value, self.value(keyword.value)) for keyword in node.keywords}
        result = self.result(node, path, method, receiver, arguments, keywords)
        unbuilt = isinstance(receiver, Layer) and not receiver.used and receiver.scope is self.scope
        known = dict(self.names)
        self.events.append(
            Called(node, path, method, receiver, arguments, keywords, known, self.scope, result, unbuilt)
        )
        for _, value in (*arguments, *keywords.values()):
            mark_used(value)
        if isinstance(receiver, Layer) and method not in LEAVES_UNBUILT:
            receiver.used = True
        return result

    def result(self, node, path, method, receiver, arguments, keywords):
        """What a call returns, or `None`."""
        values = [value for _, value in (*arguments, *keywords.values())]
        kind = layer_type(path)
        if kind == "Input" or path == "keras.Input":
            return Built()
        if kind is not None:
            return Layer(kind, self.options(kind, arguments, keywords), text=ast.unparse(node.func), scope=self.scope)
        if path in (*MODELS, *ADJOINTS, *TIED_MODELS):
            parts = joined(values)
            return Built(parts.parts, parts.tied or path not in MODELS, is_model=path not in ADJOINTS)
        if path is not None:
            return self.result_of_function(node, path, arguments, keywords)
        if method is None:
            return self.result_of_own(node, receiver, values)
        return self.result_of_method(node, method, receiver, arguments, keywords)

    def options(self, kind, arguments, keywords):
        """The literal options of a new layer by name."""
        family = Layer(kind).family
        names = POSITIONAL.get("Conv" if family == "ConvTranspose" else family, ())
        named = {name: kernels.literal(node) for name, (node, _) in zip(names, arguments, strict=False)}
        return {**named, **{name: kernels.literal(node) for name, (node, _) in keywords.items() if name}}

    def result_of_function(self, node, path, arguments, keywords):
        """Functions that rearrange arrays, or make them."""
        module, _, name = path.rpartition(".")
        nodes = [argument for argument, _ in arguments]
        named = {key: expression for key, (expression, _) in keywords.items()}
        given = arguments[0][1] if arguments else None
        if isinstance(given, (Kernel, Array)):
            if path.endswith("initializers.Constant"):
                return given
            known = array_function(path) or module == "keras_adjoint"
            return kernels.rearranged(name, given, nodes[1:], named, node) if known else None
        if module in ("numpy", "numpy.random", "jax.numpy", "keras.ops", "keras.random", "tensorflow"):
            return kernels.new_array(name, module, nodes, named, node)
        return None

    def result_of_own(self, node, called, values):
        """A call of a layer or model, or of a class of this script."""
        if isinstance(called, (Layer, Built)):
            return joined([called, *values])
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name in self.ties:
            source = next((value for value in values if isinstance(value, Layer)), None)
            return Layer(name, text=name, scope=self.scope, shares=source)
        return None

    def result_of_method(self, node, method, receiver, arguments, keywords):
        nodes = [argument for argument, _ in arguments]
        named = {key: expression for key, (expression, _) in keywords.items()}
        if isinstance(receiver, (Kernel, Array)):
            return kernels.rearranged(method, receiver, nodes, named, node)
        if method == "get_weights" and not arguments:
            layer = self.layer_at(node.func.value, receiver)
            return Several((self.kernel_of(layer, node, is_array=True), None), layer)
        if method in ("get_config", "to_json") and isinstance(receiver, Built):
            return Config(receiver, node.func.value)
        if method == "add" and isinstance(receiver, Built) and isinstance(node.func.value, ast.Name):
            self.names[node.func.value.id] = joined([receiver, *(value for _, value in arguments)], is_model=True)
            return None
        if receiver is None and arguments:  # a generator of random numbers, such as NumPy's
            return kernels.new_array(method, "random", nodes, named, node) if method in kernels.DRAWN else None
        return None


def joined(values, *, is_model=False):
    """A tensor or model that is made of some values."""
    parts, tied = [], False
    for value in values:
        if isinstance(value, Layer):
            parts.append(value)
        elif isinstance(value, Built):
            parts.extend(value.parts)
            tied |= value.tied
        elif isinstance(value, Several):
            inside = joined(value.items)
            parts.extend(inside.parts)
            tied |= inside.tied
    return Built(tuple(dict.fromkeys(parts)), tied, is_model)


def mark_used(value):
    """A layer that was handed over may have been built since."""
    if isinstance(value, Layer):
        value.used = True
    elif isinstance(value, Several):
        for item in value.items:
            mark_used(item)
