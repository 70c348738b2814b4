"""Which size an adjoint's output has: asked for, recorded by the source, or the only one possible."""

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.keras_internals import calls_of
from keras_adjoint.ops import Shape, Size, Tensor
from keras_adjoint.ops.geometry import CACHE_SIZE, Window, is_known


def recorded_shapes(source: keras.layers.Layer) -> list[Shape]:
    """Every input shape, batch axis included, that `source` is known to have been built or called with."""
    shapes: list[Any] = []
    build_config = source.get_build_config() or {}
    shapes.append(build_config.get("input_shape"))
    for node in calls_of(source):
        if len(node.input_tensors) == 1:
            shapes.append(node.input_tensors[0].shape)
    is_shape = [isinstance(shape, (tuple, list)) and all(s is None or is_known(s) for s in shape) for shape in shapes]
    return list(dict.fromkeys(tuple(shape) for shape, good in zip(shapes, is_shape, strict=True) if good))


def spatial(shape: Sequence[Any], data_format: str) -> Shape:
    """The spatial part of a full shape."""
    return tuple(shape[1:-1] if data_format == "channels_last" else shape[2:])


def standardize_output_size(size: Any, rank: int, data_format: str) -> Shape | None:
    """`output_size` as given by a user, as a tuple of `rank` sizes.

    Args:
        size: An integer, integers, a full shape with batch and channels, an integer tensor that holds either, or a
            tensor whose own shape is meant. `None` stays `None`.
        rank: Number of spatial axes.
        data_format: Where a full shape has its channels.
    """
    if size is None:
        return None
    if hasattr(size, "shape") and hasattr(size, "dtype"):
        integers = "int" in keras.backend.standardize_dtype(size.dtype) and len(size.shape) == 1
        size = [size[i] for i in range(size.shape[0])] if integers else shape_of(size)
    elif is_known(size):
        size = (size,) * rank
    size = tuple(_as_integer(s) for s in size)
    if len(size) == rank + 2:
        size = spatial(size, data_format)
    if len(size) != rank or any(is_known(s) and s < 0 for s in size):
        raise SizeError(f"`output_size` takes {rank} sizes, or a whole shape. Received: output_size={size}")
    return size


def _as_integer(size: Any) -> Size:
    """A plain integer wherever the number is known: Keras turns arrays of integers in a call into tensors."""
    try:
        return operator.index(size)
    except (TypeError, AttributeError, NotImplementedError):
        return size


def shape_of(tensor: Tensor) -> Shape:
    """The shape of a tensor, with `None` where it is symbolic, and with scalar tensors where only the graph knows it."""
    shape = tuple(tensor.shape)
    return shape if all(map(is_known, shape)) or isinstance(tensor, keras.KerasTensor) else ops.shape(tensor)


@lru_cache(CACHE_SIZE)
def resolve(
    outputs: Shape, windows: tuple[Window, ...], asked: Shape | None, recorded: tuple[Shape, ...], source: str
) -> Shape:
    """The size of an adjoint's output.

    Args:
        outputs: Spatial shape of the adjoint's input; `None` where a symbolic shape does not know it, a scalar tensor
            where only the running graph will.
        windows: How the forward moves along each axis, and so which sizes it maps to `outputs`.
        asked: Sizes that the caller or the constructor asked for, or `None`.
        recorded: Sizes that the source was built or called with.
        source: The source's name, for messages.

    Returns:
        One size per axis; `None` where it stays unknown until the layer runs.

    Raises:
        SizeError: If several sizes are possible and nothing says which, or if the wanted one is impossible.
    """
    # Where only one size is possible, `possible_sizes` returns the same object twice.
    pairs = zip(windows, outputs, strict=True)
    possible: list[tuple[Size, Size]] = [
        (None, None) if count is None else window.possible_sizes(count) for window, count in pairs
    ]
    if asked is not None:
        _check_possible(asked, possible, outputs, source)
        if all(size is not None for size in asked):
            return asked
    matching = [sizes for sizes in recorded if _matches(sizes, possible)]
    choices = []
    for axis, (smallest, largest) in enumerate(possible):
        found = sorted({sizes[axis] for sizes in matching if sizes[axis] is not None})
        if asked is not None and asked[axis] is not None:
            choices.append([asked[axis]])
        elif smallest is largest:
            choices.append([smallest])
        elif found:
            choices.append(found)
        else:
            choices.append(list(range(smallest, largest + 1)) if is_known(smallest) else [smallest, largest])
    if all(len(choice) == 1 for choice in choices):
        return tuple(choice[0] for choice in choices)
    raise SizeError(_ambiguous(choices, outputs, source))


def _matches(sizes: Shape, possible: Sequence[tuple[Size, Size]]) -> bool:
    """Whether recorded sizes are possible; an axis that only the running graph knows matches nothing."""
    return all(
        size is None or smallest is None or (is_known(smallest) and smallest <= size <= largest)
        for size, (smallest, largest) in zip(sizes, possible, strict=True)
    )


def _check_possible(asked: Shape, possible: Sequence[tuple[Size, Size]], outputs: Shape, source: str) -> None:
    for size, (smallest, largest) in zip(asked, possible, strict=True):
        if is_known(size) and is_known(smallest) and not smallest <= size <= largest:
            raise SizeError(
                f"`{source}` maps no input of size {asked} to outputs of size {tuple(outputs)}. Possible along each "
                f"axis: {', '.join(_span(*pair) for pair in possible)}. Received: output_size={asked}"
            )


def _ambiguous(choices: Sequence[Sequence[Size]], outputs: Shape, source: str) -> str:
    known = all(is_known(size) for choice in choices for size in choice)
    sizes = (
        " × ".join(" or ".join(map(str, choice)) for choice in choices) if known else "known only when the graph runs"
    )
    example = tuple(choice[-1] for choice in choices) if known else "x"
    return (
        f"`{source}` maps several input sizes to the same outputs, so its adjoint cannot know which is meant: {sizes}. "
        f"Pass the one you want, as in `output_size={example}`, to `adjoint` or when you call the layer, which also takes "
        f"the tensor whose size is wanted. Received: outputs of size {tuple(outputs)}, source={source!r}"
    )


def _span(smallest: Size, largest: Size) -> str:
    return f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
