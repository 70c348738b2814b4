"""The registry of rules: which callable makes the adjoint of which layer type. It knows no concrete layer."""

import inspect
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any, TypeVar

from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.computation import computing_methods, has_hooks
from keras_adjoint.ops.backend import untraced

RULES: dict[type, Callable[..., Layer]] = {}
Rule = TypeVar("Rule", bound=Callable[..., Layer])
REGISTERED_BY_USERS: set[type] = set()

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def rule(*layer_classes: type) -> Callable[[Rule], Rule]:
    """Decorator: the function or class below makes the adjoint of layers of these exact types."""

    def register(make: Rule) -> Rule:
        for layer_class in layer_classes:
            RULES[layer_class] = make
        return make

    return register


@untraced
def register_rule(layer_class: type) -> Callable[[Rule], Rule]:
    """Teach `adjoint` a layer type of your own.

    The decorated function takes a built layer and returns the layer that computes its adjoint. It may declare any of
    the options of `adjoint` (`output_size`, `bias`, `channels`, `channel_method`, `algorithm`, `tied`, `name`) as keyword
    arguments, or take all but `tied` as `**kwargs`; options that it does not take are refused when given, except `name`, which
    the layer that it returns then gets, and `tied`: with `tied=False` the rule gets a copy of the layer. What it returns may
    read the layer's variables, however it holds them; it is then tied like any other adjoint, and made by the rule anew
    where a file is loaded. Every time the rule is used, its result must pass the adjoint test on random
    inputs, or `adjoint` raises. Of several rules that are registered for a class the last one holds, so that one can be
    corrected.

    Args:
        layer_class: The `keras.layers.Layer` subclass that the rule is for. Subclasses that replace `call`, or a method
            that it computes by, do not inherit the rule.

    Returns:
        The decorator.

    Raises:
        ValueError: If `layer_class` is not a layer class, or has a rule of this package, or what is decorated is no function.

    Example:

    >>> class Negate(keras.layers.Layer):
    ...     def call(self, x):
    ...         return -x
    >>> @ka.register_rule(Negate)
    ... def negate(source):
    ...     return Negate()
    >>> layer = Negate()
    >>> layer.build((None, 3))
    >>> type(ka.adjoint(layer)).__name__
    'Negate'
    """
    if not isinstance(layer_class, type) or not issubclass(layer_class, Layer):
        raise ValueError(
            f"`register_rule` takes a layer class, not an instance of one. Received: layer_class={layer_class!r}"
        )
    if layer_class in RULES and layer_class not in REGISTERED_BY_USERS:
        raise ValueError(
            f"`{layer_class.__name__}` already has a rule, which is this package's. Register one for a class derived from it "
            f"that has a `call` of its own. Received: layer_class={layer_class!r}"
        )

    def register(make: Rule) -> Rule:
        if not callable(make):
            raise ValueError(
                f"A rule is a function of a layer of type `{layer_class.__name__}` that returns the layer computing its "
                f"adjoint. Received: {make!r}"
            )
        RULES[layer_class] = make
        REGISTERED_BY_USERS.add(layer_class)
        return make

    return register


def class_with_rule(layer: Layer) -> type | None:
    """The class whose rule holds for `layer`: its own, or the nearest parent whose computation it inherits; or None.

    A rule that does not hold for all layers of its class says so in a method `covers`.
    """
    found = nearest_class(layer, RULES)
    return None if found is None or not _covers(RULES[found], layer) else found


def _covers(make: Callable[..., Layer], layer: Layer) -> bool:
    return bool(getattr(make, "covers", lambda layer: True)(layer))


def nearest_class(layer: Layer, classes: Container[type]) -> type | None:
    """Of some classes that of `layer`, or its nearest parent, as long as nothing in between computes something else."""
    parent = _nearest_parent(layer, classes)
    return None if parent is None or _replaced(layer, parent) or has_hooks(layer) else parent


def _nearest_parent(layer: Layer, classes: Container[type]) -> type | None:
    return next((layer_class for layer_class in type(layer).__mro__ if layer_class in classes), None)


