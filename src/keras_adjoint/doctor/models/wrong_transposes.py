"""A kernel of another layer, rearranged into something that is not the adjoint's kernel."""

from keras_adjoint.doctor.finding import ERROR, Finding
from keras_adjoint.doctor.models.arrangements import TURNED, WRONG, goes_back, in_words
from keras_adjoint.doctor.models.comparison import compare
from keras_adjoint.doctor.models.kernels import BACKWARD
from keras_adjoint.doctor.repair.remedies import ByHand, adjoint_in_place

NAME = "wrong transpose"


def find(patient):
    """A finding for every kernel that goes back with the numbers of another one, wrongly arranged."""
    for twins in patient.twins:
        first, second = twins.first, twins.second
        if twins.meaning == WRONG and goes_back(first, second, twins.arrangement) and not is_grouped(twins):
            yield finding(patient, twins)


def is_grouped(twins):
    """Whether the groups are what is wrong, which is an illness of its own."""
    return twins.first.groups > 1 and twins.second.role == BACKWARD and not twins.arrangement


def finding(patient, twins):
    first, second = twins.first, twins.second
    holder = "a constant in the graph" if second.is_constant else f"`{second.name}`"
    right = in_words(() if second.role != first.role else TURNED)
    comparison = compare(first, second)
    fix = f"put `keras_adjoint.adjoint` of `{first.place}` there; the right kernel would be the same one {right}"
    try:
        remedy, by_hand = adjoint_in_place(patient, first, second, keeps_outputs=False), ""
    except ByHand as reason:
        remedy, by_hand = None, f" (by hand: {reason})"
    return Finding(
        place=second.place,
        illness=NAME,
        severity=ERROR,
        what=f"{holder} is the `{first.name}` of `{first.place}`, {in_words(twins.arrangement)}",
        effect=f"it is not the adjoint of that layer: {comparison}",
        fix=fix + by_hand,
        figures=comparison.figures(),
        remedy=remedy,
    )
