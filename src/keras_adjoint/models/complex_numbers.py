"""Complex numbers between the calls of a graph, of which no backward pass is built: cotangents here are real."""

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.calls import Call


def check_real_numbers(call: Call) -> None:
    """Raise a NoRuleError if a call takes or gives complex numbers."""
    tensors = [*call.inputs, *call.outputs]
    found = next((x.dtype for x in tensors if isinstance(x, keras.KerasTensor) and "complex" in x.dtype), None)
    if found is not None:
        raise NoRuleError(
            f"`{call.place}` takes or gives complex numbers, and between the calls of a model only real ones are followed "
            f"back. Make one layer of all that is complex, as a `keras.layers.Lambda` from real tensors to real ones, or use "
            f"operations that take real and imaginary parts apart, as `keras.ops.fft`. "
            f"Received: {type(call.operation).__name__}, {found}"
        )
