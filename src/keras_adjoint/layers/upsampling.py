"""The adjoints of `UpSampling`: the copies of every element are added up."""

import keras
import numpy as np
from keras import ops
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.sizes import recorded_shapes, where_fixed
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current


def blocks_of(y: Tensor, axis: int, factor: int) -> Tensor:
    """`axis` as two axes: which block, and where in it."""
    shape = ops.shape(y)
    return ops.reshape(y, (*shape[:axis], shape[axis] // factor, factor, *shape[axis + 1 :]))


def collect_nearest(y: Tensor, axis: int, factor: int) -> Tensor:
    """The transpose of repeating every element `factor` times along `axis`: sums over blocks."""
    return ops.sum(blocks_of(y, axis, factor), axis=axis + 1)


def collect_bilinear(y: Tensor, axis: int, factor: int) -> Tensor:
    """The transpose of linear interpolation by `factor` along `axis`, pixel centres at half-integers.

    Sample r of block q lies at q + t with t = (r + ½) / factor − ½, between −½ and ½. It is (1 − |t|) of element q and
    |t| of its neighbour on the side of t; where that neighbour lies beyond the edge, element q stands in for it.
    """
    blocks = blocks_of(y, axis, factor)
    offsets = [(r + 0.5) / factor - 0.5 for r in range(factor)]

    def weighted(weights: list[float]) -> Tensor:
        weights = ops.reshape(ops.convert_to_tensor(weights, y.dtype), (factor,) + (1,) * (len(y.shape) - axis - 1))
        return ops.sum(blocks * weights, axis=axis + 1)

    own = weighted([1 - abs(t) for t in offsets])
    to_left = weighted([max(-t, 0.0) for t in offsets])
    to_right = weighted([max(t, 0.0) for t in offsets])

    def cut(x: Tensor, start: int, stop: int | None) -> Tensor:
        return x[(slice(None),) * axis + (slice(start, stop),)]

    left = ops.concatenate([cut(to_left, 1, None), ops.zeros_like(cut(own, 0, 1))], axis=axis)
    right = ops.concatenate([ops.zeros_like(cut(own, 0, 1)), cut(to_right, 0, -1)], axis=axis)
    first_edge = ops.concatenate([cut(to_left, 0, 1), ops.zeros_like(cut(own, 1, None))], axis=axis)
    last_edge = ops.concatenate([ops.zeros_like(cut(own, 0, -1)), cut(to_right, -1, None)], axis=axis)
    return own + left + right + first_edge + last_edge


COLLECT = {"nearest": collect_nearest, "bilinear": collect_bilinear}


def interpolation_of(source: Layer) -> str:
    """How an up-sampling layer interpolates."""
    return getattr(source, "interpolation", "nearest")


@rule(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointUpSampling(Tied):
    """The adjoint of `UpSampling1D`, `UpSampling2D` or `UpSampling3D`, nearest or bilinear.

    Args:
        source: An up-sampling layer.

    Input shape: `(batch, *(sizes · factors), channels)`, or with the channels first.
    Output shape: `(batch, *sizes, channels)`, or with the channels first.

    Raises:
        NoRuleError: If the source's interpolation was set to another one than nearest and bilinear.
        SizeError: If a size is not a multiple of its factor.

    Example:

    >>> up = keras.layers.UpSampling2D(2, interpolation="bilinear")
    >>> AdjointUpSampling(up)(up(np.ones((1, 3, 4, 2)))).shape
    (1, 3, 4, 2)
    """

    @staticmethod
    def covers(source: Layer) -> bool:
        """Whether it interpolates along one axis after the other as here."""
        return interpolation_of(source) in COLLECT

    @property
    def interpolation(self) -> str:
        """How the source interpolates."""
        interpolation = interpolation_of(self.source)
        if interpolation not in COLLECT:
            raise NoRuleError(
                f"The interpolation of `{self.source.name}` was set after its adjoint was taken. Take it again. "
                f"Received: interpolation={interpolation!r}, {describe(self.source)}"
            )
        return interpolation

    @property
    def factors(self) -> tuple[int, ...]:
        size = self.source.size
        return (size,) if isinstance(size, int) else tuple(size)

    @property
    def first_axis(self) -> int:
        return 2 if self.data_format == "channels_first" else 1

    def matrices_along(self, sizes: Shape) -> list[np.ndarray]:
        """What is done along each spatial axis, as `(size · factor, size)` matrices that y is multiplied by."""
        collect = COLLECT[self.interpolation]
        pairs = zip(sizes, self.factors, strict=True)
        with current().eagerly():
            return [ops.convert_to_numpy(collect(ops.eye(s * f, dtype=self.compute_dtype), 1, f)) for s, f in pairs]

    @property
    def expected(self) -> Expected:
        return Expected(len(self.factors) + 2)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        self.compute_output_shape(
            where_fixed(y.shape, lambda: recorded_shapes(self))
        )  # raises for sizes that are no multiples
        for axis, factor in enumerate(self.factors, self.first_axis):
            y = COLLECT[self.interpolation](y, axis, factor)
        return y

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = list(input_shape)
        for axis, factor in enumerate(self.factors, self.first_axis):
            if shape[axis] is not None and shape[axis] % factor:
                raise SizeError(
                    f"Up-sampling by {factor} gives no output of size {shape[axis]}. Received: y.shape={tuple(input_shape)}"
                )
            shape[axis] = None if shape[axis] is None else shape[axis] // factor
        return tuple(shape)
