"""The options of `unroll`, checked, and what its methods are made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_adjoint.errors import one_of, unknown_name
from keras_adjoint.layers.options import as_integer, is_real_number
from keras_adjoint.operators.bridges import FORMATS, data_format_of
from keras_adjoint.operators.operator import Operator
from keras_adjoint.solvers.proximal import PROXIMALS, Details

METHODS = {  # and what of each can be trained
    "ista": ("step", "threshold"),
    "fista": ("step", "threshold", "momentum"),
    "primal_dual": ("step", "threshold"),
    "admm": ("step", "threshold"),
}
SPLITTING = ("primal_dual", "admm")  # which need no inner steps for total variation
LEARNED = ("step", "threshold", "momentum")
STEPS = 16
COPIES = "forward"  # of Aᵀ alone

Penalty = str | Callable[..., Any] | list[keras.layers.Layer]


@dataclass(frozen=True)
class Options:
    """What the steps of an unrolled network are like.

    Attributes:
        prox: A name, a function, or one model for each step.
        weight: Of the penalty.
        learn: What is trained.
        details: What the penalty is further determined by.
    """

    prox: Penalty
    weight: float
    learn: tuple[str, ...]
    details: Details

    def without_steps(self) -> "Options":
        """The same, of which nothing is trained that a solution does not depend on."""
        return replace(self, learn=tuple(name for name in self.learn if name == "threshold"))

    @property
    def learns_threshold(self) -> bool:
        """Whether the weight of the penalty is trained, which has to make a difference."""
        scales = not isinstance(self.prox, list) and (callable(self.prox) or PROXIMALS[self.prox].is_scaled)
        return scales and "threshold" in self.learn


def steps_from(value: Any) -> int:
    """How many steps there are, by default 16."""
    steps = STEPS if value is None else as_integer(value)
    if steps is None or steps < 1:
        raise ValueError(f"`steps` is a positive integer. Received: steps={value!r}")
    return steps


def learn_from(value: Any, method: str) -> tuple[str, ...]:
    """What is trained, in the order of `LEARNED`.

    Raises:
        ValueError: If it is not known, or the method has nothing of the kind.
    """
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (tuple, list, set, frozenset)):
        raise ValueError(f"`learn` is a tuple of names. Received: learn={value!r}")
    takes = f"takes names of {', '.join(LEARNED)}"
    for name in names:
        if not isinstance(name, str) or name not in LEARNED:
            raise unknown_name("learn", name, takes, LEARNED)
        if name not in METHODS[method]:
            raise ValueError(
                f'`learn` has "{name}", and `method="{method}"` has none; "fista" does. Received: learn={value!r}'
            )
    return tuple(name for name in LEARNED if name in names)


def tied_from(value: Any) -> bool | str:
    """Whether steps share the kernel of the layer: all of it, for A alone, or nothing."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if value != COPIES or not isinstance(value, str):
        raise unknown_name("tied", value, f'must be `True`, `False` or "{COPIES}"', (COPIES,))
    return value


def prox_from(value: Any, steps: int) -> Penalty:
    """A name, a function, or one layer or model for each step.

    Raises:
        ValueError: If it is nothing of these, or there are more or fewer models than steps.
    """
    if isinstance(value, keras.layers.Layer):
        return [value] * steps
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != steps or not all(isinstance(each, keras.layers.Layer) for each in value):
            raise ValueError(
                f"`prox` is one model, or a list of one for each of the {steps} steps. Received: a list of {len(value)}: "
                f"{', '.join(type(each).__name__ for each in value)}"
            )
        return list(value)
    return value if callable(value) else one_of("prox", value, PROXIMALS)


def start_from(value: Any) -> keras.layers.Layer | None:
    """A layer or model, or nothing."""
    if value is not None and not isinstance(value, keras.layers.Layer):
        raise ValueError(
            f"`start` is a layer or model that gives the first x from y, such as `LeastSquares(layer, ridge=...)`. "
            f"Received: start={value!r}"
        )
    return value


