"""Rules about kernels that are stored twice: a tie that was lost, a layer that was copied, a kernel in a wrong order.

A variable that two layers share is written once for each of them, and read as two. So is a kernel that was assigned by
`set_weights`. A kernel that a function closed over stands in the graph as a constant, and is never trained.
`clone_model` and `from_config` copy layer by layer, and every adjoint layer gets a source of its own.
"""

from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_adjoint.doctor.finding import ERROR, NOTE, WARNING, Finding
from keras_adjoint.doctor.models.context import ModelContext
from keras_adjoint.doctor.models.duplicates import Duplicate
from keras_adjoint.doctor.models.kernels import Kernel
from keras_adjoint.doctor.models.orders import deviation, has_channels_of_adjoint
from keras_adjoint.doctor.models.replacements import (
    ByHand,
    Replacement,
    adjoint_in_place,
    retied_in_place,
    same_layer_in_place,
)
from keras_adjoint.doctor.orders import ADJOINT, ADJOINT_ORDER, BACKWARD, UNCHANGED, WRONG, in_words
from keras_adjoint.doctor.rules import GROUPS_LOST, STORED_TWICE, TIE_LOST, WRONG_TRANSPOSE
from keras_adjoint.keras_internals import own_variables
from keras_adjoint.layers.adjoint import has_activation
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.tied import Tied


def attempt(replace: Callable[[], Replacement]) -> tuple[Replacement | None, str]:
    """(a replacement, or `None` and why not)."""
    try:
        return replace(), ""
    except ByHand as reason:
        return None, f" (by hand: {reason})"


def holder_of(duplicate: Duplicate) -> str:
    return "a constant in the graph" if duplicate.second.is_constant else f"`{duplicate.second.name}`"


def adjoint_of(kernel: Kernel) -> str:
    """What to put in the place of a duplicate, in words: the adjoint of the layer that has the kernel."""
    part = " (`linear_part=True`)" if has_activation(kernel.owner) else ""
    return f"`keras_adjoint.adjoint` of `{kernel.place}`{part}"


# --- kernel stored twice


def find_stored_twice(context: ModelContext) -> Iterator[Finding[Replacement]]:
    """A finding for every kernel whose values an earlier layer holds, where it is the right kernel."""
    for duplicate in context.duplicates:
        if duplicate.meaning != WRONG:
            yield stored_twice(context, duplicate)


def stored_twice(context: ModelContext, duplicate: Duplicate) -> Finding[Replacement]:
    first, second = duplicate.first, duplicate.second
    order = "" if not duplicate.order else f", {in_words(duplicate.order, len(second.values.shape))}"
    separate = "the constant is never trained" if second.is_constant else "each is trained on its own"
    effect = f"{second.parameters} parameters ({second.bytes} bytes) are stored twice, and {separate}"
    if duplicate.meaning == ADJOINT:
        fix = f"put {adjoint_of(first)} there, which reads the one kernel at every call"
    else:
        fix = f"call `{first.place}` there instead of a second layer"
    never_trained = context.was_trained is False
    if never_trained:
        effect += "; the model was never trained, so one initializer object given to both layers would explain it"
        change, by_hand = None, " (by hand: is it meant to be one kernel?)"
    elif duplicate.meaning == ADJOINT:
        change, by_hand = attempt(lambda: adjoint_in_place(context, first, second, keeps_outputs=True))
    else:
        change, by_hand = attempt(lambda: same_layer_in_place(context, first, second))
    return Finding(
        place=second.place,
        rule=STORED_TWICE.name,
        severity=NOTE if never_trained else WARNING,
        what=f"{holder_of(duplicate)} holds the numbers of the `{first.name}` of `{first.place}` once more{order}",
        effect=effect,
        fix=fix + by_hand,
        figures={"parameters": second.parameters, "bytes": second.bytes},
        change=change,
    )


# --- wrong transpose


def find_wrong_transposes(context: ModelContext) -> Iterator[Finding[Replacement]]:
    """A finding for every kernel that holds the values of another one in an order that is not the adjoint's."""
    for duplicate in context.duplicates:
        first, second, order = duplicate.first, duplicate.second, duplicate.order
        is_wrong = duplicate.meaning == WRONG and not lost_groups(duplicate)
        if is_wrong and has_channels_of_adjoint(first, second, order):
            yield wrong_transpose(context, duplicate)


def wrong_transpose(context: ModelContext, duplicate: Duplicate) -> Finding[Replacement]:
    first, second = duplicate.first, duplicate.second
    right = in_words(UNCHANGED if second.role != first.role else ADJOINT_ORDER)
    found = deviation(first, second)
    change, by_hand = attempt(lambda: adjoint_in_place(context, first, second, keeps_outputs=False))
    return Finding(
        place=second.place,
        rule=WRONG_TRANSPOSE.name,
        severity=ERROR,
        what=f"{holder_of(duplicate)} is the `{first.name}` of `{first.place}`, {in_words(duplicate.order)}",
        effect=f"it is not the adjoint of that layer: {found}",
        fix=f"put {adjoint_of(first)} there; the right kernel would be the same one {right}{by_hand}",
        figures=found.figures(),
        change=change,
    )


