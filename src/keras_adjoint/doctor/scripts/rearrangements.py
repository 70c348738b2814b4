"""What functions and subscripts do to kernels and to the shapes of new arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import libcst as cst

from keras_adjoint.doctor.orders import KINDS, LAYOUTS
from keras_adjoint.doctor.scripts.syntax import literal
from keras_adjoint.doctor.scripts.values import Array, KernelExpression, Value

Expression: TypeAlias = cst.BaseExpression
Numbers: TypeAlias = KernelExpression | Array

# Functions and methods that change nothing, or nothing but where the numbers are kept.
TO_ARRAY = {"array", "asarray", "ascontiguousarray", "convert_to_numpy", "numpy", "get_value", "eval"}
TO_TENSOR = {"convert_to_tensor", "constant", "identity", "as_tensor", "tensor", "from_numpy", "cast", "read_value"}
UNCHANGED = {"copy", "astype", "clone", "detach", "cpu"}

NEW_ARRAYS = {"zeros", "ones", "empty", "full", "random", "standard_normal", "random_sample", "zeros_like"}
DRAWN = {"normal", "uniform", "rand", "randn", "standard_normal", "random", "random_sample", "truncated_normal"}

OPERATIONS = ("keras.ops", "keras.backend", "keras.ops.numpy", "keras.ops.nn")
MODULES = (
    "numpy",
    "jax.numpy",
    "tensorflow",
    "tensorflow.nn",
    "tensorflow.math",
    "torch",
    "keras_adjoint",
    *OPERATIONS,
)


def is_rearrangement(path: str) -> bool:
    """Whether a dotted path may be a function of `rearranged`."""
    return path.rpartition(".")[0] in MODULES


def integers(value: object) -> tuple[int, ...] | None:
    """A literal integer or sequence of integers as a tuple; `None` for everything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, (tuple, list)) and all(isinstance(number, int) for number in value):
        return tuple(value)
    return None


class Arguments:
    """The arguments of a call after the kernel, as expressions."""

    def __init__(self, positional: Sequence[Expression], keywords: Mapping[str, Expression]) -> None:
        self.positional = positional
        self.keywords = keywords

    def get(self, position: int, *names: str) -> Expression | None:
        """An argument by its first name that is given, or else by its position."""
        for name in names:
            if name in self.keywords:
                return self.keywords[name]
        return self.positional[position] if position < len(self.positional) else None

    def axes(self, *names: str) -> tuple[int, ...] | None:
        """Axes that are given as a literal sequence, one by one, or by keyword."""
        if len(self.positional) > 1 and not any(name in self.keywords for name in names):
            return integers([literal(argument) for argument in self.positional])
        return integers(literal(self.get(0, *names)))


def rearranged(name: str, kernel: Numbers, arguments: Arguments, node: Expression) -> Value:
    """A kernel, or an array of known shape, after a function of this name; `None` if nothing is known about it.

    Args:
        name: The last part of the function's or method's name.
        kernel: What it is given.
        arguments: The other arguments.
        node: The call.
    """
    if name in TO_ARRAY | TO_TENSOR | UNCHANGED:
        was_array = isinstance(kernel, Array) or kernel.is_array
        return same_numbers(kernel, node, is_array=name in TO_ARRAY or (name not in TO_TENSOR and was_array))
    if name == "reshape" and isinstance(kernel, Array):
        return reshaped(arguments, node)
    if name not in REARRANGEMENTS:
        return None
    return REARRANGEMENTS[name](kernel, arguments, node) or opaque(kernel, node)


def opaque(kernel: Numbers, node: Expression) -> KernelExpression | None:
    """A kernel whose rearrangement is not known."""
    if isinstance(kernel, Array):
        return None
    return replace(kernel, axes=None, flipped=(), node=node, is_opaque=True)


