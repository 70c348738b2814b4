"""Copies of layers in memory: what Keras cannot find in a config, it finds in the layers that are copied."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FunctionType
from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.errors import TieError
from keras_adjoint.keras_files import with_code_from_memory
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.layers.registry import describe
from keras_adjoint.ops.backend import current
from keras_adjoint.recursion import deep_recursion

COMPILERS = "`fit`, `tf.function` or `jax.jit`"


@contextmanager
def copying(layer: Layer) -> Iterator[None]:
    """Inside, Keras makes copies of a layer and of the layers in it from their configs, both of which it is asked for there.

    Copies are of the same classes and call the same functions, whether or not these were registered, and of any depth.

    Raises:
        TieError: If the layer's variables have no numbers that a copy could start from.
    """
    check_has_numbers(layer, "A copy")
    layers = (layer, *layers_inside(layer))
    with ExitStack() as stack:
        functions: dict[str, FunctionType] = {}
        for each in layers:
            stack.enter_context(_functions_by_name(each, functions))
        stack.enter_context(keras.saving.custom_object_scope({**_classes(layers), **functions}))
        stack.enter_context(with_code_from_memory())
        before = _KEPT.set({})
        stack.callback(_KEPT.reset, before)
        stack.enter_context(deep_recursion())
        yield


def check_has_numbers(layer: Layer, made: str) -> None:
    """Raise a TieError if a layer's variables have no numbers now that something could be made of, which is named."""
    with_numbers = current().is_concrete([])
    if not with_numbers or not current().is_concrete([variable.value for variable in layer.variables]):
        raise TieError(
            f"{made} starts from the numbers of `{layer.name}`, of which there are none in code that is being compiled, by "
            f"{COMPILERS} for example. Make it outside of that code, and only call it there. Received: {describe(layer)}"
        )


_KEPT: ContextVar[dict[str, Any] | None] = ContextVar("_KEPT", default=None)


def keep(value: Any) -> str | None:
    """A name for the config, by which a copy finds what its original has and no config holds; `None` if no copy is made."""
    kept = _KEPT.get()
    if kept is None:
        return None
    name = f"object_{len(kept)}"
    kept[name] = value
    return name


def kept(name: str) -> Any:
    """What was kept under a name."""
    return (_KEPT.get() or {})[name]


def _classes(layers: Sequence[Layer]) -> dict[str, type]:
    """Classes by the names that Keras gives them in configs, where these are clear.

    Keras' own it finds anyway. Named here, the layer `Add` would also take the place of the operation `Add`.
    """
    classes: defaultdict[str, set[type]] = defaultdict(set)
    for each in layers:
        if not is_of_keras(type(each)):
            classes[keras.saving.get_registered_name(type(each))].add(type(each))
    return {name: next(iter(found)) for name, found in classes.items() if len(found) == 1}


@contextmanager
def _functions_by_name(layer: Layer, functions: dict[str, FunctionType]) -> Iterator[None]:
    """Inside, the config of a layer names the layer's functions as they are then in `functions`.

    Of a function that was made by `lambda`, Keras would write the code, which does not find again the names around it.
    """
    names: dict[str, str] = {}
    for attribute, value in vars(layer).items():
        if isinstance(value, FunctionType) and not is_of_keras(value):
            name = names[attribute.lstrip("_")] = f"keras_adjoint>function_{len(functions)}"
            functions[name] = value
    if not names:
        yield
        return
    get_config, own = layer.get_config, vars(layer).get("get_config")

    @wraps(get_config)  # by its attributes Keras tells whether it is the default
    def named() -> dict[str, Any]:
        config: dict[str, Any] = get_config()
        stock = is_of_keras(type(layer))  # these write functions in several forms, and read this one
        found = (key for key in names if key in config and (stock or _is_function(config[key])))
        return {**config, **{key: _reference(names[key]) for key in found}}

    vars(layer)["get_config"] = named  # past Keras' attribute tracking
    try:
        yield
    finally:
        if own is None:
            del vars(layer)["get_config"]
        else:
            vars(layer)["get_config"] = own


def _is_function(config: Any) -> bool:
    return isinstance(config, dict) and config.get("class_name") in ("__lambda__", "function")


def _reference(name: str) -> dict[str, Any]:
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}


def is_of_keras(defined: type | FunctionType) -> bool:
    """Whether a class or function is defined in Keras."""
    return defined.__module__.partition(".")[0] == "keras"
