"""Options as users give them, each checked and made a plain Python value in one way."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def standardize_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as plain Python values.

    Raises:
        ValueError: If a value is not of the kind that its option takes.
    """
    return {name: STANDARDIZE[name](name, value) if name in STANDARDIZE else value for name, value in options.items()}


def boolean(option: str, value: Any) -> bool:
    """`True` or `False`; NumPy's, too."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{option}` must be `True` or `False`. Received: {option}={value!r}")
    return bool(value)


def string_or_none(option: str, value: Any) -> str | None:
    """A string, of which those that exist are checked by what takes the option."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{option}` must be a string. Received: {option}={value!r}")
    return value


def name_or_none(option: str, value: Any) -> str | None:
    """A name that Keras takes for a layer."""
    if value is not None and (not isinstance(value, str) or not value or "/" in value):
        raise ValueError(f"`{option}` must be a string without a slash. Received: {option}={value!r}")
    return value


def positive_integer_or_none(option: str, value: Any) -> int | None:
    """A plain integer from 1 on, from any type of integer."""
    number = None if value is None else as_integer(value)
    if value is not None and (number is None or number < 1):
        raise ValueError(f"`{option}` must be a positive integer. Received: {option}={value!r}")
    return number


def is_real_number(value: Any) -> bool:
    """Whether a value is one of Python's or NumPy's integers and real numbers, and no boolean."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def as_integer(value: Any) -> int | None:
    """The plain integer behind an integer of any type, scalar tensors included; `None` for all else.

    Booleans are none, and what a graph has yet to compute is none.
    """
    is_boolean = isinstance(value, (bool, np.bool_)) or "bool" in str(getattr(value, "dtype", ""))
    if is_boolean or len(getattr(value, "shape", ())):  # an array of one integer would pass for it
        return None
    try:
        return operator.index(value)
    except (TypeError, AttributeError, NotImplementedError):
        return None


def items_of(value: Any) -> list[Any]:
    """What is in a sequence, an array or a tensor; nothing if it has no items, as symbolic tensors have none."""
    try:
        return list(value)
    except (TypeError, NotImplementedError):
        return []


STANDARDIZE: dict[str, Callable[[str, Any], Any]] = {
    "algorithm": string_or_none,
    "linear_part": boolean,
    "tied": boolean,
    "channels": positive_integer_or_none,
    "name": name_or_none,
}
