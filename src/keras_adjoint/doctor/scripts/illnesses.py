"""The table of everything that can be found in a script."""

from keras_adjoint.doctor.finding import by_severity
from keras_adjoint.doctor.illness import Illness
from keras_adjoint.doctor.scripts import checkerboards, operations, ties, unfit, wrong_kernels
from keras_adjoint.doctor.scripts.script import Script

ILLNESSES = (
    #       name               finds it                 --fix
    Illness(
        wrong_kernels.NAME, wrong_kernels.find, "where the kernel as it is has a name, or stands in the expression"
    ),
    Illness(unfit.UNBUILT, unfit.find_unbuilt, "no: the line does not know the shape"),
    Illness(unfit.LAYOUT, unfit.find_layout, "by a transpose behind the array"),
    Illness(operations.GROUPED, operations.find_grouped, "no: the number of channels changes"),
    Illness(operations.CLOSED, operations.find_closed, "no"),
    Illness(ties.COPIED, ties.find_copied, "by `clone_tied`, where the model is written there"),
    Illness(ties.SHARED, ties.find_shared, "no"),
    Illness(ties.FROZEN, ties.find_frozen, "no"),
    Illness(ties.LOADED, ties.find_loaded, "by an import"),
    Illness(checkerboards.NAME, checkerboards.find, "no: another kernel has to be trained"),
)


def examine_script(text, path):
    """Every `Finding` about a script, the worst first.

    Args:
        text: The text of a Python script.
        path: Where it was read, for places, and for the model files beside it.
    """
    script = Script(text, path)
    return by_severity([finding for illness in ILLNESSES for finding in illness.find(script)])
