"""What functions and subscripts do to kernels and to the shapes of new arrays."""

import ast
from dataclasses import replace

from keras_adjoint.doctor.models.arrangements import KINDS, LAYOUTS
from keras_adjoint.doctor.scripts.values import Array, Kernel

# Functions and methods that change nothing, or nothing but where the numbers are kept.
TO_ARRAY = {"array", "asarray", "ascontiguousarray", "convert_to_numpy", "numpy", "get_value", "eval"}
TO_TENSOR = {"convert_to_tensor", "constant", "identity", "as_tensor", "tensor", "from_numpy", "cast", "read_value"}
UNCHANGED = {"copy", "astype", "clone", "detach", "cpu"}

NEW_ARRAYS = {"zeros", "ones", "empty", "full", "random", "standard_normal", "random_sample", "zeros_like"}
DRAWN = {"normal", "uniform", "rand", "randn", "standard_normal", "random", "random_sample", "truncated_normal"}


def literal(node):
    """The value of a literal expression; `None` if it is none."""
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def integers(value):
    """A literal integer or sequence of integers as a tuple; `None` for everything else."""
    value = (value,) if isinstance(value, int) and not isinstance(value, bool) else value
    is_sequence = isinstance(value, (tuple, list)) and all(isinstance(number, int) for number in value)
    return tuple(value) if is_sequence else None


def rearranged(name, kernel, arguments, keywords, node):
    """A kernel, or an array of known shape, after a function of this name; `None` if nothing is known about it.

    Args:
        name: The last part of the function's or method's name.
        kernel: The `Kernel` or `Array` that it is given.
        arguments: The other positional arguments, as expressions.
        keywords: The keyword arguments by name, as expressions.
        node: The call.
    """
    if name in TO_ARRAY | TO_TENSOR | UNCHANGED:
        return kept(kernel, node, is_array=name in TO_ARRAY or (name not in TO_TENSOR and is_array(kernel)))
    if name == "reshape" and isinstance(kernel, Array):
        return reshaped(kernel, arguments, keywords, node)
    if name not in REARRANGEMENTS:
        return None
    known = REARRANGEMENTS[name](kernel, arguments, keywords, node)
    return known or opaque(kernel, node)


def opaque(kernel, node):
    """A kernel that was rearranged in a way that is not known."""
    return replace(kernel, axes=None, flipped=(), node=node, is_opaque=True) if isinstance(kernel, Kernel) else None


def is_array(kernel):
    return isinstance(kernel, Array) or kernel.is_array


def kept(kernel, node, *, is_array):
    """The same numbers by another expression."""
    if isinstance(kernel, Array):
        return replace(kernel, node=node)
    return replace(kernel, node=node, origin=node if kernel.is_as_it_is else kernel.origin, is_array=is_array)


def axes_argument(arguments, keywords, names):
    """Axes that were given as a literal sequence, one by one, or by keyword."""
    given = next((keywords[name] for name in names if name in keywords), None)
    if given is None and len(arguments) > 1:
        return integers([literal(argument) for argument in arguments])
    return integers(literal(given if given is not None else arguments[0] if arguments else None))


def transposed(kernel, arguments, keywords, node):
    if not arguments and not keywords:
        return reordered(kernel, None, node)
    axes = axes_argument(arguments, keywords, ("axes", "perm", "pattern", "dims"))
    return axes and reordered(kernel, axes, node)


def reordered(kernel, axes, node):
    """Axes in another order, all of them reversed if `axes` is `None`."""
    if isinstance(kernel, Array):
        axes = axes or tuple(reversed(range(len(kernel.shape))))
        fits = sorted(axis % len(axes) for axis in axes) == list(range(len(kernel.shape)))
        return Array(tuple(kernel.shape[axis] for axis in axes), node) if fits else None
    if axes is None and kernel.axes is None:
        return None
    kernel = kernel.with_axes(len(axes or kernel.axes))
    if kernel is None:
        return None
    axes = axes or tuple(reversed(range(len(kernel.axes))))
    if sorted(axis % len(axes) for axis in axes) != list(range(len(axes))):
        return None
    return replace(
        kernel,
        axes=tuple(kernel.axes[axis] for axis in axes),
        flipped=tuple(kernel.flipped[axis] for axis in axes),
        node=node,
    )


def swapped(kernel, arguments, keywords, node):
    named = [keywords[name] for name in ("axis1", "axis2") if name in keywords]
    pair = integers([literal(argument) for argument in [*arguments, *named]])
    count = axis_count(kernel, pair)
    if pair is None or len(pair) != 2 or count is None or not all(-count <= axis < count for axis in pair):
        return None
    axes = list(range(count))
    axes[pair[0]], axes[pair[1]] = axes[pair[1]], axes[pair[0]]
    return reordered(kernel, tuple(axes), node)


