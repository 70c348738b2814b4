"""The adjoints of layers that scale and shift each channel: the scale again, the shift gone or subtracted."""

from typing import Any

import keras
from keras import ops
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import LayerScale
from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.tied_channels import TiedShift
from keras_adjoint.ops import Shape, Tensor


class AdjointScaling(TiedShift):
    """The adjoint of x ↦ a·x + b: y ↦ a·y, or with `bias="subtract"` y ↦ a·(y − b); or its inverse, y ↦ (y − b) / a.

    Where a is zero, or so small that 1 / a is not finite, the inverse gives zero, as the pseudo-inverse does.

    Args:
        source: A built layer.
        bias: "none" or "subtract".
        inverse: Whether to divide by a instead of multiplying; then `bias` plays no part.
        tied: See `Tied`.

    Input shape: Any that the source accepts.
    Output shape: The same.
    """

    def __init__(self, source: Layer, *, inverse: bool = False, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.inverse = inverse
        self._check_recorded()

    def read_sizes_of(self, wrapper: Layer, axes: int) -> None:
        super().read_sizes_of(wrapper, axes)
        self._check_recorded()  # at one step there is an axis less

    def _check_recorded(self) -> None:
        source = self.source
        for shape in self.recorded_shapes():
            if not self.expected.fits(shape):
                raise NoRuleError(
                    f"`{source.name}` broadcasts its input, so its output has more numbers than its adjoint would return. "
                    f"Give it an input of {self.expected}. Received: input shape {shape}, {describe(source)}"
                )

    @property
    def exact(self) -> bool:
        return not self.inverse

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
        """a and b of the source, as they are now, each able to broadcast to a tensor of `rank` axes."""
        raise NotImplementedError

    def inverse_map(self, rank: int) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """(s, f, t) of the inverse y ↦ (y − s)·f + t, of which s or t may be `None`."""
        scale, shift = self.scale_and_shift(rank)
        return shift, pseudo_inverse(scale), None

    def factor(self, rank: int) -> Tensor:
        """What this layer multiplies by: a, or 1/a if it is the inverse."""
        return self.inverse_map(rank)[1] if self.inverse else self.scale_and_shift(rank)[0]

    def apply_adjoint(self, y: Tensor) -> Tensor:
        rank = len(y.shape)
        if self.inverse:
            before, factor, after = self.inverse_map(rank)
            y = y if before is None else y - ops.cast(before, y.dtype)
            y = y * ops.cast(factor, y.dtype)
            return y if after is None else y + ops.cast(after, y.dtype)
        scale, shift = self.scale_and_shift(rank)
        if self.bias_mode == "subtract":
            y = y - ops.cast(shift, y.dtype)
        return y * ops.cast(scale, y.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "inverse": self.inverse}


def pseudo_inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 where that is not finite. Each channel has its own, whatever the scales of others are."""
    zero = scale == 0
    lost = ops.logical_or(zero, ops.logical_not(ops.isfinite(1 / ops.where(zero, ops.ones_like(scale), scale))))
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

    @property
    def expected(self) -> Expected:
        spec, axis, (channels,) = self.source.input_spec, self.source.axis, self.source.moving_mean.shape
        return Expected(spec.ndim if spec else None, at_least=max(axis + 1, -axis), sizes={axis: channels})

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
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

    @property
    def expected(self) -> Expected:
        return Expected.broadcast_from(self.source.mean.shape)

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
        deviation, mean = self._deviation_and_mean()
        return (deviation, mean) if self.source.invert else (1.0 / deviation, -mean / deviation)

    def inverse_map(self, rank: int) -> tuple[Tensor | None, Tensor, Tensor | None]:
        if self.source.invert:
            return super().inverse_map(rank)
        # Of a constant feature σ is tiny, and 1/σ may be infinite in half precision.
        return (None, *self._deviation_and_mean())

    def _deviation_and_mean(self) -> tuple[Tensor, Tensor]:
        deviation = ops.maximum(ops.sqrt(self.source.variance), keras.backend.epsilon())
        return ops.cast(deviation, self.compute_dtype), ops.cast(self.source.mean, self.compute_dtype)


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

    @property
    def expected(self) -> Expected:
        return Expected.broadcast_from(*(tensor.shape for tensor in self.scale_and_shift(0)))

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
        scale = ops.convert_to_tensor(self.source.scale, self.compute_dtype)
        axes = len(scale.shape)
        if (
            axes and keras.config.image_data_format() == "channels_first"
        ):  # Keras puts images' channels first by that alone
            scale = ops.reshape(scale, (*scale.shape, *(1,) * (3 - axes)))
        return scale, ops.convert_to_tensor(self.source.offset, self.compute_dtype)


@rule(LayerScale)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointLayerScale(AdjointScaling):
    """The adjoint of ConvNeXt's `LayerScale`, which is its own.

    Args:
        source: A built layer with a scale `gamma` for each channel.
        bias: "none" or "subtract", which are the same here.
        tied: See `Tied`.
    """

    @property
    def expected(self) -> Expected:
        return Expected.broadcast_from(self.source.gamma.shape)

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
        return self.read("gamma"), ops.zeros((), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointAffinePart(AdjointScaling):
    """Multiply by the scale γ of a normalisation, or undo its γ·x̂ + β.

    Layer, group and root-mean-square normalisation divide by statistics of the very input, which is not linear. What they
    do after that is, and this layer is the adjoint of that part, or its inverse.

    Args:
        source: A built `LayerNormalization`, `GroupNormalization` or `RMSNormalization`.
        bias: "none" or "subtract".
        inverse: See `AdjointScaling`.
        tied: See `Tied`.

    Input shape: Any that the source accepts.
    Output shape: The same.

    Example:

    >>> norm = keras.layers.LayerNormalization(gamma_initializer="ones", beta_initializer="ones")
    >>> norm.build((None, 3))
    >>> keras.ops.convert_to_numpy(AdjointAffinePart(norm, inverse=True)(np.ones((1, 3)))).tolist()
    [[0.0, 0.0, 0.0]]
    """

    @property
    def exact(self) -> bool:
        return False

    @property
    def _weights(self) -> tuple[Any, Any]:
        """(γ, β), each a variable or `None`."""
        source = self.source
        gamma = source.scale if isinstance(source, keras.layers.RMSNormalization) else source.gamma
        return gamma, getattr(source, "beta", None)

    @property
    def _axes(self) -> list[int]:
        axis = self.source.axis
        return list(axis) if isinstance(axis, (list, tuple)) else [axis]

    @property
    def expected(self) -> Expected:
        weights = [weight for weight in self._weights if weight is not None]
        least = max(max(axis + 1, -axis) for axis in self._axes)
        return Expected(at_least=least, sizes=dict(zip(self._axes, weights[0].shape, strict=True)) if weights else {})

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
        gamma, beta = self._weights
        axes = sorted(axis % rank for axis in self._axes)

        def along_axes(weight: Tensor | None, otherwise: float) -> Tensor:
            if weight is None:
                return ops.full((1,) * rank, otherwise, dtype=self.compute_dtype)
            sizes = dict(zip(axes, weight.shape, strict=True))
            return ops.reshape(ops.convert_to_tensor(weight), [sizes.get(axis, 1) for axis in range(rank)])

        return along_axes(gamma, 1.0), along_axes(beta, 0.0)
