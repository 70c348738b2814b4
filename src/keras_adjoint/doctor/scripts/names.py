"""What names of a script stand for, by its imports: `L.Conv2D` is `keras.layers.Conv2D`."""

import ast
import re

KERAS = ("tensorflow.keras", "tensorflow.python.keras", "tf_keras", "keras.api", "keras.src")
OPERATIONS = ("keras.ops", "keras.backend", "keras.ops.numpy", "keras.ops.nn")
ARRAYS = ("numpy", "jax.numpy", "tensorflow", "tensorflow.nn", "tensorflow.math", "torch", *OPERATIONS)
OLD_NAMES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}


class Names:
    """The imports of a script, wherever in it they stand."""

    def __init__(self, tree):
        self.imported = {}  # name: dotted path
        self.stars = []  # paths of `from … import *`
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name, path = alias.name.partition(".")[0], alias.name
                    self.imported[alias.asname or name] = path if alias.asname else name
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.append(node.module)
                    else:
                        self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def path(self, node):
        """The dotted path that an expression stands for; `None` if it does not begin with an import."""
        if isinstance(node, ast.Name):
            found = self.imported.get(node.id)
            if found is None and node.id[:1].isupper() and self.stars:
                found = f"{self.stars[-1]}.{node.id}"
        elif isinstance(node, ast.Attribute):
            found = self.path(node.value)
            found = found and f"{found}.{node.attr}"
        else:
            return None
        return found and canonical(found)

    def alias_of(self, module):
        """The name by which a module was imported, or `None`."""
        return next((name for name, path in self.imported.items() if path == module), None)

    def imports(self, package):
        """Whether anything of a package is imported."""
        paths = [*self.imported.values(), *self.stars]
        return any(path == package or path.startswith(f"{package}.") for path in paths)


def canonical(path):
    """A dotted path with Keras under its own name."""
    for prefix in KERAS:
        if path == prefix or path.startswith(f"{prefix}."):
            return canonical(f"keras{path[len(prefix) :]}")
    return path


def layer_type(path):
    """The name of a Keras layer class, under its present name; `None` if a path is none."""
    match = re.fullmatch(r"keras\.layers\.(?:\w+\.)?([A-Z]\w*)", path or "")
    return match and OLD_NAMES.get(match[1], match[1])


def array_function(path):
    """The name of a function that rearranges or makes arrays; `None` if a path is none."""
    module, _, name = (path or "").rpartition(".")
    return name if module in ARRAYS else None