def same_numbers(kernel: Numbers, node: Expression, *, is_array: bool) -> Numbers:
    """The same numbers by another expression."""
    if isinstance(kernel, Array):
        return replace(kernel, node=node)
    return replace(kernel, node=node, origin=node if kernel.is_unchanged else kernel.origin, is_array=is_array)


def transposed(kernel: Numbers, arguments: Arguments, node: Expression) -> Numbers | None:
    if not arguments.positional and not arguments.keywords:
        return reordered(kernel, None, node)
    axes = arguments.axes("axes", "perm", "pattern", "dims")
    return reordered(kernel, axes, node) if axes else None


def reordered(kernel: Numbers, axes: tuple[int, ...] | None, node: Expression) -> Numbers | None:
    """Axes in another order, all of them reversed if `axes` is `None`."""
    if isinstance(kernel, Array):
        axes = axes or tuple(reversed(range(len(kernel.shape))))
        return Array(tuple(kernel.shape[axis] for axis in axes), node) if is_order(axes, len(kernel.shape)) else None
    if axes is None and kernel.axes is None:
        return None
    known = kernel.with_axes(len(axes or kernel.axes or ()))
    if known is None or known.axes is None:
        return None
    axes = axes or tuple(reversed(range(len(known.axes))))
    if not is_order(axes, len(known.axes)):
        return None
    return replace(
        known,
        axes=tuple(known.axes[axis] for axis in axes),
        flipped=tuple(known.flipped[axis] for axis in axes),
        node=node,
    )


def is_order(axes: tuple[int, ...], count: int) -> bool:
    """Whether every one of so many axes is there once."""
    return len(axes) == count and sorted(axis % count for axis in axes) == list(range(count))


def swapped(kernel: Numbers, arguments: Arguments, node: Expression) -> Numbers | None:
    named = [arguments.keywords[name] for name in ("axis1", "axis2") if name in arguments.keywords]
    pair = integers([literal(argument) for argument in [*arguments.positional, *named]])
    count = axis_count(kernel, pair)
    if pair is None or len(pair) != 2 or count is None or not all(-count <= axis < count for axis in pair):
        return None
    axes = list(range(count))
    axes[pair[0]], axes[pair[1]] = axes[pair[1]], axes[pair[0]]
    return reordered(kernel, tuple(axes), node)


def axis_count(kernel: Numbers, pair: tuple[int, ...] | None = None) -> int | None:
    """The number of axes; if unknown, 4 where the first two of a layer's kernel are meant."""
    if isinstance(kernel, Array):
        return len(kernel.shape)
    if kernel.axes is None:
        return 4 if pair is not None and sorted(pair) == [0, 1] else None
    return len(kernel.axes)


def flipped(kernel: Numbers, arguments: Arguments, node: Expression) -> Numbers | None:
    given = arguments.get(0, "axis", "axes", "dims")
    axes = tuple(range(axis_count(kernel) or 0)) if given is None else integers(literal(given))
    return flipped_along(kernel, axes, node)


def flipped_along(kernel: Numbers, axes: tuple[int, ...] | None, node: Expression) -> Numbers | None:
    """Backwards along some axes."""
    return replace(kernel, node=node) if isinstance(kernel, Array) else kernel_flipped_along(kernel, axes, node)


def kernel_flipped_along(
    kernel: KernelExpression, axes: tuple[int, ...] | None, node: Expression
) -> KernelExpression | None:
    """The same for a kernel; if the number of its axes is unknown, it is taken for that of a `Conv2D`."""
    known = kernel.with_axes(axis_count(kernel) or 4)
    count = len(known.flipped) if known is not None else 0
    if known is None or axes is None or not all(-count <= axis < count for axis in axes):
        return None
    along = {axis % count for axis in axes}
    return replace(known, flipped=tuple(f ^ (axis in along) for axis, f in enumerate(known.flipped)), node=node)