# --- groups lost


def lost_groups(duplicate: Duplicate) -> bool:
    """Whether a transposed convolution, which has no groups, has the kernel of a grouped convolution."""
    return duplicate.first.groups > 1 and duplicate.second.role == BACKWARD and not duplicate.order


def find_lost_groups(context: ModelContext) -> Iterator[Finding[Replacement]]:
    """A finding for every transposed convolution with a grouped kernel.

    Its shape (*taps, I, O) has I channels per group, and a transposed convolution takes them for all that there are: what
    belongs to different groups is summed up, without an error.
    """
    for duplicate in context.duplicates:
        if lost_groups(duplicate):
            first, second = duplicate.first, duplicate.second
            channels = first.read().shape[-2]
            found = deviation(first, second)
            yield Finding(
                place=second.place,
                rule=GROUPS_LOST.name,
                severity=ERROR,
                what=f"it transposes with the `{first.name}` of `{first.place}`, which has {first.groups} groups",
                effect=(
                    f"it returns {channels} channels, the sum over the groups, where the adjoint returns "
                    f"{channels * first.groups}; given to every group, {found}"
                ),
                fix=(
                    f"put {adjoint_of(first)} there (by hand: it has {first.groups} times the "
                    f"channels, so what follows has to change as well)"
                ),
                figures={
                    "channels": channels,
                    "channels_of_adjoint": channels * first.groups,
                    **found.figures(),
                },
            )


# --- tie lost


def find_lost_ties(context: ModelContext) -> Iterator[Finding[Replacement]]:
    """A finding for every adjoint layer that should be tied, and is not, although its source is in the model."""
    owned = {
        id(weight) for _, layer in context.layers if not isinstance(layer, Tied) for weight in own_variables(layer)
    }
    for place, layer in context.layers:
        if not isinstance(layer, Tied) or not layer.tied or not layer.source.weights:
            continue
        if any(id(weight) in owned for weight in layer.source.weights):
            continue
        originals = [(where, other) for where, other in context.layers if is_original(other, layer.source)]
        if len(originals) == 1:
            yield lost_tie(context, place, layer, *originals[0])


def is_original(layer: keras.layers.Layer, source: keras.layers.Layer) -> bool:
    """Whether a layer is what a source was copied from, going by all that a copy keeps."""
    return (
        type(layer) is type(source)
        and layer.name == source.name
        and [weight.shape for weight in layer.weights] == [weight.shape for weight in source.weights]
    )


def lost_tie(
    context: ModelContext, place: str, layer: Tied, where: str, original: keras.layers.Layer
) -> Finding[Replacement]:
    size = sum(int(np.prod(weight.shape)) for weight in layer.source.weights)
    distance = largest_distance(original, layer.source, with_bias=getattr(layer, "bias_mode", "none") in READS_SOURCE)
    if distance:
        by = f"by up to {distance:.0%} of their size" if np.isfinite(distance) else "where they are not finite"
        apart = f"they now differ {by}"
        change, by_hand = None, " (by hand: only you know which of the two kernels is to stay)"
    else:
        apart = "they are still the same"
        change, by_hand = attempt(lambda: retied_in_place(context, layer, place, original, where))
    return Finding(
        place=place,
        rule=TIE_LOST.name,
        severity=WARNING,
        what=f"it is the adjoint of a copy of `{where}`, not of that layer, as `clone_model` and `from_config` leave it",
        effect=f"{size} parameters are stored twice and trained separately; {apart}",
        fix=f"copy models by `keras_adjoint.clone_tied`, and here tie it again to `{where}`{by_hand}",
        figures={"parameters": size, "relative_distance": distance},
        change=change,
    )


def largest_distance(layer: keras.layers.Layer, other: keras.layers.Layer, *, with_bias: bool) -> float:
    """The largest ‖a − b‖ / ‖a‖ of the weights of two layers; biases count only where the adjoint reads them.

    It is infinite where weights that are not finite differ.
    """
    pairs = [
        tuple(keras.ops.convert_to_numpy(weight).astype("float64") for weight in pair)
        for pair in zip(layer.weights, other.weights, strict=True)
        if with_bias or pair[0].name != "bias"
    ]
    return max(0.0 if np.array_equal(a, b, equal_nan=True) else _distance(a, b) for a, b in pairs)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    if not np.isfinite([one, other]).all():
        return np.inf
    return float(np.linalg.norm(one - other) / (np.linalg.norm(one) or 1.0))
