"""What expressions stand for. Every call that is met is recorded as an event."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import libcst as cst

from keras_adjoint.doctor.scripts.rearrangements import (
    DRAWN,
    Arguments,
    is_rearrangement,
    new_array,
    rearranged,
    reordered,
    same_numbers,
    subscripted,
)
from keras_adjoint.doctor.scripts.syntax import Source, descendants, expressions_in, first_name, literal, text_of
from keras_adjoint.doctor.scripts.values import (
    Argument,
    Array,
    Built,
    CallEvent,
    Closure,
    Config,
    Event,
    KernelExpression,
    Layer,
    Several,
    Value,
    kernels_among,
    layer_type,
)
from keras_adjoint.kernels import VARIABLES

KERNEL_ATTRIBUTES = (*VARIABLES, "_kernel")
WEIGHTS = ("weights", "trainable_weights", "variables", "trainable_variables")
MODELS = ("keras.Model", "keras.models.Model", "keras.Sequential", "keras.models.Sequential", "keras.Functional")
ADJOINTS = ("keras_adjoint.adjoint",)
TIED_MODELS = ("keras_adjoint.mirror", "keras_adjoint.autoencoder", "keras_adjoint.clone_tied")
LEAVES_UNBUILT = ("set_weights", "get_weights", "get_config", "count_params", "summary")
ARRAY_MODULES = ("numpy", "numpy.random", "jax.numpy", "keras.ops", "keras.random", "tensorflow")
POSITIONAL = {
    "Conv": ("filters", "kernel_size", "strides", "padding"),
    "ConvTranspose": ("filters", "kernel_size", "strides", "padding"),
    "DepthwiseConv": ("kernel_size", "strides", "padding"),
    "SeparableConv": ("filters", "kernel_size", "strides", "padding"),
    "Dense": ("units", "activation", "use_bias"),
    "Embedding": ("input_dim", "output_dim"),
}


class Evaluation:
    """Evaluates expressions; `flow.py` adds the statements.

    Attributes:
        source: The script.
        names: What names, attributes and the like stand for, by their text.
        scope: The function that is being read.
        events: What the script does, in order.
        ties: The classes of this script that hold the layer whose kernel they read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.names: dict[str, Value] = {}
        self.scope: cst.FunctionDef | None = None
        self.events: list[Event] = []
        self.ties: set[str] = set()
        self._mentions: defaultdict[str, dict[str, None]] = defaultdict(dict)  # texts by the identifiers in them

    # --- names

    def bind(self, text: str, value: Value) -> None:
        """Let a name, or an expression such as `self.kernel`, stand for a value from here on."""
        self.names[text] = value
        for identifier in identifiers(text):
            self._mentions[identifier][text] = None

    def forget(self, text: str) -> None:
        """Forget a name, and every expression that mentions it, since the name stands for something else now."""
        mention = re.compile(rf"(?<![\w.]){re.escape(text)}(?!\w)")
        first = next(identifiers(text), None)
        for known in self._mentions[first] if first is not None else ():
            if known in self.names and mention.search(known):
                del self.names[known]

    def without(self, names: Iterable[str], evaluate: Callable[[], object]) -> None:
        """Evaluate something in which some names stand for nothing that is known."""
        outside = self.names
        hidden = set(names)
        self.names = {name: value for name, value in outside.items() if name not in hidden}
        evaluate()
        self.names = outside

    def path(self, node: cst.CSTNode) -> str | None:
        """The dotted path of an expression that begins with an import, unless the script has given the name a value."""
        first = first_name(node)
        is_own = isinstance(first, cst.Name) and first.value in self.names
        return None if is_own else self.source.import_path(node)

    # --- expressions

    def value(self, node: cst.BaseExpression | None) -> Value:
        """What an expression stands for, or `None`."""
        match node:
            case None:
                return None
            case cst.Name():
                return unchanged_at(node, self.names.get(node.value))
            case cst.Attribute():
                return self.value_of_attribute(node)
            case cst.Subscript():
                return self.value_of_subscript(node)
            case cst.Call():
                return self.value_of_call(node)
            case cst.List() | cst.Tuple():
                values = [(element, self.value(element.value)) for element in node.elements]
                return Several(tuple(value if isinstance(one, cst.Element) else None for one, value in values))
            case cst.NamedExpr():
                value = self.value(node.value)
                self.bind(text_of(node.target), value)
                return value
            case cst.Lambda():
                parameters = (*node.params.posonly_params, *node.params.params, *node.params.kwonly_params)
                body = node.body
                own = {one.name.value for one in parameters}
                self.without(own, lambda: self.value(body))
                return self.closure_of(body, own)
            case cst.ListComp() | cst.SetComp() | cst.GeneratorExp():
                self.read_comprehension(node.for_in, [node.elt])
                return None
            case cst.DictComp():
                self.read_comprehension(node.for_in, [node.key, node.value])
                return None
        parts = [self.value(part) for part in expressions_in(node)]  # may be tensors, or contain calls
        return (
            joined(part for part in parts if isinstance(part, Built)) if isinstance(node, cst.BinaryOperation) else None
        )

    def closure_of(self, body: cst.BaseExpression, own: set[str]) -> Closure | None:
        """What a lambda keeps of a kernel: the first name from outside, among those in its body, that stands for one.

        If there is none, the first attribute that is the kernel of a layer.
        """
        nodes = [body, *descendants(body)]
        names = [node.value for node in nodes if isinstance(node, cst.Name) and node.value not in own]
        for name in names:
            value = self.names.get(name)
            if isinstance(value, KernelExpression):
                return Closure(value, name)
        for node in nodes:
            if isinstance(node, cst.Attribute) and reads_kernel(node):
                layer = self.names.get(text_of(node.value))
                if isinstance(layer, Layer):
                    return Closure(kernel_of(layer, node, is_array=False), text_of(node))
        return None

    def value_of_attribute(self, node: cst.Attribute) -> Value:
        known = self.names.get(text_of(node))
        if known is not None or self.path(node):
            return unchanged_at(node, known)
        name, owner = node.attr.value, self.value(node.value)
        if isinstance(owner, (KernelExpression, Array)):
            if name == "T":
                return reordered(owner, None, node)
            return same_numbers(owner, node, is_array=False) if name == "value" else None
        if name in KERNEL_ATTRIBUTES:
            return kernel_of(self.layer_at(node.value, owner), node, is_array=False)
        if name in WEIGHTS:
            layer = self.layer_at(node.value, owner)
            return Several((kernel_of(layer, node, is_array=False), None), layer)
        return None

    def layer_at(self, node: cst.BaseExpression, value: Value) -> Layer:
        """The layer that an expression stands for; where it was made elsewhere, the same one for the same text."""
        if isinstance(value, Layer):
            return value
        text = text_of(node)
        known = self.names.get(f"({text})")
        if not isinstance(known, Layer):
            known = Layer(None, text=text, used=True)
            self.bind(f"({text})", known)
        return known

    def value_of_subscript(self, node: cst.Subscript) -> Value:
        known = self.names.get(text_of(node))
        if known is not None:
            return unchanged_at(node, known)
        owner = self.value(node.value)
        for element in node.slice:
            for part in expressions_in(element):
                self.value(part)
        if isinstance(owner, Several):
            index = index_of(node)
            if isinstance(index, int) and -len(owner.items) <= index < len(owner.items):
                return unchanged_at(node, owner.items[index])
            return None
        return subscripted(owner, node.slice, node)

    def read_comprehension(self, loop: cst.CompFor, parts: list[cst.BaseExpression]) -> None:
        targets: set[str] = set()
        inner: cst.CompFor | None = loop
        while inner is not None:
            self.value(inner.iter)
            targets |= set(identifiers(text_of(inner.target)))
            parts = [*parts, *(condition.test for condition in inner.ifs)]
            inner = inner.inner_for_in
        self.without(targets, lambda: [self.value(part) for part in parts])

    # --- calls

    def value_of_call(self, node: cst.Call) -> Value:
        path = self.path(node.func)
        method = node.func.attr.value if isinstance(node.func, cst.Attribute) else None
        receiver = None
        if path is None:
            receiver = self.value(node.func.value if isinstance(node.func, cst.Attribute) else node.func)
        arguments: list[Argument] = []
        keywords: dict[str, Argument] = {}
        for argument in node.args:
            value = self.value(argument.value)
            if argument.keyword is not None:
                keywords[argument.keyword.value] = argument.value, value
            elif argument.star != "**":
                arguments.append((argument.value, None if argument.star else value))
        result = self.result(node, path, method, receiver, arguments, keywords)
        values = tuple(value for _, value in (*arguments, *keywords.values()))
        unbuilt = isinstance(receiver, Layer) and not receiver.used and receiver.scope is self.scope
        origins = frozenset(kernel.origin for kernel in kernels_among(values) if self.still_stands_for(kernel))
        self.events.append(CallEvent(node, path, method, receiver, arguments, keywords, origins, result, unbuilt))
        for value in values:
            mark_used(value)
        if isinstance(receiver, Layer) and method not in LEAVES_UNBUILT:
            receiver.used = True
        return result

    def still_stands_for(self, kernel: KernelExpression) -> bool:
        """Whether the name that a kernel was made from stands for the unchanged kernel here."""
        here = self.names.get(kernel.origin.value) if isinstance(kernel.origin, cst.Name) else None
        return isinstance(here, KernelExpression) and here.layer is kernel.layer and here.is_unchanged

    def result(
        self,
        node: cst.Call,
        path: str | None,
        method: str | None,
        receiver: Value,
        arguments: list[Argument],
        keywords: dict[str, Argument],
    ) -> Value:
        """What a call returns, or `None`."""
        values = [value for _, value in (*arguments, *keywords.values())]
        kind = layer_type(path)
        if kind == "Input" or path == "keras.Input":
            return Built()
        if kind is not None:
            options = literal_options(kind, arguments, keywords)
            ends_in_one = has_activation(kind, arguments, keywords)
            named = POSITIONAL.get(Layer(kind).family, ())
            return Layer(
                kind,
                options,
                text=text_of(node.func),
                scope=self.scope,
                has_activation=ends_in_one,
                all_options=len(arguments) <= len(named) and not any(argument.star for argument in node.args),
            )
        if path in (*MODELS, *ADJOINTS, *TIED_MODELS):
            whole = joined(values)
            return Built((whole,), whole.tied or path not in MODELS, is_model=path not in ADJOINTS)
        if path is not None:
            return result_of_function(node, path, arguments, keywords)
        if method is None:
            return self.result_of_own(node, receiver, values)
        return self.result_of_method(node, method, receiver, arguments, keywords)

    def result_of_own(self, node: cst.Call, called: Value, values: list[Value]) -> Value:
        """A call of a layer or model, or of a class of this script."""
        if isinstance(called, (Layer, Built)):
            return joined([called, *values])
        name = node.func.value if isinstance(node.func, cst.Name) else None
        if name in self.ties:
            source = next((value for value in values if isinstance(value, Layer)), None)
            return Layer(name, text=name or "", scope=self.scope, shares=source)
        return None

    def result_of_method(
        self, node: cst.Call, method: str, receiver: Value, arguments: list[Argument], keywords: dict[str, Argument]
    ) -> Value:
        owner = node.func.value if isinstance(node.func, cst.Attribute) else node.func
        given = Arguments([one for one, _ in arguments], {name: one for name, (one, _) in keywords.items()})
        if isinstance(receiver, (KernelExpression, Array)):
            return rearranged(method, receiver, given, node)
        if method == "get_weights" and not arguments:
            layer = self.layer_at(owner, receiver)
            return Several((kernel_of(layer, node, is_array=True), None), layer)
        if method in ("get_config", "to_json") and isinstance(receiver, Built):
            return Config(receiver, owner)
        if method == "add" and isinstance(receiver, Built) and isinstance(owner, cst.Name):
            self.bind(owner.value, joined([receiver, *(value for _, value in arguments)], is_model=True))
            return None
        if receiver is None and arguments and method in DRAWN:  # a generator of random numbers, such as NumPy's
            return new_array(method, "random", given, node)
        return None


