"""`python -m benchmarks.calibrate`: what the work of every algorithm costs on this machine, for `algorithms/cost_model.json`.

Convolutions are drawn at random, none of them taken from the networks that `benchmarks.speed` times, and every algorithm
that fits is timed on each. Its coefficients are those that explain its times with the least relative error.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from keras import ops
from scipy.optimize import least_squares

from benchmarks.speed.geometries import Geometry
from benchmarks.speed.operators import backend_tools
from benchmarks.speed.timing import interleaved
from benchmarks.survival import survived
from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.ops.algorithms import cost_model
from keras_adjoint.ops.algorithms.choose import candidates, problem_of
from keras_adjoint.ops.algorithms.cost_model import nanoseconds
from keras_adjoint.ops.backend import current
from keras_adjoint_cli.console import make_console

SIDES = {1: (32, 64, 128, 512, 2048, 8192), 2: (7, 14, 28, 56, 112), 3: (7, 14, 28)}
TAPS = (1, 2, 3, 3, 3, 4, 4, 5, 7, 8, 16, 32, 64, 256, 512)
STRIDES = (1, 1, 2, 2, 4, 8, 16)
CHANNELS = (1, 3, 16, 32, 64, 128, 256, 512)
DRAWS = {
    "sequence": 80,
    "image": 100,
    "volume": 40,
    "dilated": 40,
    "dilated sequence": 40,
    "grouped": 60,
    "depthwise": 30,
    "strided depthwise": 30,
}
# The others come along one axis or, twice as often, two.
RANKS = {"sequence": (1,), "image": (2,), "volume": (3,), "dilated": (2,), "dilated sequence": (1,)}
COEFFICIENTS = ("product", "element", "call", "start", "rows", "depth", "width")
DTYPES = {"full": "float32", "half": "bfloat16"}
FEWEST, MOST = 1e6, 2.5e9  # multiply-adds
LARGEST = 2**24  # numbers in a tensor


def main():
    """Time, fit and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(cost_model.__file__).with_name("cost_model.json"))
    parser.add_argument("--seconds", type=float, default=0.05, help="time for each algorithm of each convolution")
    parser.add_argument("--kinds", nargs="+", choices=DRAWS, default=list(DRAWS), help="the others stay as they are")
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=list(DTYPES), help="likewise")
    given = parser.parse_args()
    console = make_console()
    found = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    for precision in given.precisions:
        of_kinds = found.setdefault(current().NAME, {}).setdefault(precision, {})
        for kind in given.kinds:
            samples = drawn_samples(kind, DTYPES[precision], given.seconds)
            of_kinds[kind] = {name: fit(rows) for name, rows in samples.items()}
            for name, rows in samples.items():
                off = error(rows, of_kinds[kind][name])
                console.print(f"{precision} {kind} {name}: {of_kinds[kind][name]}, off by a factor of {off:.2f}")
            with atomic_write(given.out) as beside:  # a run that is cut off keeps what it has
                beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def drawn_samples(kind, dtype, seconds):
    """(work, seconds) of every algorithm, by name, on convolutions of one kind."""
    generator = np.random.default_rng(0)
    geometries = [draw(kind, generator) for _ in range(DRAWS[kind])]
    samples = {}
    for _, found in survived(partial(times, dtype=dtype, seconds=seconds), geometries):
        for name, sample in (found or {}).items():
            samples.setdefault(name, []).append(sample)
    return samples


def draw(kind, generator):
    """A convolution of a kind, of a size that networks have."""
    while True:
        rank = int(generator.choice(RANKS.get(kind, (1, 2, 2))))
        stride = int(generator.choice(STRIDES))
        taps = int(generator.choice(TAPS))
        channels, filters = map(int, generator.choice(CHANNELS, 2))
        groups = 1
        if kind == "grouped" or kind.endswith("depthwise"):
            channels = filters = max(channels, filters, 16)
            groups = channels // int(generator.choice((2, 4, 8))) if kind == "grouped" else channels
        dilated = kind.startswith("dilated")
        dilation = int(generator.choice((2, 4, 12))) if dilated else 1
        stride = 1 if dilated or kind == "depthwise" else stride
        size = int(generator.choice(SIDES[rank]))
        batch = int(generator.choice((1, 2, 8, 32)))
        padding = str(generator.choice(("same", "valid")))
        if not stride <= taps or (taps - 1) * dilation >= size or taps**rank > 512:
            continue
        geometry = Geometry("drawn", (size,) * rank, channels, filters, taps, stride, batch, padding, dilation, groups)
        if geometry.problem().kind != kind:
            continue
        products = np.prod(geometry.y_shape) * np.prod(geometry.kernel_shape[:-1])
        numbers = max(np.prod(geometry.x_shape), np.prod(geometry.y_shape))
        if FEWEST <= products <= MOST and numbers <= LARGEST:
            return geometry


def times(geometry, dtype, seconds):
    """Work and best time of every algorithm that fits, by name."""
    generator = np.random.default_rng(0)
    y = ops.convert_to_tensor(generator.standard_normal(geometry.y_shape).astype("float32"), dtype=dtype)
    kernel = ops.convert_to_tensor(generator.standard_normal(geometry.kernel_shape).astype("float32"), dtype=dtype)
    problem = problem_of(y, kernel, geometry.convolution)
    fitting = candidates(problem)
    runs = {}
    for algorithm in fitting:
        runs[algorithm.name] = backend_tools().timed(
            lambda y, kernel, algorithm=algorithm: algorithm.apply(y, kernel, geometry.convolution), y, kernel
        )
        runs[algorithm.name]()
    best = interleaved(runs, seconds=seconds) if runs else {}  # none may be considered
    return {algorithm.name: (algorithm.work(problem), best[algorithm.name].best) for algorithm in fitting}


def fit(rows):
    """The seven numbers that explain the times of one algorithm, with the least sum of relative errors."""

    def errors(logarithms):
        coefficients = dict(zip(COEFFICIENTS, np.exp(logarithms), strict=True))
        return np.log([nanoseconds(work, coefficients) * 1e-9 / seconds for work, seconds in rows])

    starts = np.log([[0.006, 0.2, 3e4, 3e4, *halves] for halves in ((1, 1, 1), (20, 20, 20), (200, 20, 5))])
    bounds = np.log([[1e-4, 1e-4, 100, 100, 0.01, 0.01, 0.01], [10, 10, 1e7, 1e7, 1e4, 1e4, 1e4]])
    found = min(
        (least_squares(errors, start, loss="soft_l1", f_scale=0.3, bounds=bounds) for start in starts),
        key=lambda result: result.cost,
    )
    return {name: float(f"{number:.3g}") for name, number in zip(COEFFICIENTS, np.exp(found.x), strict=True)}


def error(rows, coefficients):
    """The typical factor between the cost model and what was measured."""
    logarithms = [np.log(nanoseconds(work, coefficients) * 1e-9 / seconds) for work, seconds in rows]
    return float(np.exp(np.sqrt(np.mean(np.square(logarithms)))))


if __name__ == "__main__":
    main()
