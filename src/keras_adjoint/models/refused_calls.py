"""Calls through which no backward pass is built: in training, of complex numbers, or of which Keras announces another shape."""

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.arguments import depends_on_training
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.calls import Call
from keras_adjoint.models.steps import calls_at_every_step


def check_training(call: Call) -> None:
    """Raise a NoRuleError if a model calls a layer with `training=True` that does something else in training.

    Keras obeys it in `model(x)`, and overrules it in `model.predict(x)`, so that the model is two operators.
    """
    if call.training and not isinstance(call.operation, Tied) and depends_on_training(call.operation):
        raise NoRuleError(
            f"`{call.place}` is called with `training=True`, where it is another operator than at inference. Make the model "
            f"without it, and pass `training=True` when you call the model. Received: {type(call.operation).__name__} with "
            f"training=True"
        )


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


def check_announced(call: Call) -> None:
    """Raise a NoRuleError if Keras announces axes in another order than it computes them in.

    `EinsumDense` announces the axes that "..." stands for at the front in reverse. What is behind was built for that.
    """
    layer, steps = call.operation, 0
    while calls_at_every_step(layer):
        layer, steps = layer.layer, steps + 1
    if not isinstance(layer, keras.layers.EinsumDense) or not layer.equation.startswith("..."):
        return
    given, announced = tuple(call.inputs[0].shape)[steps:], tuple(call.outputs[0].shape)[steps:]
    elided = len(given) - len(layer.equation.partition(",")[0].strip().removeprefix("..."))
    if given[1:elided] != announced[1:elided]:
        letters = "".join(letter for letter in "abcdefghij" if letter not in layer.equation)[:elided]
        raise NoRuleError(
            f"For `{call.place}` Keras announces an output of shape {announced}, with the axes of the dots in reverse, and "
            f"computes them in the order of its input, {given}. Write the axes out, as in "
            f"{layer.equation.replace('...', letters)!r}, with an `output_shape` of as many sizes or `None`. "
            f"Received: equation={layer.equation!r}"
        )
