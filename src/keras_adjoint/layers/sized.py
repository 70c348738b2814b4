"""Tied layers whose output size the input does not always determine."""

from operator import attrgetter
from typing import Any

import keras

from keras_adjoint.errors import TieError
from keras_adjoint.layers.inputs import check_data_format
from keras_adjoint.layers.sizes import recorded_shapes, resolve, spatial, standardize_output_size, where_fixed
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.whole_shapes import channels_of, with_channels_asked
from keras_adjoint.ops import Shape
from keras_adjoint.ops.geometry import CACHE_SIZE, Window, is_known

PADDINGS = ("valid", "same", "causal")


def windows_of(source: keras.layers.Layer, taps: str) -> tuple[Window, ...]:
    """The windows of a source that has its number of taps in an attribute of this name.

    Raises:
        TieError: If an attribute has been set to what Keras' constructor would not have made of it.
    """
    kernel, padding = getattr(source, taps), source.padding
    steps: list[Any] = [source.strides, getattr(source, "dilation_rate", 1)]
    strides, dilation = [(step,) * len(kernel) if isinstance(step, int) else tuple(step) for step in steps]
    if padding not in PADDINGS or not len(strides) == len(dilation) == len(kernel):
        raise TieError(
            f"`{source.name}` has attributes that its adjoint cannot read; the padding is one of {', '.join(PADDINGS)}, and of "
            f"the others there is one for each of {len(kernel)} axes. Received: padding={padding!r}, strides={strides}, "
            f"dilation_rate={dilation}"
        )
    return tuple(Window(*of_axis, padding) for of_axis in zip(kernel, strides, dilation, strict=True))


class Sized(Tied):
    """A tied layer with an `output_size`.

    Args:
        source: A built layer.
        output_size: The sizes of the output's spatial axes, or a whole shape with batch axis and channels, of which the
            channels are checked and the batch axis, of any size in a layer, is not; by default what the source recorded.
    """

    geometry: tuple[str, ...] = ("padding", "strides", "data_format")
    """Attributes of the source that decide about sizes, and may be set anew."""

    def __init__(self, source: keras.layers.Layer, *, output_size: Any = None, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        state_of = attrgetter(*self.geometry)
        self.__dict__.update(state_of=state_of, state=state_of(source))
        self.rank = len(self.windows)
        self.output_size = standardize_output_size(output_size, self.rank, self.data_format)
        self.asked_channels = channels_of(output_size, self.rank, self.data_format)
        self.__dict__["resolved"] = {}  # past Keras, which would track what is in it

    @property
    def windows(self) -> tuple[Window, ...]:
        """One `Window` per spatial axis. Subclasses implement it."""
        raise NotImplementedError

    def follow_source(self) -> None:
        """Forget what was worked out for attributes of the source that have been set anew."""
        check_data_format(self)
        self.__dict__["state"] = self.state_of(self.source)
        self.resolved.clear()

    def resolve(self, outputs: Shape, output_size: Any = None) -> Shape:
        """The spatial size of Aᵀ y for `y` of spatial size `outputs`."""
        # Not `state_of`, which `torch.compile` does not follow.
        if tuple([getattr(self.source, name) for name in self.geometry]) != self.state:
            self.follow_source()
        if output_size is not None or not all(map(is_known, outputs)):
            return self._resolve(outputs, output_size)
        # What the source recorded changes with its calls alone. Going through it takes as long as a small convolution.
        key = outputs, len(self.calls_of_source)
        resolved: dict[Any, Shape] = self.resolved
        sizes = resolved.get(key)
        if sizes is None:
            if len(resolved) >= CACHE_SIZE:
                resolved.clear()
            sizes = resolved[key] = self._resolve(outputs, None)
        return sizes

    def _resolve(self, outputs: Shape, output_size: Any) -> Shape:
        outputs = self.where_fixed(outputs)
        asked = standardize_output_size(output_size, self.rank, self.data_format) or self.output_size
        recorded = tuple(spatial(shape, self.data_format) for shape in self.recorded_shapes())
        known = all(map(is_known, (*outputs, *(asked or ()))))
        return (resolve if known else resolve.__wrapped__)(outputs, self.windows, asked, recorded, self.source.name)

    def where_fixed(self, outputs: Shape) -> Shape:
        """The spatial size of `y`, as integers where it is the same in every call, see `sizes`."""
        return where_fixed(outputs, lambda: [spatial(shape, self.data_format) for shape in recorded_shapes(self)])

    @property
    def needs_output_size(self) -> bool:
        """Whether inputs of several sizes give the same number of outputs."""
        return any(window.stride > 1 for window in self.windows)

    def output_size_like(self, x: keras.KerasTensor) -> Shape | None:
        """The `output_size` that makes the output as large as the symbolic tensor `x`; `None` if that is not known."""
        sizes = spatial(x.shape, self.data_format)
        return None if None in sizes else sizes

    def size_for_graph(self, y: keras.KerasTensor) -> Shape | None:
        sizes = self.resolve(spatial(y.shape, self.data_format))
        return None if None in sizes else sizes

    def get_config(self) -> dict[str, Any]:
        asked = with_channels_asked(self.output_size, self.asked_channels, self.data_format)
        return {**super().get_config(), "output_size": asked}
