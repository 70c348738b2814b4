"""Calls of which Keras announces another shape than it computes."""

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.calls import Call
from keras_adjoint.models.steps import calls_at_every_step


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
