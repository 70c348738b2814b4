"""Which shapes a user means by `size`, for a layer or model that recorded some."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_adjoint.errors import KerasAdjointError, SizeError, in_short
from keras_adjoint.layers.call_pattern import CallPattern
from keras_adjoint.layers.options import as_integer
from keras_adjoint.layers.registry import describe
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Shape

OF_AN_ARRAY = "input.shape"  # an option that has all axes, and not those of space alone


def recorded_templates(source: keras.layers.Layer, patterns: Sequence[CallPattern], size: Any) -> list[Shape]:
    """The shapes that a layer recorded, without the batch axis; with `None` for sizes that it recorded several of."""
    recorded = list(dict.fromkeys(tuple(shape[1:] for shape in pattern.input_shapes) for pattern in patterns))
    if not recorded:
        return []
    asked_for = next((shapes for shapes in recorded if _is_asked_for(shapes, size)), None)
    if asked_for is not None:
        return list(asked_for)
    if len(recorded) > 1 and size is None and len({shapes for shapes in recorded if None not in sum(shapes, ())}) > 1:
        raise SizeError(
            f"`{source.name}` was called with several sizes, which are different operators. Pass the one that is meant as "
            f"`size`. Received: {' and '.join(str(one[0] if len(one) == 1 else one) for one in recorded)}"
        )
    return list(next((shapes for shapes in recorded if None not in sum(shapes, ())), recorded[-1]))


def _is_asked_for(shapes: Sequence[Shape], size: Any) -> bool:
    """Whether `size` has a whole shape for each of these, with which it agrees."""
    if not isinstance(size, (list, tuple)):
        return False
    several = any(isinstance(one, (list, tuple)) for one in size)
    asked = list(size) if several else [size]
    return len(asked) == len(shapes) and all(
        isinstance(one, (list, tuple))
        and len(one) == len(shape)
        and all(known in (None, given) for known, given in zip(shape, one, strict=True))
        for one, shape in zip(asked, shapes, strict=True)
    )


def sizes_meant(
    source: keras.layers.Layer, templates: Sequence[Shape], size: Any, option: str = "size"
) -> list[tuple[int, ...]]:
    """The shapes, without the batch axis, that a user means by `size`.

    Args:
        source: The layer or model that takes them.
        templates: The shapes that it recorded, with `None` where a size is unknown; none if it recorded none.
        size: `None`; a shape; the sizes of the spatial axes; one size for all of these; or a structure of such.
        option: What the user calls that.

    Raises:
        SizeError: If sizes remain unknown, or others are known.
    """
    given = _one_for_each(templates, size)
    if given is None or (not templates and size is None):
        raise SizeError(
            f"`{source.name}` takes {len(templates)} tensors, and `size` has a shape for each. Received: size={size!r}"
            if templates
            else f"The size of what `{source.name}` takes is not known. Pass its shape without the batch axis as `size`. "
            f"Received: size=None, {describe(source)}"
        )
    shapes = [_meant(source, option, *pair) for pair in zip(templates or (None,) * len(given), given, strict=True)]
    for shape in shapes:
        if not all(shape):
            example = tuple(axis or 32 for axis in shape)
            raise SizeError(
                f"`{source.name}` takes {sizes_text(shape)}, and an operator has one size. Pass the "
                f"shape without the batch axis, as in `size={example}`. Received: size={size!r}, {describe(source)}"
            )
    return [tuple(axis for axis in shape if axis) for shape in shapes]


@contextmanager
def taking(source: keras.layers.Layer, size: Any) -> Iterator[None]:
    """A layer is called on tensors of a size that was asked for; if it does not take them, the error says so."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        if size is None or isinstance(error, KerasAdjointError):
            raise
        raise SizeError(
            f"`{source.name}` does not take tensors of the `size` that is asked for: {in_short(error).rstrip('. ')}. Pass "
            f"another one. Received: size={size!r}, {describe(source)}"
        ) from error


def _one_for_each(templates: Sequence[Shape], size: Any) -> list[Any] | None:
    """`size` as a list with an entry for each tensor; `None` if that cannot be."""
    several = isinstance(size, Mapping) or (
        isinstance(size, (list, tuple)) and any(isinstance(one, (list, tuple, Mapping)) for one in size)
    )
    if not several:
        return [size] * max(1, len(templates))
    shapes = list(Space.of(size).shapes)
    return shapes if not templates or len(shapes) == len(templates) else None


def _meant(source: keras.layers.Layer, option: str, template: Shape | None, size: Any) -> list[int | None]:
    """One shape."""
    if size is None:
        return list(template or ())
    given = [as_integer(one) for one in (size if isinstance(size, (list, tuple, np.ndarray)) else [size])]
    if not all(one and one > 0 for one in given):
        raise SizeError(f"`{option}` has positive integers. Received: {option}={size!r}")
    if template is None:
        return given
    axes = _spatial_axes(source, template)
    if len(given) == 1 and not isinstance(size, (list, tuple)):
        given = given * len(axes)
    if len(given) == len(template):
        shape = list(given)
    elif len(given) == len(axes) and option != OF_AN_ARRAY:
        shape = list(template)
        for axis, one in zip(axes, given, strict=True):
            shape[axis] = one
    else:
        shape = []
    fixed = [axis for axis in range(len(template)) if axis not in axes and template[axis] is not None]
    if len(shape) != len(template) or any(shape[axis] != template[axis] for axis in fixed):
        others = f", or those of its {len(axes)} spatial axes" if axes and option != OF_AN_ARRAY else ""
        raise SizeError(
            f"`{option}` has the {len(template)} sizes of {sizes_text(template)}, which `{source.name}` takes{others}. "
            f"Received: {option}={size!r}"
        )
    return shape


def _spatial_axes(source: keras.layers.Layer, template: Shape) -> list[int]:
    """Axes of a shape without the batch axis whose size may be asked for: all but that of the channels."""
    channels_first = getattr(source, "data_format", keras.config.image_data_format()) == "channels_first"
    return list(range(1, len(template))) if channels_first else list(range(len(template) - 1))


def sizes_text(shape: Sequence[Any]) -> str:
    """A shape, with ? where a size is not known."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
