"""The adjoint of global average pooling, and a right inverse of any global pooling."""

import math
from typing import Any

import keras
from keras import ops
from keras.layers import Layer

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.inputs import Expected, accept
from keras_adjoint.layers.pooling import Pooling, computes_averages
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.sizes import NOTHING_RECORDED, spatial, standardize_output_size
from keras_adjoint.layers.whole_shapes import channels_of, with_channels_asked
from keras_adjoint.ops import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_adjoint")
class BroadcastGlobalPooling(Pooling):
    """One number per channel, as global pooling gives it, at every position.

    Pooling the result gives back what was broadcast, so this is a right inverse of average and of max pooling, and no
    adjoint of either.

    Args:
        source: A global pooling layer.
        output_size: The sizes of the output's spatial axes; by default what the source recorded.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape with batch and channels, or a tensor of that
            size.

    Input shape: `(batch, channels)`, or with axes of size 1 if the source keeps them.
    Output shape: `(batch, *sizes, channels)`, or with the channels first.

    Raises:
        SizeError: If neither the source nor the caller says which size is meant.

    Example:

    >>> pool = keras.layers.GlobalMaxPooling2D()
    >>> BroadcastGlobalPooling(pool, output_size=(2, 2))(np.ones((1, 3))).shape
    (1, 2, 2, 3)
    """

    options = ("output_size", *Pooling.options)

    def __init__(self, source: Layer, *, output_size: Any = None, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.rank = self.spatial_axes
        self.output_size = standardize_output_size(output_size, self.rank, self.data_format)
        self.asked_channels = channels_of(output_size, self.rank, self.data_format)

    @property
    def spatial_axes(self) -> int:
        """The number of spatial axes."""
        axes: int = self.source.input_spec.ndim
        return axes - 2

    def resolve(self, output_size: Any = None) -> Shape:
        """The spatial size of the output: any will do, so it must be asked for or recorded."""
        asked = standardize_output_size(output_size, self.rank, self.data_format) or self.output_size
        recorded = [spatial(shape, self.data_format) for shape in self.recorded_shapes()]
        choices = [asked] if asked is not None else list(dict.fromkeys(recorded))
        if len(choices) == 1:
            return choices[0]
        raise SizeError(
            f"`{self.source.name}` pools inputs of any size, so its adjoint cannot know which is meant"
            f"{': ' + ' or '.join(map(str, choices)) if choices else ''}. {'' if choices else NOTHING_RECORDED}"
            f"Pass it as `output_size=...`, to `adjoint` or "
            f"when you call the layer. Received: source={self.source.name!r}"
        )

    @property
    def expected(self) -> Expected:
        kept = range(self.first_axis, self.first_axis + self.rank) if self.source.keepdims else ()
        return Expected(2 + len(kept), sizes={**super().expected.sizes, **dict.fromkeys(kept, 1)})

    def call(self, y: Tensor, output_size: Any = None) -> Tensor:
        y = accept(self, y)
        sizes = self.resolve(output_size)
        if any(size is None for size in sizes):
            raise SizeError(
                f"`{self.source.name}` was built for inputs of unknown size. Pass `output_size=...` when you call "
                f"`{self.name}`. Received: recorded size {sizes}"
            )
        share = ops.reshape(y, self.full_shape(ops.shape(y), (1,) * self.rank))
        return ops.broadcast_to(self.share(share, sizes), self.full_shape(ops.shape(y), sizes))

    def share(self, y: Tensor, sizes: Shape) -> Tensor:
        """What each position gets of `y`."""
        return y

    @property
    def exact(self) -> bool:
        return False

    @property
    def needs_output_size(self) -> bool:
        return True

    def output_size_like(self, x: keras.KerasTensor) -> Shape | None:
        """The `output_size` that makes the output as large as the symbolic tensor `x`; `None` if that is not known."""
        sizes = spatial(x.shape, self.data_format)
        return None if None in sizes else sizes

    def size_for_graph(self, y: keras.KerasTensor) -> Shape | None:
        sizes = self.resolve()
        return None if None in sizes else sizes

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None) -> Shape:
        return self.full_shape(input_shape, self.resolve(output_size))

    def get_config(self) -> dict[str, Any]:
        asked = with_channels_asked(self.output_size, self.asked_channels, self.data_format)
        return {**super().get_config(), "output_size": asked}


@rule(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalAveragePooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointGlobalAveragePooling(BroadcastGlobalPooling):
    """The adjoint of global average pooling: the average, divided by the number of positions, at every position.

    Args:
        source: A global average pooling layer.
        output_size: The sizes of the output's spatial axes; by default what the source recorded.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: See `BroadcastGlobalPooling`.

    Example:

    >>> pool = keras.layers.GlobalAveragePooling2D()
    >>> float(AdjointGlobalAveragePooling(pool, output_size=(2, 2))(np.ones((1, 3)))[0, 0, 0, 0])
    0.25
    """

    def share(self, y: Tensor, sizes: Shape) -> Tensor:
        return y / ops.cast(math.prod(sizes), y.dtype)

    @property
    def exact(self) -> bool:
        return computes_averages(self.source)
