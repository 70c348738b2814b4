"""Which classes and functions a model file may name: what layers are made of, and what the user has imported.

A file names functions by their module, as in `keras.ops.tanh`, and Keras calls them with arguments from the file. Among
those of Keras are some that write pictures, download weights or allocate what they are told to.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_adjoint.keras_files import legacy_layer, named_object

TABLES = ("activations", "initializers", "regularizers", "constraints", "losses", "metrics", "optimizers")
HELPERS = ("get", "serialize", "deserialize")  # functions in the tables that make something from a configuration
PARTS = (  # the classes that layers are, and are made of
    keras.Operation,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap,
    keras.quantizers.Quantizer,
    keras.random.SeedGenerator,
    *(getattr(keras.quantizers, name) for name in ("QuantizationConfig",) if hasattr(keras.quantizers, name)),
)


def registered(name: Any) -> Any:
    """What is registered under a name, by this package or by what was imported; `None` if nothing is."""
    return keras.saving.get_registered_object(name) if isinstance(name, str) else None


def registered_last(name: str) -> bool:
    """Whether something is registered under a name in some package, which files of Keras before 3.7 leave out."""
    return any(one.endswith(f">{name}") for one in keras.saving.get_custom_objects())


def candidates(module: str, name: str, *, is_function: bool, modules: Sequence[str]) -> list[Any]:
    """All that Keras may take for an object that is registered under no name; none if it imports nothing for it.

    Args:
        module: The module in the configuration; "" in older files.
        name: The name of the object.
        is_function: Whether it is named as a function.
        modules: Those that the user has imported.
    """
    if module == "builtins" and is_function:
        found = [getattr(getattr(keras, table), name, None) for table in TABLES]
    elif not module:
        found = [legacy_layer(name)]
    elif module.partition(".")[0] in ("keras", "keras_adjoint", *(one.partition(".")[0] for one in modules)):
        found = [named_object(module, name)]
    else:
        found = []
    return [one for one in found if one is not None]


def is_allowed(candidate: Any, modules: Sequence[str]) -> bool:
    """Whether a file may name a class or function.

    Args:
        candidate: The class or function.
        modules: Those that the user has imported.
    """
    package = getattr(candidate, "__module__", "").partition(".")[0]
    if package not in ("keras", "keras_adjoint"):
        return package in {module.partition(".")[0] for module in modules}
    if isinstance(candidate, type):
        return issubclass(candidate, PARTS)
    return any(candidate is function for function in functions_in_tables()) or keeps_the_shape(candidate)


def functions_in_tables() -> Iterator[Callable[..., Any]]:
    """The activations, losses and metrics of Keras that are functions."""
    for table in TABLES:
        for name, value in vars(getattr(keras, table)).items():
            if name not in HELPERS and callable(value) and not isinstance(value, type):
                yield value


def keeps_the_shape(function: Any) -> bool:
    """Whether a function is one of `keras.ops` that can be an activation: of one tensor, and without other arguments."""
    if not any(function is one for one in vars(keras.ops).values()):
        return False
    shape = (2, 3, 5)
    try:
        result = function(keras.KerasTensor(shape))
    except Exception:  # it takes other arguments, or no tensor
        return False
    return isinstance(result, keras.KerasTensor) and tuple(result.shape) == shape
