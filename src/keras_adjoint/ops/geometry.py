"""Sizes and pads of a convolution along one axis, in integer arithmetic alone.

Nothing here looks inside its integers, so a size may also be a scalar tensor that is known only when the
graph runs. That is why the positive part of a number is written as (a + |a|) / 2 and not as `max(a, 0)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, TypeVar

from keras_adjoint.ops import Shape, Size

CACHE_SIZE = 1024

Value = TypeVar("Value")


def positive_part(number: Size) -> Size:
    """max(number, 0), also for scalar tensors."""
    return (number + abs(number)) // 2


def is_known(size: Size | None) -> bool:
    """Whether a size is a plain integer, rather than `None` or a scalar tensor."""
    return isinstance(size, int)


def cached(function: Callable[..., Value]) -> Callable[..., Value]:
    """Cache the results of a function of known sizes.

    Sizes that are tensors belong to one graph, so that their results are computed anew.

    Args:
        function: A function whose first argument has an attribute `is_known`, or is a tuple of sizes.
    """
    from_cache = lru_cache(CACHE_SIZE)(function)

    @wraps(function)
    def call(first: Any, *others: Any) -> Value:
        known = all(map(is_known, first)) if isinstance(first, tuple) else first.is_known
        return (from_cache if known else function)(first, *others)

    return call


@dataclass(frozen=True)
class Window:
    """How a kernel moves along one axis: `taps` taps, `dilation` apart, every `stride` positions.

    `padding` names Keras' rule for the zeros around the input: "valid", "same" or "causal".
    """

    taps: int
    stride: int = 1
    dilation: int = 1
    padding: str = "valid"

    @property
    def dilated_taps(self) -> int:
        """The dilated kernel size: positions from the first tap to the last one, both counted."""
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, size: Size) -> Size:
        """Output positions for an input of `size` positions."""
        if self.padding == "valid":
            return (size - self.dilated_taps) // self.stride + 1
        return (size + self.stride - 1) // self.stride

    def pad_before(self, size: Size) -> Size:
        """Zeros that the forward puts in front of an input of `size` positions.

        "same" splits the zeros that the last output needs between both ends, the odd one at the end; "causal" puts
        all of them in front, so that no output reads a later input.
        """
        if self.padding == "valid":
            return 0
        if self.padding == "causal":
            return self.dilated_taps - 1
        if self.stride == 1:
            return (self.dilated_taps - 1) // 2
        return positive_part((self.outputs(size) - 1) * self.stride + self.dilated_taps - size) // 2

    def possible_sizes(self, outputs: Size) -> tuple[Size, Size]:
        """(smallest, largest) input size that gives `outputs`: a stride of s merges s neighbouring sizes into one.

        "valid" gives `outputs` = ⌊(n − dilated taps) / s⌋ + 1, and "same" and "causal" give ⌈n / s⌉. Both are solved for n.
        """
        smallest = (outputs - 1) * self.stride + (self.dilated_taps if self.padding == "valid" else 1)
        return smallest, smallest if self.stride == 1 else smallest + self.stride - 1

    def at(self, size: Size) -> "Axis":
        """The axis of a forward convolution whose input has `size` positions."""
        outputs = self.outputs(size)
        return Axis(size, outputs, self.taps, stride_at(self, outputs), self.dilation, self.pad_before(size))


@dataclass(frozen=True)
class TransposedWindow:
    """One axis of Keras' transposed convolution, read as the forward convolution that it transposes.

    Keras turns m inputs into n outputs. The convolution whose transpose this is goes the other way, from n to m.
    """

    taps: int
    stride: int = 1
    dilation: int = 1
    padding: str = "valid"
    output_padding: int | None = None

    @property
    def dilated_taps(self) -> int:
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, inputs: Size) -> Size:
        """n, the output positions of the transposed convolution for `inputs` = m positions."""
        return (inputs - 1) * self.stride + self._last_step

    @property
    def _last_step(self) -> int:
        # What Keras adds to (m − 1)·s, for its two paddings without and with `output_padding`.
        if self.output_padding is None:
            return max(self.dilated_taps, self.stride) if self.padding == "valid" else self.stride
        return (self.dilated_taps if self.padding == "valid" else self.dilated_taps % 2) + self.output_padding

    @property
    def cropped(self) -> int:
        """How many of (m − 1)·s + dilated taps positions Keras cuts off: half of them, rounded down, in front."""
        return 0 if self.padding == "valid" else max(self.dilated_taps - self._last_step, 0)

    def inputs(self, size: Size) -> Size:
        """m for n = `size`. Every m has its own n, so this needs no choice; the caller checks `outputs(m) == n`."""
        return (size - self._last_step) // self.stride + 1

    def at(self, size: Size) -> "Axis":
        """The axis of the convolution from `size` = n positions to m.

        The zeros around its input are what (m − 1)·s + dilated taps asks for beyond n = (m − 1)·s + last step.
        """
        inputs = self.inputs(size)
        return Axis(size, inputs, self.taps, stride_at(self, inputs), self.dilation, self.cropped // 2)


def stride_at(window: Window | TransposedWindow, outputs: Size) -> int:
    """The stride of a window that has so many outputs.

    A single output is not moved at all, whatever the stride, of which an algorithm would make as many positions.
    """
    stride, dilated_taps = window.stride, window.dilated_taps
    return dilated_taps if stride > dilated_taps and is_known(outputs) and outputs == 1 else stride


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: output j reads input positions j·stride + t·dilation − pad_before, t < taps."""

    size: Size
    outputs: Size
    taps: int
    stride: int = 1
    dilation: int = 1
    pad_before: Size = 0

    @property
    def dilated_taps(self) -> int:
        return (self.taps - 1) * self.dilation + 1

    @property
    def padded_size(self) -> Size:
        """Positions of the zero-extended input that some output reads, from the first zero in front."""
        return (self.outputs - 1) * self.stride + self.dilated_taps

    @property
    def pad_after(self) -> Size:
        """Zeros after the input; negative where its last positions are never read."""
        return self.padded_size - self.pad_before - self.size


