"""The adjoint of every geometry, beside the forward and beside the backend's own transposed convolution."""

from functools import partial

from benchmarks.speed.geometries import GEOMETRIES
from benchmarks.speed.operators import operators
from benchmarks.speed.timing import interleaved
from benchmarks.survival import survived
from keras_adjoint.ops.algorithms.choose import choose

RATIOS = {
    "adjoint": ("adjoint", "forward"),
    "gradients": ("adjoint_gradients", "forward_gradients"),
    "native": ("adjoint", "native"),
}


def rows(dtype, seconds):
    """Yield (name, row) for every geometry."""
    for geometry, row in survived(partial(measure, dtype=dtype, seconds=seconds), GEOMETRIES):
        yield str(geometry), row or {"fails": "the process died, or took too long"}


def measure(geometry, dtype, seconds):
    """Milliseconds of the forward, the algorithm that was chosen, and the ratios; what Keras cannot run says why."""
    problem = geometry.problem(dtype)
    row = {"algorithm": choose(problem).name}
    try:
        times = interleaved(vars(operators(geometry, dtype)), seconds=seconds)
    except Exception as error:  # whatever a backend raises for a geometry belongs into its row
        return {**row, "fails": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    row["forward_ms"] = 1e3 * times["forward"].best
    for name, (above, below) in RATIOS.items():
        row[name] = times[above].best / times[below].best
        row[f"{name}_spread"] = max(times[above].spread, times[below].spread)
    return row
