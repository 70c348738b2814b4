"""Which algorithm computes an adjoint convolution: a table that can be read, and the cheapest of it."""

import keras

from keras_adjoint.errors import one_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms import columns, native, phases, shifts, subpixel
from keras_adjoint.ops.algorithms.bilinear import BilinearForm
from keras_adjoint.ops.algorithms.cost_model import seconds
from keras_adjoint.ops.algorithms.problem import Algorithm, Problem, Work
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.exporting import is_exporting, may_share
from keras_adjoint.ops.geometry import Convolution, cached, is_known

ALGORITHMS = (
    #         name        can it do this problem?  how                   how much work
    Algorithm("subpixel", subpixel.fits,           subpixel.prepare,     subpixel.work),
    Algorithm("phases",   phases.fits,             phases.prepare,       phases.work),
    Algorithm("columns",  columns.fits,            columns.prepare,      columns.work),
    Algorithm("fold",     columns.fits_fold,       columns.prepare_fold, columns.work),
    Algorithm("shifts",   shifts.fits,             shifts.prepare,       shifts.work),
    Algorithm("native",   native.fits,             native.prepare,       native.work),
)  # fmt: skip
MAX_WORKSPACE = 4  # how much an algorithm may hold beside x and y, over the larger of them, unless a user asks for it
UNMEASURED = ("native", "subpixel")  # where the cost model has no coefficients, the vendor's operation comes first
BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}


def choose(problem: Problem) -> Algorithm:
    """The cheapest of the candidates for a `Problem`; nothing is timed here."""
    (first, work), *others = _candidates(problem) or [(BY_NAME["phases"], phases.work(problem))]
    if problem.device != "cpu" or not others:  # the cost model may not know the last resort
        return first
    # Neither `min` nor `sorted`: `torch.compile` follows neither by a key that depends on a size which it keeps free.
    cheapest, least = first, _cost(first, work, problem)
    for algorithm, work in others:
        cost = _cost(algorithm, work, problem)
        if cost < least:
            cheapest, least = algorithm, cost
    return cheapest


def candidates(problem: Problem) -> list[Algorithm]:
    """Those algorithms of the backend's that fit a `Problem`, have a bounded workspace and are no mere loop."""
    return [algorithm for algorithm, _ in _candidates(problem)]


def _candidates(problem: Problem) -> list[tuple[Algorithm, Work]]:
    """The candidates, each with its work."""
    names = current().CANDIDATES[problem.precision][problem.kind] if problem.device == "cpu" else UNMEASURED
    fitting = [algorithm for algorithm in map(BY_NAME.get, names) if algorithm is not None and algorithm.fits(problem)]
    most = MAX_WORKSPACE * max(problem.inputs, problem.outputs)
    bounded = [(a, work) for a, work in [(a, a.work(problem)) for a in fitting] if work.workspace <= most]
    # Beyond 2¹⁵ numbers, on processors with AMX, oneDNN's convolutions in half precision are loops of a hundredth the speed.
    return [(a, work) for a, work in bounded if native.sums_are_short(problem, work.depth)] or bounded


def _cost(algorithm: Algorithm, work: Work, problem: Problem) -> float:
    """The expected seconds, with a margin for all but the backend's own operation."""
    return seconds(work, algorithm.name, problem) * (1 if algorithm.is_native else current().NATIVE_MARGIN)


def adjoint_convolution(y: Tensor, kernel: Tensor, convolution: Convolution, algorithm: str | None = None) -> Tensor:
    """Aᵀ y, where A is the convolution with `kernel`.

    Args:
        y: Tensor of shape `(batch, *outputs, filters)`.
        kernel: The forward's kernel, of shape `(*taps, channels / groups, filters)`.
        convolution: The forward's geometry.
        algorithm: The name of an algorithm, by default the cheapest.

    Returns:
        A tensor of shape `(batch, *sizes, channels)`.
    """
    if is_exporting():
        return _algorithm_for_export(problem_of(y, kernel, convolution), kernel).apply(y, kernel, convolution)
    return prepared_adjoint(problem_of(y, kernel, convolution), algorithm)(y, kernel)


@cached
def prepared_adjoint(problem: Problem, algorithm: str | None) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y of a `Problem`, by the algorithm asked for or else the cheapest."""
    form = BilinearForm(problem.convolution, named(algorithm, problem) if algorithm else choose(problem))
    return current().differentiable(form)


def _algorithm_for_export(problem: Problem, kernel: Tensor) -> Algorithm:
    """What every converter knows: the plain transposed convolution where the kernel is shared, else plain convolutions."""
    plain = problem.is_plain and may_share(*current().fixed_shape(kernel)[-2:])
    names = ("native", "subpixel", "phases") if plain else ("subpixel", "phases")
    return next(BY_NAME[name] for name in names if BY_NAME[name].fits(problem))


def named(name: str, problem: Problem) -> Algorithm:
    """The algorithm that a user asks for, if it can compute the problem."""
    check_name(name)
    algorithm = BY_NAME[name]
    if not algorithm.fits(problem):
        fitting = ", ".join(repr(other.name) for other in ALGORITHMS if other.fits(problem))
        raise ValueError(
            f"This algorithm cannot compute this convolution; those that can are {fitting}. "
            f"Received: algorithm={name!r}, {problem.convolution}"
        )
    return algorithm


def check_name(name: str) -> None:
    """Raise a ValueError if no algorithm is called `name`."""
    one_of("algorithm", name, BY_NAME)


def problem_of(y: Tensor, kernel: Tensor, convolution: Convolution) -> Problem:
    """The `Problem` of tensors."""
    batch = y.shape[0] if is_known(y.shape[0]) else None
    *_, channels, filters = current().fixed_shape(kernel)
    dtype = keras.backend.standardize_dtype(y.dtype)
    return Problem(convolution, batch, channels * convolution.groups, filters, current().device_of(y), dtype)
