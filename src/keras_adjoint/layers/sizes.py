"""Which size an adjoint's output has: asked for, recorded by the source, or the only one possible."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.keras_internals import calls_of
from keras_adjoint.layers.options import as_integer
from keras_adjoint.ops import Shape, Size, Tensor
from keras_adjoint.ops.backend import current
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


@dataclass(frozen=True, eq=False)
class Records:
    """What records the sizes that a layer is called with; an object of its own, which Keras does not look into for weights.

    Attributes:
        layers: The layer, after the wrappers that call it, the outer ones first; each with its number of axes of steps.
    """

    layers: tuple[tuple[keras.layers.Layer, int], ...]

    def shapes(self) -> list[Shape]:
        """The input shapes, by what is known of the outermost layer that records any."""
        for layer, axes in self.layers:
            found = [without_steps(shape, axes) for shape in recorded_shapes(layer)]
            if found:
                return found
        return []


def where_fixed(sizes: Sequence[Any], calls: Callable[[], Sequence[Shape]]) -> Shape:
    """Sizes, of which those are integers, in traces as well, that are never unknown in some calls.

    PyTorch's tracer makes tensors of known sizes too. They become integers again only where the model says that they are
    fixed, so that the others stay free in the file.
    """
    if all(size is None or is_known(size) for size in sizes):
        return tuple(sizes)
    fixed = [bool(known) and None not in known for known in zip(*calls(), strict=True)] or [False] * len(sizes)
    known_size = current().known_size
    return tuple(known_size(size) if is_fixed else size for size, is_fixed in zip(sizes, fixed, strict=True))


def without_steps(shape: Shape, axes: int = 1) -> Shape:
    """The shape of one step, batch axis included, of a shape with some axes of steps behind its batch axis."""
    return (shape[0], *shape[1 + axes :])


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

    Raises:
        SizeError: If it is none of these.
    """
    if size is None:
        return None
    sizes = sizes_of(size)
    if sizes is not None and len(sizes) == 1 and not _has_axes(size):
        sizes = sizes * rank
    if sizes is not None and len(sizes) == rank + 2:
        sizes = spatial(sizes, data_format)
    elif is_shaped_like(size):
        sizes = None  # of a tensor whose own shape is meant, all axes count
    if sizes is None or len(sizes) != rank:
        raise SizeError(
            f"`output_size` takes {rank} sizes, or a whole shape of {rank + 2}, with the batch axis and the channels. "
            f"Received: output_size={repr(size) if sizes is None else sizes}"
        )
    return sizes


def standardize_shape(size: Any) -> Shape | None:
    """A shape without its batch axis as given by a user: like `standardize_output_size`, with any number of sizes."""
    if size is None:
        return None
    sizes = sizes_of(size)
    if sizes is None:
        raise SizeError(
            "`output_size` takes the sizes of all axes but the batch axis, or a tensor that has them. "
            f"Received: output_size={size!r}"
        )
    return sizes[1:] if is_shaped_like(size) else sizes


def standardize_shapes(size: Any) -> tuple[Shape, ...] | None:
    """Shapes without their batch axes, one for each of several tensors, as given by a user."""
    if size is None:
        return None
    is_matrix = hasattr(size, "dtype") and "int" in keras.backend.standardize_dtype(size.dtype) and len(size.shape) == 2
    is_list = isinstance(size, (list, tuple)) and all(one is not None for one in size)
    if not is_matrix and not is_list:
        raise SizeError(
            "`output_size` takes a list of shapes, without the batch axis, or of tensors that have them. "
            f"Received: output_size={size!r}"
        )
    return tuple(standardize_shape(size[i]) or () for i in range(len(size) if not is_matrix else size.shape[0]))