def result_of_function(node: cst.Call, path: str, arguments: list[Argument], keywords: dict[str, Argument]) -> Value:
    """What a function that rearranges or makes arrays returns."""
    module, _, name = path.rpartition(".")
    nodes, named = [one for one, _ in arguments], {name: one for name, (one, _) in keywords.items()}
    first = arguments[0][1] if arguments else None
    if isinstance(first, (KernelExpression, Array)):
        if path.endswith("initializers.Constant"):
            return first
        return rearranged(name, first, Arguments(nodes[1:], named), node) if is_rearrangement(path) else None
    return new_array(name, module, Arguments(nodes, named), node) if module in ARRAY_MODULES else None


def literal_options(kind: str, arguments: list[Argument], keywords: dict[str, Argument]) -> dict[str, object]:
    """The options of a new layer by name, as far as they are literals."""
    return {name: literal(node) for name, node in given_options(kind, arguments, keywords).items()}


def given_options(kind: str, arguments: list[Argument], keywords: dict[str, Argument]) -> dict[str, cst.BaseExpression]:
    """The expressions of the options of a new layer by name."""
    names = POSITIONAL.get(Layer(kind).family, ())
    positional = {name: node for name, (node, _) in zip(names, arguments, strict=False)}
    return positional | {name: node for name, (node, _) in keywords.items()}


