"""Which algorithm computes an adjoint convolution: a table that can be read, and the cheapest of it."""

import keras

from keras_adjoint.ops.algorithms import columns, fold, native, phases, shifts, subpixel
from keras_adjoint.ops.algorithms.bilinear import Form
from keras_adjoint.ops.algorithms.cost_model import seconds
from keras_adjoint.ops.algorithms.problem import Algorithm, Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.exporting import is_exporting, may_share
from keras_adjoint.ops.geometry import cached, is_known

ALGORITHMS = (
    #        name        can it do this problem?   how             how much work
    Algorithm("subpixel", subpixel.fits, subpixel.apply, subpixel.work),
    Algorithm("phases", phases.fits, phases.apply, phases.work),
    Algorithm("columns", columns.fits, columns.apply, columns.work),
    Algorithm("fold", fold.fits, fold.apply, fold.work),
    Algorithm("shifts", shifts.fits, shifts.apply, shifts.work),
    Algorithm("native", native.fits, native.apply, native.work),
)
MAX_WORKSPACE = 4  # how much an algorithm may hold beside x and y, over the larger of them, unless a user asks for it
UNMEASURED = ("native", "subpixel")  # where there are no rates, what the vendor made comes first
BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}


def choose(problem):
    """The cheapest of the algorithms that are considered for a `Problem`; nothing is timed here."""
    first, *others = considered(problem) or [BY_NAME["phases"]]
    if problem.device != "cpu" or not others:  # the last resort may have no rates
        return first
    # Neither `min` nor `sorted`: `torch.compile` follows neither by a key that depends on a size which it keeps free.
    cheapest, least = first, expected(first, problem, current())
    for way in others:
        cost = expected(way, problem, current())
        if cost < least:
            cheapest, least = way, cost
    return cheapest


def considered(problem):
    """The algorithms that the backend offers for a `Problem`, that have a bounded workspace and are no mere loop."""
    names = current().CANDIDATES[problem.precision][problem.kind] if problem.device == "cpu" else UNMEASURED
    able = [way for way in map(BY_NAME.get, names) if way.fits(problem) and fits_workspace(way, problem)]
    return [way for way in able if has_kernel(way, problem)] or able


def fits_workspace(algorithm, problem):
    """Whether an algorithm holds no more than a few times the larger of x and y beside them."""
    return algorithm.work(problem).workspace <= MAX_WORKSPACE * max(problem.inputs, problem.outputs)


def has_kernel(algorithm, problem):
    """Whether its sums are short enough for the backend to have more than a loop for them.

    Beyond 2¹⁵ numbers oneDNN's convolutions in half precision take a hundred times as long, on processors with AMX.
    """
    return native.sums_are_short(problem, algorithm.work(problem).depth)


def expected(algorithm, problem, backend):
    """The seconds that an algorithm is expected to take; what is not the backend's own has to promise something."""
    return seconds(algorithm, problem, backend) * (1 if algorithm.is_native else backend.NATIVE_MARGIN)


def adjoint_convolution(y, kernel, convolution, algorithm=None):
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
        return for_a_file(problem_of(y, kernel, convolution), kernel).apply(y, kernel, convolution)
    return current().with_derivatives(form_of(convolution, algorithm, *described(y, kernel)), kernel, y)


@cached
def form_of(convolution, algorithm, *tensors):
    """The `Form` of a convolution of tensors that are `described`, with the algorithm asked for, or else the cheapest."""
    problem = problem_from(convolution, *tensors)
    return Form(convolution, named(algorithm, problem) if algorithm else choose(problem))


def for_a_file(problem, kernel):
    """What every converter knows: the plain transposed convolution where the kernel is shared, else plain convolutions."""
    plain = problem.is_plain and may_share(kernel)
    names = ("native", "subpixel", "phases") if plain else ("subpixel", "phases")
    return next(BY_NAME[name] for name in names if BY_NAME[name].fits(problem))


def named(name, problem):
    """The algorithm that a user asks for, if it can compute the problem."""
    check_name(name)
    way = BY_NAME[name]
    if not way.fits(problem):
        able = ", ".join(repr(other.name) for other in ALGORITHMS if other.fits(problem))
        raise ValueError(
            f"This algorithm cannot compute this convolution; those that can are {able}. "
            f"Received: algorithm={name!r}, {problem.convolution}"
        )
    return way


def check_name(name):
    """Raise a ValueError if no algorithm is called `name`."""
    if name not in BY_NAME:
        raise ValueError(f"`algorithm` must be one of {', '.join(map(repr, BY_NAME))}. Received: algorithm={name!r}")


def problem_of(y, kernel, convolution):
    """The `Problem` of tensors."""
    return problem_from(convolution, *described(y, kernel))


def described(y, kernel):
    """What a choice depends on: the number of samples if it is known, the kernel's shape, the device, and the dtype."""
    batch = y.shape[0]
    return batch if is_known(batch) else None, tuple(map(int, kernel.shape)), current().device_of(y), y.dtype


def problem_from(convolution, batch, kernel, device, dtype):
    """The `Problem` of tensors that are `described`."""
    *_, channels, filters = kernel
    dtype = keras.backend.standardize_dtype(dtype)
    return Problem(convolution, batch, channels * convolution.groups, filters, device, dtype)