def axis_count(kernel, pair=None):
    """The number of axes; 4 where the first two of a layer's kernel are meant and nobody says how many there are."""
    if isinstance(kernel, Array):
        return len(kernel.shape)
    if kernel.axes is None:
        return 4 if pair is not None and sorted(pair) == [0, 1] else None
    return len(kernel.axes)


def flipped(kernel, arguments, keywords, node):
    if isinstance(kernel, Array):
        return replace(kernel, node=node)
    given = next((keywords[name] for name in ("axis", "axes", "dims") if name in keywords), None)
    given = given if given is not None else arguments[0] if arguments else None
    axes = tuple(range(axis_count(kernel) or 0)) if given is None else integers(literal(given))
    return flipped_along(kernel, axes, node)


def flipped_along(kernel, axes, node):
    """Backwards along some axes: where nobody says how many there are, the spatial ones of a picture's kernel."""
    if isinstance(kernel, Array):
        return replace(kernel, node=node)
    kernel = kernel.with_axes(axis_count(kernel) or 4)
    count = len(kernel.axes) if kernel is not None else 0
    if kernel is None or axes is None or not all(-count <= axis < count for axis in axes):
        return None
    along = {axis % count for axis in axes}
    return replace(kernel, flipped=tuple(f ^ (axis in along) for axis, f in enumerate(kernel.flipped)), node=node)


def turned(kernel, arguments, keywords, node):
    """By half a turn, which flips both axes of a picture."""
    axes = [literal(argument) for argument in arguments[1:]] or [literal(keywords.get("axes")) or (0, 1)]
    half = arguments and literal(arguments[0]) == 2 and integers(axes[0]) == (0, 1)
    return flipped_along(kernel, (0, 1), node) if half else None


def by_kind(kernel, arguments, keywords, node):
    """`keras_adjoint.transpose_kernel`."""
    kind = literal(arguments[0]) if arguments else literal(keywords.get("kind")) or "conv_transpose"
    kinds = {"conv_transpose": (), "conv": ("flip", "swap_channels")}.get(kind, (kind,))
    if isinstance(kernel, Array) or not set(kinds) <= set(KINDS):
        return None
    kernel = kernel.with_axes(axis_count(kernel) or 4)
    if kernel is None or len(kernel.axes) not in LAYOUTS:
        return None
    rank = kernel.rank
    order = list(range(rank + 2))
    if "swap_spatial" in kinds:
        order[:rank] = order[:rank][::-1]
    if "swap_channels" in kinds:
        order[rank:] = order[rank:][::-1]
    kernel = reordered(kernel, tuple(order), node)
    return flipped_along(kernel, tuple(range(rank)), node) if "flip" in kinds else kernel


def reshaped(array, arguments, keywords, node):
    given = keywords.get("shape") or keywords.get("newshape")
    shape = axes_argument([given] if given is not None else arguments, {}, ())
    return Array(shape, node) if shape and min(shape) > 0 else None


REARRANGEMENTS = {
    "transpose": transposed,
    "permute": transposed,
    "permute_dimensions": transposed,
    "swapaxes": swapped,
    "flip": flipped,
    "reverse": flipped,
    "flipud": lambda kernel, arguments, keywords, node: flipped_along(kernel, (0,), node),
    "fliplr": lambda kernel, arguments, keywords, node: flipped_along(kernel, (1,), node),
    "rot90": turned,
    "transpose_kernel": by_kind,
}


def subscripted(kernel, index, node):
    """A kernel after a subscript such as `[::-1, ::-1]`; `None` if it takes a part of it."""
    if not isinstance(kernel, Kernel):
        return None
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    dots = [number for number, part in enumerate(parts) if literal(part) is ...]
    parts = parts[: dots[0]] if dots and dots[0] == len(parts) - 1 else parts
    steps = [step_of(part) for part in parts]
    if any(step not in (1, -1) for step in steps):
        return None
    return flipped_along(kernel, tuple(axis for axis, step in enumerate(steps) if step == -1), node)


def step_of(part):
    """1 or -1 for a slice over a whole axis; `None` for everything else."""
    if not isinstance(part, ast.Slice) or part.lower is not None or part.upper is not None:
        return None
    return 1 if part.step is None else literal(part.step)


def new_array(name, module, arguments, keywords, node):
    """An `Array` that a function of NumPy makes; `None` if its shape is not written there."""
    if name in ("rand", "randn"):
        shape = integers([literal(argument) for argument in arguments])
    elif "size" in keywords or "shape" in keywords:
        shape = integers(literal(keywords.get("size", keywords.get("shape"))))
    elif name in DRAWN and module.endswith("random") and "keras" not in module and name in ("normal", "uniform"):
        shape = integers(literal(arguments[2])) if len(arguments) > 2 else None
    elif name in NEW_ARRAYS | DRAWN:
        shape = integers(literal(arguments[0])) if arguments else None
    else:
        return None
    return Array(shape, node) if shape and len(shape) > 2 else None
