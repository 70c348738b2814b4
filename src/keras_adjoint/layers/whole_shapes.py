"""`output_size` as a whole shape: its channels must be those of what the adjoint gives, its batch axis the same or 1."""

from collections.abc import Sequence
from typing import Any

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.sizes import is_shaped_like, sizes_of
from keras_adjoint.ops import Shape
from keras_adjoint.ops.geometry import is_known


def channels_of(size: Any, rank: int, data_format: str) -> int | None:
    """The channels in an `output_size` for `rank` spatial axes, if it is a whole shape that has them."""
    shape = None if size is None else sizes_of(size)
    if shape is None or len(shape) != rank + 2:
        return None
    channels = shape[-1 if data_format == "channels_last" else 1]
    return channels if isinstance(channels, int) else None


def check_channels(asked: int | None, channels: int, size: Any, name: str) -> None:
    """Refuse a whole shape with other channels than those of an adjoint of this name."""
    if asked is not None and asked != channels:
        raise SizeError(
            f"`{name}` gives {channels} channels, and `output_size` as a whole shape has {asked}. Pass the sizes of the "
            f"spatial axes alone, or `channels={asked}` to `adjoint` for other channels. Received: output_size={_text(size)}"
        )


def with_channels_asked(sizes: Shape | None, channels: int | None, data_format: str) -> Shape | None:
    """Spatial sizes as a whole shape, if channels were asked for along with them."""
    if sizes is None or channels is None:
        return sizes
    return (None, *sizes, channels) if data_format == "channels_last" else (None, channels, *sizes)


def check_whole_shape(layer: Any, y: Any, size: Any) -> None:
    """Refuse an `output_size` in a call that is a whole shape, but not the shape of what the layer gives.

    Args:
        layer: An adjoint layer.
        y: What it is called with.
        size: The `output_size` in any of its forms.
    """
    if type(size) is tuple and len(size) == getattr(layer, "rank", None):  # as graphs record it
        return
    given = sizes_of(size)
    if given is None or not hasattr(y, "shape") or getattr(y.shape, "rank", 0) is None:  # several tensors, or no shape
        return
    if not is_shaped_like(size) and len(given) == 1:
        return
    shape = layer.compute_output_shape(tuple(y.shape), output_size=size)
    if isinstance(shape, tuple) and len(shape) == len(given) and not _agree(given, shape):
        raise SizeError(
            f"`{layer.name}` gives a tensor of shape {shape} here, and `output_size` as a whole shape has another batch axis "
            f"or other channels. Pass the sizes alone that may differ. Received: output_size={_text(size)}, "
            f"y.shape={tuple(y.shape)}"
        )


def _agree(given: Sequence[Any], shape: Sequence[Any]) -> bool:
    """Whether a whole shape is another one, where both are known; one sample stands for the size of any number of them."""
    batch, *sizes = given
    pairs = zip((None if batch is not None and is_known(batch) and batch == 1 else batch, *sizes), shape, strict=True)
    return all(a == b for a, b in pairs if is_known(a) and is_known(b))


def _text(size: Any) -> str:
    return f"a tensor of shape {tuple(size.shape)}" if is_shaped_like(size) else repr(size)