def has_activation(kind: str, arguments: list[Argument], keywords: dict[str, Argument]) -> bool:
    """Whether a new layer is given an activation other than the identity."""
    node = given_options(kind, arguments, keywords).get("activation")
    return node is not None and text_of(node) != "None" and literal(node) != "linear"


def unchanged_at(node: cst.BaseExpression, value: Value) -> Value:
    """A value that a name stands for: an unchanged kernel can be read there again."""
    return replace(value, origin=node) if isinstance(value, KernelExpression) and value.is_unchanged else value


def kernel_of(layer: Layer, node: cst.BaseExpression, *, is_array: bool) -> KernelExpression:
    rank = layer.rank
    axes = None if rank is None else tuple(range(rank + 2))
    return KernelExpression(layer, axes, (False,) * len(axes or ()), node, node, is_array)


def reads_kernel(node: cst.Attribute) -> bool:
    """Whether an attribute, of a layer, is its kernel or what holds it."""
    return node.attr.value in (*KERNEL_ATTRIBUTES, *WEIGHTS, "get_weights")


def index_of(node: cst.Subscript) -> object:
    """The literal index of a subscript; `None` if there is none."""
    index = node.slice[0].slice
    return literal(index.value) if len(node.slice) == 1 and isinstance(index, cst.Index) else None


def identifiers(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(r"[^\W\d]\w*", text))


def joined(values: Iterable[Value], *, is_model: bool = False) -> Built:
    """A tensor or model that is made of some values."""
    made_of = [joined(value.items) if isinstance(value, Several) else value for value in values]
    known = tuple(value for value in made_of if isinstance(value, (Layer, Built)))
    return Built(known, any(isinstance(value, Built) and value.tied for value in known), is_model)


def mark_used(value: Value) -> None:
    """A layer that was passed on may have been built since."""
    if isinstance(value, Layer):
        value.used = True
    elif isinstance(value, Several):
        for item in value.items:
            mark_used(item)
