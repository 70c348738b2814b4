"""Which lowering computes an adjoint convolution: a table that can be read, and the cheapest of it."""

import keras

from keras_adjoint.backends import current
from keras_adjoint.geometry import is_known, remembered
from keras_adjoint.lowerings import columns, fold, native, phases, shifts, subpixel
from keras_adjoint.lowerings.exporting import is_exporting, may_share
from keras_adjoint.lowerings.form import Form
from keras_adjoint.lowerings.rates import seconds
from keras_adjoint.lowerings.table import Lowering, Problem

LOWERINGS = (
    #        name        can it do this problem?   how             how much work
    Lowering("subpixel", subpixel.fits, subpixel.apply, subpixel.work),
    Lowering("phases", phases.fits, phases.apply, phases.work),
    Lowering("columns", columns.fits, columns.apply, columns.work),
    Lowering("fold", fold.fits, fold.apply, fold.work),
    Lowering("shifts", shifts.fits, shifts.apply, shifts.work),
    Lowering("native", native.fits, native.apply, native.work),
)
MOST_ROOM = 4  # how much a lowering may hold beside x and y, over the larger of them, unless a user asks for it
UNMEASURED = ("native", "subpixel")  # where there are no rates, what the vendor made comes first
BY_NAME = {lowering.name: lowering for lowering in LOWERINGS}


def choose(problem):
    """The cheapest of the lowerings that are considered for a `Problem`; nothing is timed here."""
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
    """The lowerings that the backend offers for a `Problem`, as far as they can compute it, leave room and are no mere loop."""
    names = current().OFFERED[problem.precision][problem.kind] if problem.device == "cpu" else UNMEASURED
    able = [way for way in map(BY_NAME.get, names) if way.fits(problem) and has_room(way, problem)]
    return [way for way in able if has_kernel(way, problem)] or able


def has_room(lowering, problem):
    """Whether a lowering holds no more than a few times the larger of x and y beside them."""
    return lowering.work(problem).room <= MOST_ROOM * max(problem.inputs, problem.outputs)


def has_kernel(lowering, problem):
    """Whether its sums are short enough for the backend to have more than a loop for them.

    Beyond 2¹⁵ numbers oneDNN's convolutions in half precision take a hundred times as long, on processors with AMX.
    """
    return native.sums_are_short(problem, lowering.work(problem).depth)


def expected(lowering, problem, backend):
    """The seconds that a lowering is expected to take; what is not the backend's own has to promise something."""
    return seconds(lowering, problem, backend) * (1 if lowering.is_native else backend.PROMISE)


def adjoint_convolution(y, kernel, convolution, lowering=None):
    """Aᵀ y, where A is the convolution with `kernel`.

    Args:
        y: Tensor of shape `(batch, *outputs, filters)`.
        kernel: The forward's kernel, of shape `(*taps, channels / groups, filters)`.
        convolution: The forward's geometry.
        lowering: The name of a lowering, by default the cheapest.

    Returns:
        A tensor of shape `(batch, *sizes, channels)`.
    """
    if is_exporting():
        return for_a_file(problem_of(y, kernel, convolution), kernel).apply(y, kernel, convolution)
    return current().with_derivatives(form_of(convolution, lowering, *described(y, kernel)), kernel, y)


@remembered
def form_of(convolution, lowering, *tensors):
    """The `Form` of a convolution of tensors that are `described`, with the lowering asked for, or else the cheapest."""
    problem = problem_from(convolution, *tensors)
    return Form(convolution, named(lowering, problem) if lowering else choose(problem))


def for_a_file(problem, kernel):
    """What every converter knows: the plain transposed convolution where the kernel is shared, else plain convolutions."""
    plain = problem.is_plain and may_share(kernel)
    names = ("native", "subpixel", "phases") if plain else ("subpixel", "phases")
    return next(BY_NAME[name] for name in names if BY_NAME[name].fits(problem))


def named(name, problem):
    """The lowering that a user asks for, if it can compute the problem."""
    check_name(name)
    way = BY_NAME[name]
    if not way.fits(problem):
        able = ", ".join(repr(other.name) for other in LOWERINGS if other.fits(problem))
        raise ValueError(
            f"This lowering cannot compute this convolution; those that can are {able}. "
            f"Received: lowering={name!r}, {problem.convolution}"
        )
    return way


def check_name(name):
    """Raise a ValueError if no lowering is called `name`."""
    if name not in BY_NAME:
        raise ValueError(f"`lowering` must be one of {', '.join(map(repr, BY_NAME))}. Received: lowering={name!r}")


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
