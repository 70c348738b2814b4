"""Intervals and boxes of positions, and how the positions along an axis of an output read those along one of an input."""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from keras_adjoint.ops.geometry import Axis


class Interval(NamedTuple):
    """Positions start … stop − 1 along an axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def hull(self, other: "Interval") -> "Interval":
        """The smallest interval that has both."""
        return Interval(min(self.start, other.start), max(self.stop, other.stop))

    def within(self, size: int) -> "Interval":
        """What of it lies in an axis of some size; the nearest position of the axis, if that is nothing."""
        start = min(max(self.start, 0), size - 1)
        return Interval(start, max(min(self.stop, size), start + 1))


Box: TypeAlias = tuple[Interval, ...]  # of a tensor without its batch axis


def whole(shape: tuple[int, ...]) -> Box:
    """The box of a whole tensor."""
    return tuple(Interval(0, size) for size in shape)


def hull(a: Box, b: Box) -> Box:
    """The smallest box that has both."""
    return tuple(one.hull(other) for one, other in zip(a, b, strict=True))


def sizes(box: Box) -> tuple[int, ...]:
    """The shape of a box."""
    return tuple(interval.size for interval in box)


def slices(box: Box, origin: Box | None = None) -> tuple[slice, ...]:
    """The slices of a box, in the whole tensor or in what begins where `origin` does."""
    starts = [0] * len(box) if origin is None else [interval.start for interval in origin]
    return tuple(slice(one.start - start, one.stop - start) for one, start in zip(box, starts, strict=True))


@dataclass(frozen=True)
class Along:
    """How an axis of an input is read, by one axis of the output: position by position.

    Attributes:
        axis: The axis of the output, the batch axis not counted.
        size: Positions of the axis of the input.
    """

    axis: int
    size: int

    @property
    def rate(self) -> Fraction:
        """Positions of the input for one of the output."""
        return Fraction(1)

    @property
    def beyond_end(self) -> int:
        """How many positions beyond the end change what the last ones are, though all that these read is there."""
        return 0

    def reads(self, made: Interval) -> Interval:
        """The input positions that output positions depend on, beyond the edges as well."""
        return made

    def read(self, made: Interval) -> Interval:
        """Those of them that exist; one position, if none does."""
        return self.reads(made).within(self.size)


@dataclass(frozen=True)
class Shifted(Along):
    """Output p is input p + `by`."""

    by: int

    def reads(self, made: Interval) -> Interval:
        return Interval(made.start + self.by, made.stop + self.by)


@dataclass(frozen=True)
class Windowed(Along):
    """A convolution's outputs read windows: output j reads from j·stride − pad_before on."""

    window: Axis

    @property
    def rate(self) -> Fraction:
        return Fraction(self.window.stride)

    def reads(self, made: Interval) -> Interval:
        return reach(self.window, made)


@dataclass(frozen=True)
class Transposed(Along):
    """The adjoint of a convolution: position p reads the outputs j whose windows have it."""

    window: Axis

    @property
    def rate(self) -> Fraction:
        return Fraction(1, self.window.stride)

    def reads(self, made: Interval) -> Interval:
        s, p, d = self.window.stride, self.window.pad_before, self.window.dilated_taps
        return Interval(-((d - 1 - p - made.start) // s), (made.stop - 1 + p) // s + 1)


@dataclass(frozen=True)
class Covered(Transposed):
    """The switches of max pooling: position p reads all positions of the windows that have it, or of the next one."""

    @property
    def rate(self) -> Fraction:
        return Fraction(1)

    def reads(self, made: Interval) -> Interval:
        pooled = super().reads(made)
        return reach(self.window, Interval(pooled.start, max(pooled.stop, pooled.start + 1)))


@dataclass(frozen=True)
class Repeated(Along):
    """Up-sampling: output p reads input ⌊(p + shift) / factor⌋, and so many neighbours on both sides."""

    factor: int
    shift: int = 0
    neighbours: int = 0

    @property
    def rate(self) -> Fraction:
        return Fraction(1, self.factor)

    def reads(self, made: Interval) -> Interval:
        first, last = (made.start + self.shift) // self.factor, (made.stop - 1 + self.shift) // self.factor
        return Interval(first - self.neighbours, last + self.neighbours + 1)


@dataclass(frozen=True)
class Collected(Along):
    """The adjoint of up-sampling: output q reads inputs q·factor … (q + 1)·factor − 1, and those of its neighbours."""

    factor: int
    neighbours: int = 0

    @property
    def rate(self) -> Fraction:
        return Fraction(self.factor)

    def reads(self, made: Interval) -> Interval:
        return Interval((made.start - self.neighbours) * self.factor, (made.stop + self.neighbours) * self.factor)


def reach(window: Axis, outputs: Interval) -> Interval:
    """The positions of the zero-extended input between the first and the last tap of some outputs of a convolution."""
    start = outputs.start * window.stride - window.pad_before
    return Interval(start, start + (outputs.size - 1) * window.stride + window.dilated_taps)


def part_of(window: Axis, inputs: Interval, outputs: Interval) -> Axis:
    """The same convolution from some of its inputs to some of its outputs: zeros are where there is no input."""
    before = window.pad_before + inputs.start - outputs.start * window.stride
    return Axis(inputs.size, outputs.size, window.taps, window.stride, window.dilation, before)
