"""`KERAS_BACKEND=jax python -m benchmarks.solvers`: solve least squares in every library, and write docs/solvers.md.

SigPy and DeepInverse are run in processes of their own, in turns with the others, by the Python of `--peers-python`. Such an
environment has this package's dependencies and `pip install sigpy deepinv torchvision==0.28.0`, each with its own requirements.
"""

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # whose compiler says how much memory a program takes

import jax
import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.solvers import problem as problems
from benchmarks.solvers.candidate import Candidate
from benchmarks.solvers.libraries import LIBRARIES
from benchmarks.solvers.peers import NotMeasured, Peer, worker
from benchmarks.solvers.problem import RIDGE
from benchmarks.speed.timing import interleaved
from keras_adjoint.atomic_write import atomic_write
from keras_adjoint_cli.console import make_console

INTRODUCTION = """# Solvers in other libraries

<!-- Written by `python -m benchmarks.solvers`. Changes made by hand are lost. -->

The x that minimises ‖A x − y‖² + ridge·‖x‖² for a batch of {batch} noisy y, where A is a convolution with a 5×5 kernel and
stride 2, from {sizes} with 3 channels to 16, in float32, and the ridge is {ridge}.

Each library has the same operator by its [bridge](how/operators.md#bridges), and the loosest tolerance in a row of them
with which it reaches a relative error of {error:g} in x, compared with the solution by the dense matrix in float64. The
times are for the batch, the best of repeats that alternate, relative to the first row. SciPy, PyLops and SigPy take one
sample at a time, on the host; lineax maps over the batch. SigPy, which has no bridge, has a `Linop` around the one for SciPy.
DeepInverse runs on PyTorch, in a process of its own, and a second time with PyTorch's convolution and its transpose in the
place of ours; for comparison there is `lstsq` on PyTorch as well.

The memory is what a solve holds at once beside y and the kernel: of JAX's programs the workspace that its compiler says, on
PyTorch the most that is allocated during the solve. Of what computes on both sides of the host's border neither is known.
"""
ERROR, STEPS = 1e-3, 60
PEERS = {"jax": "benchmarks.solvers.libraries:PEERS", "torch": "benchmarks.solvers.torch_libraries:LIBRARIES"}
NAMES = {
    "jax": ("SigPy, CG",),
    "torch": (
        "`lstsq`, cgls, on PyTorch",
        "DeepInverse, CG, by `to_deepinv`",
        "DeepInverse, CG, by PyTorch's convolutions",
    ),
}


def main():
    """Compute and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=8, help="how many images")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each library")
    parser.add_argument(
        "--peers-python", help="the Python of an environment with SigPy and DeepInverse; by default this one"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for solvers.md")
    given = parser.parse_args()
    problem = problems.make(given.size, given.batch)
    numbers = {"batch": given.batch, "sizes": f"{given.size}×{given.size}", "ridge": RIDGE, "error": ERROR}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        problem.save(folder / "problem.npz")
        candidates = {name: Candidate(make, problem) for name, make in LIBRARIES.items()}
        for backend, names in NAMES.items():
            process = worker(given.peers_python, backend, folder / "problem.npz", PEERS[backend])
            process = stack.enter_context(process)
            candidates |= {name: Peer(process, name) for name in names}
        table = times(candidates, given.seconds)
    y = keras.ops.convert_to_tensor(problem.y)
    lines = [INTRODUCTION.format(**numbers), *table, "", *memory(problem.operator, problem.images, y)]
    with atomic_write(given.out / "solvers.md") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    make_console().print("\n".join(lines), markup=False, soft_wrap=True)


def times(candidates, seconds):
    """The lines of the table of times to the same error, and why a library has none."""
    errors, chosen, missing = {}, {}, {}
    for name, candidate in candidates.items():
        try:
            errors[name], reaches = candidate.reach(ERROR)
        except (ImportError, NotMeasured) as error:
            missing[name] = error
        else:
            chosen |= {name: candidate} if reaches else {}
    found = interleaved({name: one.seconds for name, one in chosen.items()}, seconds=seconds, timer=lambda one: one())
    first = next(iter(found.values())).best
    rows = [("library", "error", "time", "memory, MiB"), ("---",) * 4]
    for name, error in errors.items():
        time = f"{found[name].best / first:.2f}" if name in found else "does not reach it"
        size = chosen[name].mebibytes() if name in chosen else None
        rows.append((name, f"{error:.1e}", time, "" if size is None else f"{size:.2f}"))
    rows += [(name, "", "not measured", "") for name in missing]
    return [
        *(f"| {' | '.join(row)} |" for row in rows),
        *(f"\n{name} was not measured: `{why}`." for name, why in missing.items()),
    ]


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
