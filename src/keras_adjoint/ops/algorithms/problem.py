"""What an algorithm is: a name, what it can do, how, and how much work that is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from keras_adjoint.ops.algorithms.accumulate import HALF
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution, is_known

ANY_SIZE = 32  # stands for a size that is known only when the graph runs


@dataclass(frozen=True)
class Problem:
    """An adjoint convolution and its sizes, whichever of them are known.

    Attributes:
        convolution: The forward's geometry.
        batch: Number of samples, or `None`.
        channels: Channels of the forward's input.
        filters: Channels of its output.
        device: "cpu" or "gpu".
        dtype: What it is computed in.
    """

    convolution: Convolution
    batch: int | None
    channels: int
    filters: int
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def precision(self):
        """Processors have units of their own for half precision, so that it has rates of its own too."""
        return "half" if self.dtype in HALF else "full"

    @property
    def is_known(self):
        """Whether every spatial size is a plain integer."""
        return self.convolution.is_known

    @property
    def is_plain(self):
        """Whether the kernel is neither grouped nor dilated."""
        return self.convolution.groups == 1 and set(self.convolution.each("dilation")) == {1}

    @property
    def kind(self):
        """Convolutions of one kind are computed in one way, and have rates of their own in `cost_model.json`."""
        if self.is_plain:
            return ("sequence", "image", "volume")[len(self.convolution.axes) - 1]
        if self.convolution.groups == 1:
            return "dilated sequence" if len(self.convolution.axes) == 1 else "dilated"
        if not self.convolution.groups == self.channels == self.filters:
            return "grouped"
        return "depthwise" if self.positions("stride") == 1 else "strided depthwise"

    @property
    def samples(self):
        return self.batch or 1

    def positions(self, name):
        """Product over axes of a property such as "outputs" or "size"."""
        return math.prod([self.known(number) for number in self.convolution.each(name)])

    @staticmethod
    def known(number):
        """A size, or what stands for it as long as it is not known."""
        return number if is_known(number) else ANY_SIZE

    @property
    def inputs(self):
        """Numbers in x."""
        return self.samples * self.positions("size") * self.channels

    @property
    def outputs(self):
        """Numbers in y."""
        return self.samples * self.positions("outputs") * self.filters

    @property
    def kernel(self):
        """Numbers in the kernel."""
        return self.positions("taps") * self.channels // self.convolution.groups * self.filters

    @property
    def blocks(self):
        """Blocks of ∏s positions in x, over all samples."""
        axes = self.convolution.axes
        return self.samples * math.prod([-(-self.known(axis.size) // axis.stride) for axis in axes])

    @property
    def taps_per_phase(self):
        """Taps of the longest phase."""
        return math.prod([-(-axis.taps // axis.stride) for axis in self.convolution.axes])

    @property
    def group(self):
        """(channels, filters) of one group."""
        return self.channels // self.convolution.groups, self.filters // self.convolution.groups


def whole_blocks(problem, channels):
    """As many channels as a dense convolution computes: so many at once, those that are missing in the last block in vain."""
    at_once = current().CHANNELS_AT_ONCE if problem.convolution.groups == 1 else 1
    return -(-channels // at_once) * at_once


@dataclass(frozen=True)
class Work:
    """What an algorithm does to a problem: a matrix product, or a convolution seen as one, and what is around it.

    Attributes:
        rows: Rows of the product.
        depth: Numbers that every number of the product is summed over.
        width: Columns of the product.
        elements: Numbers that are read or written beside the product.
        calls: Operations that it takes.
        repeats: Products of this size, such as one for every group.
        workspace: Numbers that are held at once beside x and y.
    """

    rows: int
    depth: int
    width: int
    elements: int
    calls: int = 1
    repeats: int = 1
    workspace: int = 0


@dataclass(frozen=True)
class Algorithm:
    """One way to compute Aᵀ y.

    Attributes:
        name: What users call it.
        fits: `fits(problem)` says whether it can compute the problem.
        apply: `apply(y, kernel, convolution)` computes.
        work: `work(problem)` is the `Work` that it does.
    """

    name: str
    fits: Callable
    apply: Callable
    work: Callable

    @property
    def is_native(self):
        """Whether it is the backend's own operation, with derivatives of its own."""
        return self.name == "native"
