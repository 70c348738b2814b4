"""A kernel stored twice: a tie that was lost, or a layer that was copied.

A variable that two layers share is written once for each of them, and read as two. So is a kernel that was handed over
by `set_weights`. A kernel that a function closed over stands in the graph as a constant, and is never trained.
"""

from keras_adjoint.doctor.finding import NOTE, WARNING, Finding
from keras_adjoint.doctor.models.arrangements import ADJOINT, WRONG, in_words
from keras_adjoint.doctor.repair.remedies import ByHand, adjoint_in_place, same_layer_in_place

NAME = "kernel stored twice"


def find(patient):
    """A finding for every kernel whose numbers an earlier layer holds, where it is the right kernel."""
    for twins in patient.twins:
        if twins.meaning != WRONG:
            yield finding(patient, twins)


def finding(patient, twins):
    first, second = twins.first, twins.second
    holder = "a constant in the graph" if second.is_constant else f"`{second.name}`"
    arrangement = "" if not twins.arrangement else f", {in_words(twins.arrangement, len(second.values.shape))}"
    what = f"{holder} holds the numbers of the `{first.name}` of `{first.place}` once more{arrangement}"
    apart = "the constant is never trained" if second.is_constant else "each is trained on its own"
    effect = f"{second.parameters} parameters ({second.bytes} bytes) are stored twice, and {apart}"
    never_trained = patient.trained is False
    if never_trained:
        effect += (
            "; the model was never trained, so one initialiser object that both layers were given would explain it"
        )
    remedy, reason = None, "is it meant to be one kernel?"
    if not never_trained:
        remedy, reason = remedy_for(patient, twins)
    return Finding(
        place=second.place,
        illness=NAME,
        severity=NOTE if never_trained else WARNING,
        what=what,
        effect=effect,
        fix=fix(twins) + ("" if remedy else f" (by hand: {reason})"),
        figures={"parameters": second.parameters, "bytes": second.bytes},
        remedy=remedy,
    )


def fix(twins):
    if twins.meaning == ADJOINT:
        return f"put `keras_adjoint.adjoint` of `{twins.first.place}` there, which reads the one kernel at every call"
    return f"call `{twins.first.place}` there instead of a second layer"


def remedy_for(patient, twins):
    """(what repairs it, or `None` and why not)."""
    try:
        if twins.meaning == ADJOINT:
            return adjoint_in_place(patient, twins.first, twins.second, keeps_outputs=True), ""
        return same_layer_in_place(patient, twins.first, twins.second), ""
    except ByHand as reason:
        return None, str(reason)