def size_of_call(size: Any) -> Any:
    """`output_size` as Keras takes it in a call: of Python's numbers alone, or of tensors alone; `None` if it says nothing.

    Keras would make tensors of NumPy's numbers, and refuses to mix tensors and others.
    """
    if not isinstance(size, (list, tuple)):
        is_numbers = isinstance(size, np.generic) or (
            isinstance(size, np.ndarray) and size.ndim < 2 and size.dtype.kind in "iub"
        )
        return size.tolist() if is_numbers else size
    given = [size_of_call(one) for one in size]
    if all(one is None for one in given) and given:
        return None
    scalars = [hasattr(one, "dtype") and not len(one.shape) for one in given]
    if any(scalars) and not all(scalars):
        known = [as_integer(one) if scalar else one for one, scalar in zip(given, scalars, strict=True)]
        if any(one is None and scalar for one, scalar in zip(known, scalars, strict=True)):
            known = [one if hasattr(one, "dtype") or one is None else as_tensor(one) for one in given]
        given = known
    return type(size)(given) if type(size) in (list, tuple) else given


def as_tensor(size: Any) -> Tensor:
    """A size as a tensor, for a list in which another is one; what is no size stays as it is."""
    return size if as_integer(size) is None else ops.convert_to_tensor(size, "int32")


def sizes_of(size: Any) -> Shape | None:
    """Sizes as given by a user: integers of any type, or the shape of a tensor; `None` if they are neither.

    A size may be `None`, and a scalar tensor of integers that only the running graph knows.
    """
    if is_shaped_like(size):
        return tuple(shape_of(size)) if len(size.shape) > 1 else None
    if isinstance(size, (str, bytes, Mapping, Set)) or size is None:
        return None
    if _has_axes(size):
        try:
            given = [size[i] for i in range(len(size) if not hasattr(size, "dtype") else size.shape[0])]
        except TypeError:
            return None
    else:
        given = [size]
    sizes = tuple(one if one is None else as_size(one) for one in given)
    bad = any(one is None and wanted is not None for one, wanted in zip(sizes, given, strict=True))
    return None if bad else sizes


def as_size(size: Any) -> Size:
    """A plain integer wherever the number is known, else the scalar tensor; `None` for what is no size.

    Keras turns integers of NumPy in a call into tensors.
    """
    number = as_integer(size)
    if number is not None:
        return number if number >= 0 else None
    is_symbolic = isinstance(size, keras.KerasTensor) or not hasattr(size, "dtype")
    if is_symbolic or "int" not in keras.backend.standardize_dtype(size.dtype) or len(size.shape):
        return None
    return size


def is_shaped_like(size: Any) -> bool:
    """Whether `output_size` is a tensor whose own shape is meant."""
    return hasattr(size, "dtype") and not holds_sizes(size)


def holds_sizes(tensor: Any) -> bool:
    """Whether the numbers in a tensor are sizes, rather than its own shape."""
    return len(tensor.shape) == 0 or (len(tensor.shape) == 1 and _are_integers(tensor))


def _are_integers(tensor: Any) -> bool:
    return "int" in keras.backend.standardize_dtype(tensor.dtype)


def _has_axes(size: Any) -> bool:
    """Whether sizes came as several, rather than as one number."""
    return len(size.shape) > 0 if hasattr(size, "dtype") else hasattr(size, "__len__")


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
    if any(is_known(count) and count == 0 for count in outputs):
        raise SizeError(f"`{source}` gives no output with an axis of length 0. Received: y of spatial shape {outputs}")
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
    raise SizeError(_ambiguous(choices, outputs, source, recorded))


NOTHING_RECORDED = "It recorded none: Keras' pooling layers keep no size of eager calls, only of symbolic ones. "


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


def _ambiguous(choices: Sequence[Sequence[Size]], outputs: Shape, source: str, recorded: Sequence[Shape]) -> str:
    known = all(is_known(size) for choice in choices for size in choice)
    sizes = (
        " × ".join(" or ".join(map(str, choice)) for choice in choices) if known else "known only when the graph runs"
    )
    example = tuple(choice[-1] for choice in choices) if known else "x"
    return (
        f"`{source}` maps several input sizes to the same outputs, so its adjoint cannot know which is meant: {sizes}. "
        f"{'' if recorded else NOTHING_RECORDED}"
        f"Pass the one you want, as in `output_size={example}`, to `adjoint` or when you call the layer, which also takes "
        f"the tensor whose size is wanted. Received: outputs of size {tuple(outputs)}, source={source!r}"
    )


def _span(smallest: Size, largest: Size) -> str:
    return f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
