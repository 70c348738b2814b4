"""`KERAS_BACKEND=jax python -m benchmarks.solvers`: solve least squares in every library, and write docs/solvers.md."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # whose compiler says how much memory a program takes

import jax
import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.solvers.libraries import LIBRARIES
from benchmarks.speed.timing import interleaved
from keras_adjoint.atomic_write import atomic_write
from keras_adjoint_cli.console import make_console

INTRODUCTION = """# Solvers in other libraries

<!-- Written by `python -m benchmarks.solvers`. Changes made by hand are lost. -->

The x that minimises ‖A x − y‖² + ridge·‖x‖² for a batch of {batch} noisy y, where A is a convolution with a 5×5 kernel and
stride 2, from {sizes} with 3 channels to 16, in float32, and the ridge is {ridge}.

Each library has the same operator by its [bridge](how/operators.md#bridges), and the loosest tolerance in a row of them
with which it reaches a relative error of {error:g} in x, compared with the solution by the dense matrix in float64. The
times are for the batch, interleaved, relative to the first row. SciPy and PyLops take one sample at a time, on the host;
lineax maps over the batch.
"""
RIDGE, ERROR, STEPS = 0.01, 1e-3, 60
TOLERANCES = [10.0 ** (-exponent / 4) for exponent in range(2, 25)]


def main():
    """Compute and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=8, help="how many images")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each library")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for solvers.md")
    given = parser.parse_args()
    operator, images, y = problem(given.size, given.batch)
    numbers = {"batch": given.batch, "sizes": f"{given.size}×{given.size}", "ridge": RIDGE, "error": ERROR}
    lines = [INTRODUCTION.format(**numbers), *times(operator, y, given.seconds), "", *memory(operator, images, y)]
    with atomic_write(given.out / "solvers.md") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    make_console().print("\n".join(lines), markup=False, soft_wrap=True)


def problem(size, batch):
    """(A, x, y = A x + noise)."""
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(16, 5, strides=2, padding="same", use_bias=False)
    conv.build((None, size, size, 3))
    operator = ka.operator(conv)
    generator = np.random.default_rng(0)
    images = generator.random((batch, *operator.in_shape), "float32")
    noise = generator.standard_normal((batch, *operator.out_shape)).astype("float32")
    return operator, images, keras.ops.convert_to_tensor(np.asarray(operator @ images) + 0.01 * noise)


def times(operator, y, seconds):
    """The lines of the table of times to the same error."""
    matrix = operator.to_matrix().astype("float64")
    right = matrix.T @ np.asarray(y, "float64").reshape(len(y), -1).T
    exact = np.linalg.solve(matrix.T @ matrix + RIDGE * np.eye(matrix.shape[1]), right).T

    def error(solve):
        return np.linalg.norm(np.asarray(solve(y)).reshape(exact.shape) - exact) / np.linalg.norm(exact)

    chosen, errors = {}, {}
    for name, make in LIBRARIES.items():
        for tolerance in TOLERANCES:
            solve = make(operator, RIDGE, tolerance)
            errors[name] = error(solve)
            if errors[name] <= ERROR:
                chosen[name] = solve
                break
    found = interleaved(
        {name: lambda solve=solve: np.asarray(solve(y)) for name, solve in chosen.items()}, seconds=seconds
    )
    first = next(iter(found.values())).best
    rows = [
        (name, f"{errors[name]:.1e}", f"{found[name].best / first:.2f}" if name in found else "does not reach it")
        for name in LIBRARIES
    ]
    return [f"| {' | '.join(row)} |" for row in (("library", "error", "time"), ("---",) * 3, *rows)]


def memory(operator, images, y):
    """The lines about the gradients of a loss by the kernel, implicit and unrolled."""
    (kernel,) = operator.variables()

    def loss(value, gradient):
        with keras.StatelessScope(state_mapping=[(kernel, value)]):
            found = ka.lstsq(operator, y, ridge=RIDGE, gradient=gradient, max_steps=STEPS, tolerance=1e-6)
            return jax.numpy.mean((found.x - images) ** 2)

    gradients, sizes = {}, {}
    for gradient in ("implicit", "unrolled"):
        differentiated = jax.grad(lambda value, gradient=gradient: loss(value, gradient))
        program = jax.jit(differentiated).lower(kernel.value).compile()
        sizes[gradient] = program.memory_analysis().temp_size_in_bytes / 2**20
        gradients[gradient] = np.asarray(program(kernel.value))
    one, other = gradients.values()
    difference = np.linalg.norm(one - other) / np.linalg.norm(other)
    return [
        "## Gradients",
        "",
        f"Of a loss of x by the kernel, with at most {STEPS} steps: the [gradient of the solution](how/least_squares.md) has a "
        f"workspace of {sizes['implicit']:.2f} MiB, that of the unrolled steps one of {sizes['unrolled']:.1f} MiB, "
        f"{sizes['unrolled'] / sizes['implicit']:.0f} times as much. Their relative difference is {difference:.1e}.",
    ]


if __name__ == "__main__":
    main()
