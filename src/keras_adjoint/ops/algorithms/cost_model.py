"""How long the work of an algorithm takes.

A product of matrices reaches its full speed only if it is large in all three directions. So the time is

    products · (1 + h_rows / rows) · (1 + h_depth / depth) · (1 + h_width / width) · a  +  elements · b  +  calls · c  +  d,

where a direction of size h costs half of the speed. `cost_model.json` has the seven coefficients for every backend, precision,
kind of convolution and algorithm. `python -m benchmarks.calibrate` wrote it, from timings of convolutions drawn at random.
"""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current

Coefficients = Mapping[str, float]


def completed(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The coefficients of `measured`, where "a without b" takes those from "a" that it lacks."""
    bases = {name: measured[name.partition(" without ")[0]] for name in measured}
    return {
        name: {precision: {**kinds, **measured[name].get(precision, {})} for precision, kinds in base.items()}
        for name, base in bases.items()
    }


# `COEFFICIENTS[name][precision][kind][algorithm]` is a dictionary of the seven numbers; a backend says its `NAME`.
COEFFICIENTS = completed(
    json.loads(resources.files("keras_adjoint.ops.algorithms").joinpath("cost_model.json").read_text(encoding="utf-8"))
)


def seconds(work: Work, algorithm: str, problem: Problem) -> float:
    """The time that the work of an algorithm is expected to take."""
    of_kind = COEFFICIENTS[current().NAME][problem.precision][problem.kind]
    return nanoseconds(work, of_kind[algorithm]) * 1e-9


def nanoseconds(work: Work, coefficients: Coefficients) -> float:
    """The formula above."""
    product = coefficients["product"] * work.rows * work.depth * work.width * work.repeats
    for direction in ("rows", "depth", "width"):
        product = product * (1 + coefficients[direction] / getattr(work, direction))
    others = coefficients["element"] * work.elements + coefficients["call"] * work.calls + coefficients["start"]
    return product + others


def whole_blocks(problem: Problem, channels: int) -> int:
    """As many channels as a dense convolution computes: whole blocks of them, with unused ones in the last block."""
    at_once = current().CHANNELS_AT_ONCE if problem.convolution.groups == 1 else 1
    return -(-channels // at_once) * at_once