def _replaced(layer: Layer, parent: type) -> list[str]:
    """Names of the methods by which `parent` computes and which `layer`, or a class between the two, replaces."""
    between = type(layer).__mro__[: type(layer).__mro__.index(parent)]
    replaced = {*vars(layer)}.union(*map(vars, between))
    return sorted(computing_methods(parent) & replaced)


def rule_for(layer: Layer) -> tuple[type, Callable[..., Layer]]:
    """(the class whose rule holds for `layer`, the rule).

    Raises:
        NoRuleError: If there is none; the message says how to add one.
    """
    layer_class = class_with_rule(layer)
    if layer_class is None:
        name = type(layer).__name__
        raise NoRuleError(
            f"No adjoint is known for `{name}`: {why_no_rule(layer)}. If the layer is linear, write a function that takes the "
            f"layer and returns the layer computing its adjoint, and decorate it with `@keras_adjoint.register_rule({name})`. "
            f"Received: {describe(layer)}"
        )
    return layer_class, RULES[layer_class]


def why_no_rule(layer: Layer) -> str:
    """Why no rule holds for a layer, or for a call of it."""
    parent = _nearest_parent(layer, RULES)
    if parent is None:
        return "no rule is registered for it"
    if has_hooks(layer):
        return (
            "it has forward hooks, which may change what it computes, so no rule holds unless these are removed first"
        )
    if not _replaced(layer, parent) and not _covers(RULES[parent], layer):
        return f"the rule for `{parent.__name__}` does not cover its options"
    if not _replaced(layer, parent):
        return "its rule knows nothing of the constants, options or integers that it is called with"
    return (
        f"it replaces the computation of `{parent.__name__}` by its own `{'`, `'.join(_replaced(layer, parent))}`, so it "
        "does not inherit that class's rule"
    )


def apply_rule(make: Callable[..., Layer], source: Layer, options: dict[str, Any]) -> Layer:
    """Make the adjoint of `source` by a rule, with those `options` that differ from their defaults.

    Raises:
        ValueError: If the rule does not take one of the options.
        NoRuleError: If it returns no layer.
    """
    accepted, accepts_any = _options(make), _accepts_any(make)
    options = dict(options)
    name = None if accepts_any or "name" in accepted else options.pop("name", None)
    for option, value in options.items():
        if option not in accepted and not accepts_any:
            names = sorted({*accepted, "name"} - {"source"})
            raise ValueError(
                f"The adjoint of `{type(source).__name__}` takes no `{option}`; it takes {', '.join(names)}. "
                f"Received: {option}={value!r}, {describe(source)}"
            )
    result = make(source, **options)
    if not isinstance(result, Layer):
        raise NoRuleError(
            f"The rule for `{type(source).__name__}` must return the layer that computes the adjoint, and returned none; a "
            f"function becomes one by `keras.layers.Lambda`. Received: {result!r}, {describe(source)}"
        )
    if name is not None and result is not source:
        result.name = name
    return result


def options_of(source: Layer) -> tuple[Collection[str], Sequence[str] | None]:
    """(names of the options that the rule for `source` declares, its modes of `bias` or `None` for all of them)."""
    _, make = rule_for(source)
    return _options(make), getattr(make, "bias_modes", None)


def names_option(make: Callable[..., Layer], option: str) -> bool:
    """Whether a rule declares an option, rather than take it with all others."""
    return option in _options(make)


def _options(make: Callable[..., Layer]) -> Collection[str]:
    """Names of the options that a rule declares."""
    parameters = inspect.signature(make).parameters
    return getattr(make, "options", None) or [name for name, one in parameters.items() if one.kind not in _VARIADIC]


def _accepts_any(make: Callable[..., Layer]) -> bool:
    """Whether a rule takes options that it does not declare, by `**kwargs`."""
    has_list = getattr(make, "options", None) is not None
    return not has_list and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values())


def describe(layer: Any) -> str:
    """A layer as error messages name it."""
    return f"source={getattr(layer, 'name', layer)!r} of type {type(layer).__name__}"
