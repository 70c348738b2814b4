"""Sizes and pads of a convolution along one axis, in integer arithmetic alone.

Nothing here looks inside its integers, so a size may also be a scalar tensor that is known only when the
graph runs. That is why the positive part of a number is written as (a + |a|) / 2 and not as `max(a, 0)`.
"""

from dataclasses import dataclass
from functools import lru_cache, wraps

CACHE_SIZE = 1024


def positive_part(number):
    """max(number, 0), also for scalar tensors."""
    return (number + abs(number)) // 2


def is_known(size):
    """Whether a size is a plain integer, rather than `None` or a scalar tensor."""
    return isinstance(size, int)


def cached(function):
    """Make a function remember what it gave for integers; an eager call of a small layer spends most of its time here.

    Sizes that are tensors belong to one graph, and are worked out anew.

    Args:
        function: A function of records and sizes, of which the first argument says `is_known`, or is a tuple of sizes.
    """
    remember = lru_cache(CACHE_SIZE)(function)

    @wraps(function)
    def call(first, *others):
        known = all(map(is_known, first)) if isinstance(first, tuple) else first.is_known
        return (remember if known else function)(first, *others)

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
    def reach(self):
        """Positions from the first tap to the last one, both counted."""
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, size):
        """Output positions for an input of `size` positions."""
        if self.padding == "valid":
            return (size - self.reach) // self.stride + 1
        return (size + self.stride - 1) // self.stride

    def before(self, size):
        """Zeros that the forward puts in front of an input of `size` positions.

        "same" spreads the zeros that the last output needs over both sides, the odd one behind; "causal" puts
        all of them in front, so that no output reads a later input.
        """
        if self.padding == "valid":
            return 0
        if self.padding == "causal":
            return self.reach - 1
        if self.stride == 1:
            return (self.reach - 1) // 2
        return positive_part((self.outputs(size) - 1) * self.stride + self.reach - size) // 2

    def possible_sizes(self, outputs):
        """(smallest, largest) input size that gives `outputs`: a stride of s merges s neighbouring sizes into one.

        "valid" gives `outputs` = ⌊(n − reach) / s⌋ + 1, and "same" and "causal" give ⌈n / s⌉. Both are solved for n.
        """
        smallest = (outputs - 1) * self.stride + (self.reach if self.padding == "valid" else 1)
        return smallest, smallest if self.stride == 1 else smallest + self.stride - 1

    def at(self, size):
        """The axis of a forward convolution whose input has `size` positions."""
        return Axis(size, self.outputs(size), self.taps, self.stride, self.dilation, self.before(size))


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
    def reach(self):
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, inputs):
        """n, the output positions of the transposed convolution for `inputs` = m positions."""
        return (inputs - 1) * self.stride + self._last_step

    @property
    def _last_step(self):
        # What Keras adds behind (m − 1)·s, for its two paddings without and with `output_padding`.
        if self.output_padding is None:
            return max(self.reach, self.stride) if self.padding == "valid" else self.stride
        return (self.reach if self.padding == "valid" else self.reach % 2) + self.output_padding

    @property
    def cropped(self):
        """How many of (m − 1)·s + reach positions Keras cuts off: half of them in front, rounded down, the others behind."""
        return 0 if self.padding == "valid" else max(self.reach - self._last_step, 0)

    def inputs(self, size):
        """m for n = `size`. Every m has its own n, so this needs no choice; the caller checks `outputs(m) == n`."""
        return (size - self._last_step) // self.stride + 1

    def at(self, size):
        """The axis of the convolution from `size` = n positions to m.

        The zeros around its input are what (m − 1)·s + reach asks for beyond n = (m − 1)·s + last step.
        """
        return Axis(size, self.inputs(size), self.taps, self.stride, self.dilation, self.cropped // 2)


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: output j reads input positions j·stride + t·dilation − before, t < taps."""

    size: int
    outputs: int
    taps: int
    stride: int = 1
    dilation: int = 1
    before: int = 0

    @property
    def reach(self):
        return (self.taps - 1) * self.dilation + 1

    @property
    def padded_size(self):
        """Positions of the zero-extended input that some output reads, from the first zero in front."""
        return (self.outputs - 1) * self.stride + self.reach


@dataclass(frozen=True)
class Convolution:
    """A forward convolution: one `Axis` per spatial axis, and the number of groups.

    `is_known` says whether every size is a plain integer.
    """

    axes: tuple[Axis, ...]
    groups: int = 1

    def __post_init__(self):
        # Both are asked for at every call.
        object.__setattr__(self, "is_known", all(map(is_known, self.each("size"))))
        object.__setattr__(self, "_hash", hash((self.axes, self.groups)) if self.is_known else None)

    def __hash__(self):
        return self._hash

    def each(self, name):
        """One property of every axis: `each("stride")` is the tuple of strides."""
        return tuple(getattr(axis, name) for axis in self.axes)

    @property
    def pads(self):
        """Zeros (in front, behind) that every axis is padded with; negative where positions behind are never read."""
        return tuple((axis.before, axis.padded_size - axis.before - axis.size) for axis in self.axes)

    @property
    def padding(self):
        """`pads` for an operation that by itself leaves out positions behind which make no whole step."""
        return tuple(
            (front, 0) if is_known(behind) and -axis.stride < behind < 0 else (front, behind)
            for axis, (front, behind) in zip(self.axes, self.pads, strict=True)
        )


@cached
def convolution_of(sizes, windows, groups=1):
    """The `Convolution` of windows that move over an input of spatial sizes `sizes`."""
    return Convolution(tuple(window.at(size) for window, size in zip(windows, sizes, strict=True)), groups)
