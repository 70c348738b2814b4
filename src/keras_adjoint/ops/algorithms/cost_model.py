"""How long the work of an algorithm takes.

A product of matrices reaches its full speed only if it is large in all three directions. So the time is

    products · (1 + h_rows / rows) · (1 + h_depth / depth) · (1 + h_width / width) · a  +  elements · b  +  calls · c  +  d,

where a direction of size h costs half of the speed. `cost_model.json` has the seven numbers for every backend, precision,
kind of convolution and algorithm. `python -m benchmarks.calibrate` wrote it, from timings of convolutions
drawn at random.
"""

import json
from importlib import resources


def completed(measured):
    """The rates of `measured`, where "a without b" takes from "a" what it has not itself."""
    bases = {name: measured[name.partition(" without ")[0]] for name in measured}
    return {
        name: {precision: {**kinds, **measured[name].get(precision, {})} for precision, kinds in base.items()}
        for name, base in bases.items()
    }


# `RATES[name][precision][kind][algorithm]` is a dictionary of the seven numbers; a backend says its `NAME`.
RATES = completed(
    json.loads(resources.files("keras_adjoint.ops.algorithms").joinpath("cost_model.json").read_text(encoding="utf-8"))
)


def seconds(algorithm, problem, backend):
    """The time that an algorithm is expected to take for a problem."""
    of_kind = RATES[backend.NAME][problem.precision][problem.kind]
    return nanoseconds(algorithm.work(problem), of_kind[algorithm.name]) * 1e-9


def nanoseconds(work, rate):
    """The formula above."""
    product = rate["product"] * work.rows * work.depth * work.width * work.repeats
    for direction in ("rows", "depth", "width"):
        product = product * (1 + rate[direction] / getattr(work, direction))
    return product + rate["element"] * work.elements + rate["call"] * work.calls + rate["start"]
