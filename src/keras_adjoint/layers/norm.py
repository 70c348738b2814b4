"""The adjoints of layers that scale and shift each channel: the scale again, the shift gone or undone."""

import keras
from keras import ops
from keras.src.applications.convnext import LayerScale

from keras_adjoint.layers.options import TiedShift
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.layers.registry import rule


class AdjointScaling(TiedShift):
    """The adjoint of x ↦ a·x + b: y ↦ a·y, or with `bias="subtract"` y ↦ a·(y − b); or its inverse, y ↦ (y − b) / a.

    Where a is zero up to rounding, the inverse gives zero, as the pseudo-inverse does.

    Args:
        source: A built layer.
        bias: "none" or "subtract".
        inverse: Whether to divide by a instead of multiplying; then `bias` plays no part.
        tied: See `Tied`.

    Input shape: Any that the source accepts.
    Output shape: The same.
    """

    def __init__(self, source, *, inverse=False, **kwargs):
        super().__init__(source, **kwargs)
        self.inverse = inverse

    @property
    def exact(self):
        return not self.inverse

    def scale_and_shift(self, rank):
        """a and b of the source, as they are now, each able to broadcast to a tensor of `rank` axes."""
        raise NotImplementedError

    def apply_adjoint(self, y):
        scale, shift = self.scale_and_shift(len(y.shape))
        if self.inverse:
            return (y - ops.cast(shift, y.dtype)) * ops.cast(pseudo_inverse(scale), y.dtype)
        if self.bias_mode == "subtract":
            y = y - ops.cast(shift, y.dtype)
        return y * ops.cast(scale, y.dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "inverse": self.inverse}


def pseudo_inverse(scale):
    """1 / scale, and 0 where scale is lost in the rounding of the largest one."""
    size = ops.absolute(scale)
    lost = size <= epsilon(keras.backend.standardize_dtype(scale.dtype)) * ops.max(size)
    return ops.where(lost, ops.zeros_like(scale), 1 / ops.where(lost, ops.ones_like(scale), scale))


@rule(keras.layers.BatchNormalization)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointBatchNormalization(AdjointScaling):
    """The adjoint of a `BatchNormalization` at inference, the affine map γ (x − μ) / √(σ² + ε) + β.

    Its scale is γ / √(σ² + ε), with the moving variance σ², whether or not the model is training.

    Args:
        source: A built `keras.layers.BatchNormalization`.
        bias: "none" or "subtract".
        tied: See `Tied`.

    Example:

    >>> norm = keras.layers.BatchNormalization()
    >>> norm.build((None, 4))
    >>> AdjointBatchNormalization(norm)(np.ones((2, 4))).shape
    (2, 4)
    """

    def scale_and_shift(self, rank):
        norm = self.source
        mean, variance = ops.convert_to_tensor(norm.moving_mean), ops.convert_to_tensor(norm.moving_variance)
        scale = (variance + norm.epsilon) ** -0.5
        if norm.scale:
            scale = scale * ops.convert_to_tensor(norm.gamma)
        shift = -mean * scale
        if norm.center:
            shift = shift + ops.convert_to_tensor(norm.beta)
        shape = [1] * rank
        shape[norm.axis] = -1
        return ops.reshape(scale, shape), ops.reshape(shift, shape)


@rule(keras.layers.Normalization)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointNormalization(AdjointScaling):
    """The adjoint of a `Normalization` layer, the affine map (x − μ) / σ, or σ x + μ if it inverts.

    Args:
        source: A built `keras.layers.Normalization`.
        bias: "none" or "subtract".
        tied: See `Tied`.

    Example:

    >>> norm = keras.layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])
    >>> norm.build((None, 2))
    >>> bool(np.allclose(AdjointNormalization(norm)(np.ones((1, 2))), [[1 / 2, 1 / 3]]))
    True
    """

    def scale_and_shift(self, rank):
        deviation = ops.maximum(ops.sqrt(self.source.variance), keras.backend.epsilon())
        deviation, mean = ops.cast(deviation, self.compute_dtype), ops.cast(self.source.mean, self.compute_dtype)
        return (deviation, mean) if self.source.invert else (1.0 / deviation, -mean / deviation)


@rule(keras.layers.Rescaling)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointRescaling(AdjointScaling):
    """The adjoint of a `Rescaling` layer.

    Args:
        source: A `keras.layers.Rescaling`.
        bias: "none" or "subtract".
        tied: See `Tied`.

    Example:

    >>> float(AdjointRescaling(keras.layers.Rescaling(2.0, offset=1.0))(np.ones((1, 1)))[0, 0])
    2.0
    """

    def scale_and_shift(self, rank):
        scale, shift = self.source.scale, self.source.offset
        return ops.convert_to_tensor(scale, self.compute_dtype), ops.convert_to_tensor(shift, self.compute_dtype)


@rule(LayerScale)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointLayerScale(AdjointScaling):
    """The adjoint of ConvNeXt's `LayerScale`, which is its own.

    Args:
        source: A built layer with a scale `gamma` for each channel.
        bias: "none" or "subtract", which are the same here.
        tied: See `Tied`.
    """

    def scale_and_shift(self, rank):
        return self.read("gamma"), ops.zeros((), self.compute_dtype)
