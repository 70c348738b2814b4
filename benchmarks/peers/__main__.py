"""`python -m benchmarks.peers`: time A, Aᵀ and 20 iterations of CGLS in every library that is installed.

The peers are no dependency of anything here: `pip install pylops sigpy lineax scipy` has those that can be installed beside
the versions in `requirements/constraints.txt`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend

import keras
import numpy as np

from benchmarks.peers.libraries import LIBRARIES
from benchmarks.peers.problems import PROBLEMS, conjugate_gradients
from benchmarks.speed.timing import interleaved
from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.ops.backend import current
from keras_adjoint_cli.console import make_console

INTRODUCTION = """# Other libraries

<!-- Written by `python -m benchmarks.peers`. Changes made by hand are lost. -->

The same operator in other libraries: one sample, float32, milliseconds, the best of repeats that alternate in one process. The
twenty iterations are those of CGLS, the same program on each library's own arrays. A and Aᵀ of every library were compared with
ours before they were timed.

DeepInverse 0.5 needs torchvision, and SCICO another version of JAX, so both are left out. DeepInverse is measured beside
[solvers](solvers.md).
"""


def main():
    """Time what is installed and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for every function that is timed")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for peers.md")
    given = parser.parse_args()
    lines = [INTRODUCTION, f"keras-adjoint ran on {keras.backend.backend()}.", ""]
    for problem in PROBLEMS:
        lines += table(problem, given.seconds)
    text = "\n".join(lines).rstrip() + "\n"
    with atomic_write(given.out / "peers.md") as beside:
        beside.write_text(text, encoding="utf-8")
    make_console().print(text, markup=False, soft_wrap=True)


def table(problem, seconds):
    """The lines of one problem's table."""
    generator = np.random.default_rng(1)
    x, y = (generator.standard_normal(shape).astype("float32") for shape in (problem.x_shape, problem.y_shape))
    runs, missing, expected = {}, {}, None
    for name, make in LIBRARIES.items():
        try:
            forward, adjoint, into, back = make(problem)
        except ImportError as error:
            missing[name] = str(error)
            continue
        found = back(forward(into(x))), back(adjoint(into(y)))
        expected = expected or found
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max(), err_msg=name)
        runs |= functions(name, forward, adjoint, into(x), into(y))
    times = interleaved(runs, seconds=seconds, fewest=3)
    lines = [f"## {problem.name}", "", "| library | A | Aᵀ | 20 iterations |", "| --- | --- | --- | --- |"]
    for name in LIBRARIES:
        if name in missing:
            lines.append(f"| {name} | not installed: {missing[name]} | | |")
            continue
        cells = (f"{1e3 * times[name, what].best:.3g}" for what in ("forward", "adjoint", "solve"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def functions(name, forward, adjoint, x, y):
    """What is timed of one library, each waiting for its end."""

    def wait(result):
        if hasattr(result, "block_until_ready"):  # JAX's, on whatever backend
            result.block_until_ready()
        elif not isinstance(result, np.ndarray):
            current().wait(result)

    def dot(one, other):
        return float((one * other).sum()) if hasattr(one, "sum") else float(keras.ops.sum(one * other))

    return {
        (name, "forward"): lambda: wait(forward(x)),
        (name, "adjoint"): lambda: wait(adjoint(y)),
        (name, "solve"): lambda: wait(conjugate_gradients(forward, adjoint, y, dot)),
    }


if __name__ == "__main__":
    main()