def started(start: keras.layers.Layer, y: Any, A: Operator) -> Any:
    """What it gives.

    Raises:
        ValueError: If it does not take y, or what it gives is not of the shapes that A takes.
    """
    try:
        x = start(y)
    except ValueError as error:  # Keras', of shapes that a layer does not take
        raise ValueError(
            f"`start` takes what the layer gives: {A.out_shape}. Received: start={start.name}, which says of that: "
            f"{str(error).strip()}"
        ) from error
    given = [tuple(leaf.shape[1:]) for leaf in keras.tree.flatten(x)]
    if given != list(A.in_space.shapes):
        raise ValueError(
            f"`start` gives the first x from y, which A takes: {A.in_shape}. Received: start={start.name}, which gives "
            f"{', '.join(map(str, given))}"
        )
    return x


def check_taken(prox: Penalty, method: str, **options: Any) -> None:
    """Raise a ValueError for an option that was given and would change nothing."""
    takes = set(PROXIMALS[prox].takes if isinstance(prox, str) else () if isinstance(prox, list) else ("weight",))
    takes -= {"inner_steps"} if method in SPLITTING else set()
    for name, value in options.items():
        if value is None or name in takes:
            continue
        said = (
            f'prox="{prox}"'
            if isinstance(prox, str)
            else f"`prox` as {'models' if isinstance(prox, list) else 'a function'}"
        )
        owners = " or ".join(f'"{each.name}"' for each in PROXIMALS.values() if name in each.takes)
        methods = ' and `method="ista"` or "fista"' if name == "inner_steps" else ""
        raise ValueError(
            f"`{name}` goes with `prox={owners}`{methods}, and would change nothing here. Received: {name}={value!r}, {said}, "
            f'method="{method}"'
        )


def weight_from(value: Any, prox: Penalty) -> float:
    """The weight of the penalty, which has to be given where a penalty of this library is multiplied by it, else 1.

    Raises:
        ValueError: If it is missing, negative, or not finite.
    """
    if value is None:
        if isinstance(prox, str) and PROXIMALS[prox].is_scaled:
            raise ValueError(
                f'`prox="{prox}"` needs a `weight`, how much it counts beside ½‖A x − y‖². Received: weight=None'
            )
        return 1.0
    if not is_real_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"`weight` is a number that is not negative. Received: weight={value!r}")
    return float(value)


def details_from(A: Operator, prox: Penalty, data_format: Any, **given: Any) -> Details:
    """What the penalties are further determined by, of which `None` is the default.

    Raises:
        ValueError: If nothing is between the limits, or an option has a value that it does not take.
    """
    details = Details(**{name: value for name, value in given.items() if value is not None})
    lower, upper, inner = details.lower, details.upper, as_integer(details.inner_steps)
    if not all(is_real_number(limit) for limit in (lower, upper)):
        raise ValueError(f"`lower` and `upper` are numbers. Received: lower={lower!r}, upper={upper!r}")
    if not lower <= upper or lower == math.inf or upper == -math.inf:
        raise ValueError(f"`lower` is not above `upper`. Received: lower={lower!r}, upper={upper!r}")
    if inner is None or inner < 1:
        raise ValueError(f"`inner_steps` is a positive integer. Received: inner_steps={details.inner_steps!r}")
    if data_format is not None:
        one_of("data_format", data_format, FORMATS)
    channels = data_format_of(A, data_format) if prox == "tv" else "channels_last"
    return Details(float(lower), float(upper), channels, inner)


def check_solved(steps: Any, tied: bool | str, start: Any) -> None:
    """Raise a ValueError where steps are counted, or differ and so have no common solution, or begin elsewhere than at zero."""
    if steps is not None:
        raise ValueError(f"`fixed_point=True` takes at most `max_steps` steps. Received: steps={steps!r}")
    if tied is not True:
        raise ValueError(f"`fixed_point=True` takes one step again and again, with one kernel. Received: tied={tied!r}")
    if start is not None:
        raise ValueError(
            f"`fixed_point=True` begins at zero, as the solution is the same. Received: start={start.name}"
        )


def check_unrolled(tolerance: Any, max_steps: Any) -> None:
    """Raise a ValueError for options of `fixed_point=True`."""
    if tolerance is not None or max_steps is not None:
        raise ValueError(
            f"`tolerance` and `max_steps` go with `fixed_point=True`; how many steps there are else, `steps` says. "
            f"Received: tolerance={tolerance!r}, max_steps={max_steps!r}"
        )
