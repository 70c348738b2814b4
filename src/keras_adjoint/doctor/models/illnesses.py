"""The table of everything that can be found in a model."""

from keras_adjoint.doctor.finding import by_severity
from keras_adjoint.doctor.illness import Illness
from keras_adjoint.doctor.models import (
    checkerboards,
    copies,
    grouped,
    old_keras,
    operations,
    sizes,
    untied,
    wrong_transposes,
)
from keras_adjoint.doctor.models.patient import Patient

ILLNESSES = (
    #       name                    finds it              --fix
    Illness(wrong_transposes.NAME, wrong_transposes.find, "by the adjoint of the layer that has the kernel"),
    Illness(grouped.NAME, grouped.find, "no: the number of channels changes"),
    Illness(operations.NAME, operations.find, "where its kernel is that of a layer, see above"),
    Illness(copies.NAME, copies.find, "by the adjoint of the first layer, or by the first layer itself"),
    Illness(untied.NAME, untied.find, "while the two kernels are still the same"),
    Illness(sizes.NAME, sizes.find, "no: what follows counts on the size"),
    Illness(old_keras.NAME, old_keras.find, "no: the file does not say where the model was trained"),
    Illness(checkerboards.NAME, checkerboards.find, "no: another kernel has to be trained"),
)


def examine_model(model, origin=None):
    """Every `Finding` about a model, the worst first.

    Args:
        model: A built Keras model.
        origin: The `Origin` of its file.
    """
    patient = Patient(model, origin)
    return by_severity([finding for illness in ILLNESSES for finding in illness.find(patient)])
