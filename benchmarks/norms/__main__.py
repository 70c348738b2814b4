"""`python -m benchmarks.norms`: compute norms in every library that is installed, and write docs/norms.md.

With `--large`, also the times and the errors for one large convolution, which takes some minutes. The libraries are no
dependency of anything here: `pip install "keras-adjoint[bridges]" deepinv orthogonium` has them. The last two need PyTorch.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # orthogonium would compile its iterations anew for every shape
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend

import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.norms.kernels import KERNELS, LARGE
from benchmarks.norms.libraries import LIBRARIES, number
from benchmarks.speed.timing import interleaved
from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.ops.backend import current
from keras_adjoint_cli.console import make_console

INTRODUCTION = """# Norms in other libraries

<!-- Written by `python -m benchmarks.norms`. Changes made by hand are lost. -->

The true norm of each layer at its size, from the dense singular value decomposition of its matrix, and what each library gives
for it, divided by the true norm. Below 1 it is too small, and a layer that is divided by it is not as short as it was meant to
be; above 1 it is a bound.

- `norm` and `bound` are [those of this package](how/operators.md).
- Keras is what `SpectralNormalization` divides by, the norm of the reshaped kernel.
- PyLops and DeepInverse are power iterations with their default settings, and SciPy is ARPACK, on the operator by its bridge.
- orthogonium is four Gram iterations of Delattre et al. (2024), for zero-padded convolutions with stride 1.
- Singla and Feizi (2021) is the least norm of four reshaped kernels, times the root of the number of taps.
"""
TOLERANCES = (2e-3, 1e-3)  # of `A.norm`
TOO_SLOW = ("SciPy",)  # for the large one: ARPACK takes thousands of products to tell apart values that are so close
FROM_BELOW = ("`norm`", "PyLops", "DeepInverse")  # what no estimate of these can exceed is the norm


def main():
    """Compute what is installed and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.norms", description=__doc__)
    parser.add_argument("--large", action="store_true", help="also the large convolution, which takes minutes")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for norms.md")
    given = parser.parse_args()
    lines, missing = table()
    text = "\n".join([INTRODUCTION, *missing, f"keras-adjoint ran on {keras.backend.backend()}.", "", *lines])
    if given.large:
        text += "\n\n" + "\n".join(large(LARGE))
    with atomic_write(given.out / "norms.md") as beside:
        beside.write_text(text.rstrip() + "\n", encoding="utf-8")
    make_console().print(text, markup=False, soft_wrap=True)


def table():
    """(the lines of the table, those about libraries that are missing)."""
    missing, rows = {}, []
    for kernel in KERNELS:
        layer = kernel.build()
        operator = ka.operator(layer)
        true = float(np.linalg.norm(operator.to_matrix().astype("float64"), 2))
        values = {name: found(name, layer, operator, missing) for name in LIBRARIES}
        rows.append(
            (kernel.name, f"{true:.4g}", *("" if value is None else f"{value / true:.3f}" for value in values.values()))
        )
    names = ("layer", "true norm", *LIBRARIES)
    lines = [f"| {' | '.join(row)} |" for row in (names, ("---",) * len(names), *rows)]
    return lines, [f"{name} was not installed: {reason}.\n" for name, reason in missing.items()]


def found(name, layer, operator, missing):
    """The norm by one library; `None` where it has none or is not installed, which is noted."""
    try:
        return LIBRARIES[name](layer, operator)
    except (ImportError, ka.KerasAdjointError) as error:
        missing[name] = str(error).partition("Received: ")[2] or str(error)
        return None


def large(kernel):
    """The lines about one large convolution: times in forwards of the layer, and distances to the largest estimate."""
    layer = kernel.build()
    operator, missing, results = ka.operator(layer), {}, {}
    numbers = np.random.default_rng(0).standard_normal((1, *kernel.shape)).astype("float32")
    x, forward = keras.ops.convert_to_tensor(numbers), current().compiled(layer)

    def kept(name, function):
        def run():
            value = function()
            if value is not None:
                results[name] = value

        return run

    runs = {"forward": lambda: current().wait(forward(x))}
    for tolerance in TOLERANCES:
        name = f"`norm`, tolerance {tolerance}"
        runs[name] = kept(name, lambda tolerance=tolerance: number(operator.norm(tolerance=tolerance)))
    for name in LIBRARIES.keys() - {"`norm`", *TOO_SLOW}:
        runs[name] = kept(name, lambda name=name: found(name, layer, operator, missing))
    times = interleaved(runs, seconds=0, fewest=1)
    highest = max(value for name, value in results.items() if name.startswith(FROM_BELOW))
    rows = [
        (name, f"{times[name].best / times['forward'].best:.3g}", f"{results[name] / highest - 1:+.4f}")
        for name in sorted(results, key=lambda name: times[name].best)
    ]
    return [
        f"## {kernel.name}",
        "",
        "Times in forwards of the layer for one sample, the best of repeats that alternate in one process. The matrix is too",
        "large for a dense decomposition, so the last column is relative to the largest of the estimates from below.",
        "",
        *(
            f"| {' | '.join(row)} |"
            for row in (("", "forwards", "relative to the largest estimate"), ("---",) * 3, *rows)
        ),
    ]


if __name__ == "__main__":
    main()
