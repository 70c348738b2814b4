"""Policies as they are written on the command line: KEY=VALUE, or KEY:LAYER=VALUE for one layer or class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras

from keras_adjoint.models.policies import Policies
from keras_adjoint.models.policy_names import NAMES
from keras_adjoint_cli.errors import Unusable, nearest, unusable

FORM = (
    "A policy is written KEY=VALUE, as in pooling=switches, or KEY:LAYER=VALUE for the layers of one name or class, as in "
    "bias:conv1=none and norm:LayerNormalization=skip"
)


@dataclass(frozen=True)
class Setting:
    """One policy as it was written."""

    text: str
    policy: str
    layers: str | None  # a name or a class; or None for all
    key: Any  # the same as a key of the policy's dictionary
    value: str


def read_settings(texts: Sequence[str], operations: Sequence[Any]) -> list[Setting]:
    """The `Setting` of every text, for an encoder that is made of these layers and operations."""
    return [read_setting(text, operations) for text in texts]


def read_setting(text: str, operations: Sequence[Any]) -> Setting:
    """One `Setting`, or an `Unusable` that lists what is allowed."""
    left, equals, value = text.rpartition("=")
    policy, colon, layers = left.partition(":")
    if not (equals and value and policy and bool(colon) == bool(layers)):
        raise Unusable(f"{FORM}. Received: {text}")
    names = [field.name for field in fields(Policies)]
    if policy not in names:
        raise Unusable(f"The policies are called {', '.join(names)}. Received: {text}")
    if layers and policy not in NAMES:
        raise Unusable(f"The policy {policy} is one for the whole model: {policy}={value}. Received: {text}")
    return Setting(text, policy, layers or None, key_for(layers, operations, text), value)


def key_for(layers: str | None, operations: Sequence[Any], text: str) -> Any:
    """The key of a policy's dictionary for the layers of a name or of a class."""
    if not layers or layers in {operation.name for operation in operations}:
        return layers or "default"
    classes = {base.__name__: base for operation in operations for base in classes_of(operation)}
    if layers not in classes:
        known = [*dict.fromkeys(operation.name for operation in operations), *classes]
        near = nearest(layers, known)
        raise Unusable(f"The encoder has no layer of the name or class {layers}, but {near}. Received: {text}")
    return classes[layers]


def classes_of(operation: Any) -> tuple[type, ...]:
    """The class of a layer, and those that it is derived from, but for Keras' own base."""
    bases = type(operation).__mro__
    return bases[: bases.index(keras.Operation)] if keras.Operation in bases else bases[:1]


def policies_from(settings: Sequence[Setting], operations: Sequence[Any]) -> Policies:
    """The `Policies` that the settings say, checked."""
    with unusable(ValueError):
        policies = Policies.named(choices_from(settings))
        policies.check(operations)
    return policies


def choices_from(settings: Sequence[Setting], defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings as keyword arguments of `mirror`; for layers that none is about the choice among `defaults`, if any."""
    given: dict[str, Any] = {}
    for setting in settings:
        given.setdefault(setting.policy, {})[setting.key] = setting.value
    for policy, choices in given.items():
        if defaults and policy in defaults:
            choices.setdefault("default", defaults[policy])
        if list(choices) == ["default"]:
            given[policy] = choices["default"]
    return given


def because(decision: Any, settings: Sequence[Setting]) -> Iterator[str]:
    """In words what made every choice about a layer: an option of the command line, or the default."""
    told = {(setting.policy, setting.layers): setting.text for setting in settings}
    for policy, choice in decision.policies.items():
        text = told.get((policy, decision.settings[policy])) or told.get((policy, None))
        yield f"{policy}={choice}, {'by default' if text is None else f'by --policy {text}'}"
