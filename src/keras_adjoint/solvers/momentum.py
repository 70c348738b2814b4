"""Nesterov's momentum as FISTA has it (Beck and Teboulle 2009)."""

import math

from keras import ops

from keras_adjoint.ops import Tensor


def following(t: Tensor) -> tuple[Tensor, Tensor]:
    """(the next t, the factor of the last move that is added to where it led to); t begins at 1."""
    after = (1 + ops.sqrt(1 + 4 * t * t)) / 2
    return after, (t - 1) / after


def factors(steps: int) -> list[float]:
    """The factors of the first steps as numbers."""
    t, found = 1.0, []
    for _ in range(steps):
        after = (1 + math.sqrt(1 + 4 * t * t)) / 2
        found.append((t - 1) / after)
        t = after
    return found
