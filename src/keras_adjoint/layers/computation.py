"""Which methods of a layer class compute its output, found by reading what `call` reaches.

A subclass that replaces one of them computes something else than its parent, whatever Keras calls the method.
"""

import inspect
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any

from keras.layers import Layer

from keras_adjoint.errors import NoRuleError

# Where a computation begins, whatever the class.
ENTRIES = frozenset({"call", "__call__", "stateless_call", "quantized_call", "compute_output_shape"})
# What rules read from the source at every call, so that a subclass which computes it is followed.
FOLLOWED = frozenset({"kernel", "embeddings", "depthwise_kernel", "pointwise_kernel"})
PACKAGE = __name__.partition(".")[0]
# Where PyTorch keeps functions that it calls around `call`, and that may return other inputs and outputs.
HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def has_hooks(layer: Any) -> bool:
    """Whether PyTorch calls functions around a layer's `call` that may change what the layer computes."""
    return any(vars(layer).get(hooks) for hooks in HOOKS)


def calls_as(layer: Any, stock: type[Layer]) -> bool:
    """Whether a layer is called as those of a stock class are: nothing replaces its `call`, or what calls that."""
    if not isinstance(layer, stock) or has_hooks(layer) or "call" in vars(layer):
        return False
    return type(layer).call is stock.call and type(layer).__call__ is stock.__call__


def check_called_plainly(layer: Any) -> None:
    """Raise a NoRuleError if a class of the user's replaces `__call__`, where a graph with the layer is to be made anew."""
    for base in type(layer).__mro__:
        is_users = base not in Layer.__mro__ and base.__module__.partition(".")[0] not in ("keras", PACKAGE)
        if is_users and "__call__" in vars(base):
            raise NoRuleError(
                f"`{layer.name}` replaces `__call__`. What that does to tensors, Keras records as operations behind the layer, "
                f"and once more whenever a graph is made anew, which then computes something else. Replace `call` instead. "
                f"Received: {type(layer).__name__}.__call__"
            )


@lru_cache
def computing_methods(layer_class: type) -> frozenset[str]:
    """Names of the methods and properties of `layer_class` by which its `call` computes, directly or through others."""
    found, pending = set(ENTRIES), ["call"]
    while pending:
        for name in _names_in(layer_class, pending.pop()):
            is_method = any(_functions_of(member) for member in _members(layer_class, name))
            if is_method and name not in found and name not in FOLLOWED:
                found.add(name)
                pending.append(name)
    return frozenset(found)


def _members(layer_class: type, name: str) -> list[Any]:
    """What a class and its parents define under a name, as they may call each other by `super()`.

    What every layer has from Keras' `Layer` manages it, and computes nothing.
    """
    return [vars(base)[name] for base in layer_class.__mro__ if name in vars(base) and base not in Layer.__mro__]


def _functions_of(member: Any) -> list[Any]:
    """The Python functions behind a method, a property, a class method or a static method."""
    if isinstance(member, property):
        return [member.fget] if member.fget else []
    member = getattr(member, "__func__", member)
    return [inspect.unwrap(member)] if callable(member) and not isinstance(member, type) else []


def _names_in(layer_class: type, name: str) -> Iterator[str]:
    """Every name that a method's code mentions, functions inside it included."""
    functions = [function for member in _members(layer_class, name) for function in _functions_of(member)]
    pending: list[Any] = [getattr(function, "__code__", None) for function in functions]
    while pending:
        code = pending.pop()
        if isinstance(code, CodeType):
            yield from code.co_names
            pending.extend(code.co_consts)
