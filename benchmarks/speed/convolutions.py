"""The adjoint of every geometry, beside the forward and beside the backend's own transposed convolution."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from benchmarks.speed.geometries import GEOMETRIES
from benchmarks.speed.operators import operators
from benchmarks.speed.timing import interleaved
from keras_adjoint.lowerings.choose import choose
from keras_adjoint.lowerings.table import Problem

RATIOS = {
    "adjoint": ("adjoint", "forward"),
    "gradients": ("adjoint_gradients", "forward_gradients"),
    "native": ("adjoint", "native"),
}


def rows(dtype, seconds):
    """Yield (name, row) for every geometry. A worker measures, since in bfloat16 some operations do not survive."""
    worker = new_worker()
    try:
        for geometry in GEOMETRIES:
            try:
                row = worker.submit(measure, geometry, dtype, seconds).result()
            except BrokenProcessPool:
                row = {"fails": "the process died"}
                worker.shutdown()
                worker = new_worker()
            yield str(geometry), row
    finally:
        worker.shutdown()


def new_worker():
    """A process for one measurement after the other."""
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))


def measure(geometry, dtype, seconds):
    """Milliseconds of the forward, the lowering that was chosen, and the ratios; what Keras cannot run says why."""
    problem = Problem(geometry.convolution, geometry.batch, geometry.channels, geometry.filters)
    row = {"lowering": choose(problem).name}
    try:
        times = interleaved(vars(operators(geometry, dtype)), seconds=seconds)
    except Exception as error:  # whatever a backend raises for a geometry belongs into its row
        return {**row, "fails": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    row["forward_ms"] = 1e3 * times["forward"].best
    for name, (above, below) in RATIOS.items():
        row[name] = times[above].best / times[below].best
        row[f"{name}_spread"] = max(times[above].spread, times[below].spread)
    return row
