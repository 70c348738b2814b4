"""Masks, where they are part of the operator: a mean over the positions that a mask keeps divides by their number.

Keras hands the mask that an `Embedding` or a `Masking` layer computes to every layer behind it. Most of those that have an
adjoint ignore it.
"""

from typing import Any

import keras
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.arguments import depends_on_mask, is_symbolic
from keras_adjoint.layers.global_pooling import AdjointGlobalAveragePooling, BroadcastGlobalPooling
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule
from keras_adjoint.layers.wrapped import inside
from keras_adjoint.models.calls import Call
from keras_adjoint.ops import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_adjoint")
class MaskedShare(keras.layers.Layer):
    """What a mean over the positions that a mask keeps makes of the adjoint of the mean over all of them.

    It multiplies the positions that the mask keeps by n / (their number), and all others by zero.

    Args:
        data_format: Where the channels are.
        average: With `False` the positions that the mask keeps stay as they are.

    Call arguments:
        y: Tensor of shape `(batch, ..., steps, channels)`, or with the channels before the steps.
        recorded: The mask, of shape `(batch, ..., steps)`.

    Example:

    >>> mask = np.array([[True, True, False, False]])
    >>> np.array(MaskedShare()(np.ones((1, 4, 1)), mask))[0, :, 0].tolist()
    [2.0, 2.0, 0.0, 0.0]
    """

    def __init__(self, data_format: str = "channels_last", *, average: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format
        self.average = average

    def call(self, y: Tensor, recorded: Tensor) -> Tensor:
        kept = ops.cast(ops.cast(recorded, "bool"), y.dtype)
        kept = kept / ops.mean(kept, axis=-1, keepdims=True) if self.average else kept
        return y * ops.expand_dims(kept, -1 if self.data_format == "channels_last" else -2)

    def compute_output_shape(self, y_shape: Shape, recorded_shape: Shape) -> Shape:
        return y_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format, "average": self.average}


def share_by_mask(call: Call, layer: keras.layers.Layer, *, records: bool) -> dict[str, Any] | None:
    """The options of the `MaskedShare` behind a layer that undoes a mean over all positions; `None` where none is due.

    The adjoint of a mean over the positions of a mask needs the mask. What repeats the mean instead takes it where it can.

    Args:
        call: The call of a layer.
        layer: What undoes it.
        records: Whether the mask may be read from the forward pass.

    Raises:
        NoRuleError: If the mask is needed and may not be read.
    """
    pool, mask = inside(call.operation), call.parameters.get("mask")
    masked = isinstance(pool, keras.layers.GlobalAveragePooling1D) and mask is not None
    if not masked or not isinstance(inside(layer), BroadcastGlobalPooling):
        return None
    average = isinstance(inside(layer), AdjointGlobalAveragePooling)
    if average:
        check_mask(call, records=records)
    readable = records or not is_symbolic(mask)
    return {"average": average, "data_format": pool.data_format} if average or readable else None


def check_mask(call: Call, *, records: bool) -> None:
    """Raise a NoRuleError if a call depends on a mask, computed by the model, in a way that cannot be undone.

    Args:
        call: The call of a layer.
        records: Whether the mask may be read from the forward pass.
    """
    if not call.recorded:
        return
    layer = call.operation
    if class_with_rule(layer) in REGISTERED_BY_USERS:
        raise NoRuleError(
            f"`{call.place}` is called with a mask, of which a registered rule knows nothing. Remove the mask, for instance by "
            f"a layer that does not support masking in front of it. Received: {type(layer).__name__}"
        )
    if isinstance(inside(layer), keras.layers.GlobalAveragePooling1D):
        if records:
            return
        raise NoRuleError(
            f"`{call.place}` is a mean over the positions that a mask keeps, and the model computes the mask from its input, "
            f'so the model is not linear. `keras_adjoint.autoencoder` reads the mask, and `pooling="spread"` needs none. '
            f"Received: {type(layer).__name__} with a mask"
        )
    if isinstance(layer, keras.layers.TimeDistributed) and depends_on_mask(layer):
        raise NoRuleError(
            f"`{call.place}` passes the mask that it is called with to the layer inside of it, whose result may depend on it. "
            f"Remove the mask, or apply that layer without `TimeDistributed`. Received: {type(layer).__name__} around "
            f"{type(layer.layer).__name__}"
        )