@dataclass(frozen=True)
class Convolution:
    """A forward convolution: one `Axis` per spatial axis, and the number of groups.

    `is_known` says whether every size is a plain integer.
    """

    axes: tuple[Axis, ...]
    groups: int = 1
    is_known: bool = field(init=False, repr=False, compare=False)
    _hash: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Both are asked for at every call.
        object.__setattr__(self, "is_known", all(map(is_known, self.each("size"))))
        object.__setattr__(self, "_hash", hash((self.axes, self.groups)) if self.is_known else None)

    def __hash__(self) -> int:
        if self._hash is None:
            raise TypeError("A convolution whose sizes are tensors has no hash.")
        return self._hash

    def each(self, name: str) -> tuple[Any, ...]:
        """One property of every axis: `each("stride")` is the tuple of strides."""
        return tuple(getattr(axis, name) for axis in self.axes)

    @property
    def pads(self) -> tuple[tuple[Size, Size], ...]:
        """Zeros (before, after) that every axis is padded with; negative where its last positions are never read."""
        return tuple((axis.pad_before, axis.pad_after) for axis in self.axes)

    @property
    def padding(self) -> tuple[tuple[Size, Size], ...]:
        """`pads` for an operation that by itself leaves out last positions which make no whole step."""
        return tuple(
            (before, 0) if is_known(after) and -axis.stride < after < 0 else (before, after)
            for axis, (before, after) in zip(self.axes, self.pads, strict=True)
        )


@cached
def convolution_of(sizes: Shape, windows: tuple[Window | TransposedWindow, ...], groups: int = 1) -> Convolution:
    """The `Convolution` of windows that move over an input of spatial sizes `sizes`."""
    return Convolution(tuple(window.at(size) for window, size in zip(windows, sizes, strict=True)), groups)
