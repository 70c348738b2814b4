"""Calls that a model makes in training, whatever it is called with: an adjoint is that of a layer at inference."""

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.arguments import heeds_training
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.calls import Call


def check_training(call: Call) -> None:
    """Raise a NoRuleError if a model calls a layer with `training=True` that does something else in training.

    Keras obeys it in `model(x)`, and overrules it in `model.predict(x)`, so that the model is two operators.
    """
    if call.training and not isinstance(call.operation, Tied) and heeds_training(call.operation):
        raise NoRuleError(
            f"`{call.place}` is called with `training=True`, and an adjoint is that of a layer at inference. Make the model "
            f"without it, and pass `training=True` when you call the model. Received: {type(call.operation).__name__} with "
            f"training=True"
        )
