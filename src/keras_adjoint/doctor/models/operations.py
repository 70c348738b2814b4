"""Transposed convolutions that were written as operations, which Keras builds a graph with but cannot run.

`ConvTranspose.call` hands `output_padding` to the backend where `padding` belongs, and the other way round. The function
`ops.conv_transpose` on plain tensors does not.
"""

import keras

from keras_adjoint.doctor.finding import ERROR, Finding
from keras_adjoint.doctor.repair.outputs import in_short
from keras_adjoint.keras_internals import nn_operations

NAME = "operation that does not run"


def find(patient):
    """A finding for every such operation that this Keras refuses to run."""
    for call in patient.calls:
        if type(call.operation) is nn_operations.ConvTranspose:
            error = error_of(call)
            if error is not None:
                yield Finding(
                    place=call.place.partition("/")[2],
                    illness=NAME,
                    severity=ERROR,
                    what="`ops.conv_transpose` is an operation of the graph",
                    effect=f"Keras {keras.__version__} builds such a graph and cannot run it: {in_short(error)}",
                    fix="use a layer, `keras_adjoint.adjoint` or a `Conv*Transpose` (by hand)",
                )


def error_of(call):
    """What a call of an operation raises on zeros, or `None`."""
    arguments = [
        keras.ops.zeros([size or 1 for size in argument.shape], argument.dtype)
        if isinstance(argument, keras.KerasTensor)
        else argument
        for argument in call.arguments
    ]
    try:
        call.operation.call(*arguments)
    except Exception as error:
        return error
    return None