def rotated(kernel: Numbers, arguments: Arguments, node: Expression) -> Numbers | None:
    """By half a turn, which flips both spatial axes of a `Conv2D`'s kernel."""
    given = arguments.get(1, "axes")
    axes = (0, 1) if given is None else literal(given)
    turns = arguments.positional and literal(arguments.positional[0])
    return flipped_along(kernel, (0, 1), node) if turns == 2 and integers(axes) == (0, 1) else None


def by_kind(kernel: Numbers, arguments: Arguments, node: Expression) -> Numbers | None:
    """`keras_adjoint.transpose_kernel`."""
    given = arguments.positional[0] if arguments.positional else arguments.keywords.get("kind")
    kind = str(literal(given)) if given is not None else "conv_transpose"
    kinds = {"conv_transpose": (), "conv": ("flip", "swap_channels")}.get(kind, (kind,))
    if isinstance(kernel, Array) or not set(kinds) <= set(KINDS):
        return None
    known = kernel.with_axes(axis_count(kernel) or 4)
    if known is None or len(known.flipped) not in LAYOUTS:
        return None
    rank = len(known.flipped) - 2
    order = list(range(rank + 2))
    if "swap_spatial" in kinds:
        order[:rank] = order[:rank][::-1]
    if "swap_channels" in kinds:
        order[rank:] = order[rank:][::-1]
    result = reordered(known, tuple(order), node)
    return flipped_along(result, tuple(range(rank)), node) if result and "flip" in kinds else result


def reshaped(arguments: Arguments, node: Expression) -> Array | None:
    shape = arguments.axes("shape", "newshape")
    return Array(shape, node) if shape and min(shape) > 0 else None


REARRANGEMENTS: dict[str, Callable[[Numbers, Arguments, Expression], Numbers | None]] = {
    "transpose": transposed,
    "permute": transposed,
    "permute_dimensions": transposed,
    "swapaxes": swapped,
    "flip": flipped,
    "reverse": flipped,
    "flipud": lambda kernel, arguments, node: flipped_along(kernel, (0,), node),
    "fliplr": lambda kernel, arguments, node: flipped_along(kernel, (1,), node),
    "rot90": rotated,
    "transpose_kernel": by_kind,
}


def subscripted(kernel: Value, index: Sequence[cst.SubscriptElement], node: Expression) -> KernelExpression | None:
    """A kernel after a subscript such as `[::-1, ::-1]`; `None` if it takes a part of it."""
    if not isinstance(kernel, KernelExpression):
        return None
    parts = [element.slice for element in index]
    if isinstance(parts[-1], cst.Index) and isinstance(parts[-1].value, cst.Ellipsis):
        parts = parts[:-1]
    steps = [step_of(part) for part in parts]
    if any(step not in (1, -1) for step in steps):
        return None
    return kernel_flipped_along(kernel, tuple(axis for axis, step in enumerate(steps) if step == -1), node)


def step_of(part: cst.BaseSlice) -> object:
    """1 or -1 for a slice over a whole axis; `None` for everything else."""
    if not isinstance(part, cst.Slice) or part.lower is not None or part.upper is not None:
        return None
    return 1 if part.step is None else literal(part.step)


def new_array(name: str, module: str, arguments: Arguments, node: Expression) -> Array | None:
    """An `Array` that a function of NumPy makes; `None` if its shape is not written there."""
    positional, keywords = arguments.positional, arguments.keywords
    if name in ("rand", "randn"):
        shape = integers([literal(argument) for argument in positional])
    elif "size" in keywords or "shape" in keywords:
        shape = integers(literal(keywords.get("size", keywords.get("shape"))))
    elif module.endswith("random") and "keras" not in module and name in ("normal", "uniform"):
        shape = integers(literal(positional[2])) if len(positional) > 2 else None
    elif name in NEW_ARRAYS | DRAWN:
        shape = integers(literal(positional[0])) if positional else None
    else:
        return None
    return Array(shape, node) if shape and len(shape) > 2 else None
