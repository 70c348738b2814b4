"""What is to be computed, the work that it takes, and what an algorithm is: a name, what it can do, how, and its work."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution, is_known
from keras_adjoint.ops.precision import HALF

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
    def precision(self) -> Literal["full", "half"]:
        """Processors have units of their own for half precision, so that it has costs of its own too."""
        return "half" if self.dtype in HALF else "full"

    @property
    def is_known(self) -> bool:
        """Whether every spatial size is a plain integer."""
        return self.convolution.is_known

    @property
    def is_plain(self) -> bool:
        """Whether the kernel is neither grouped nor dilated."""
        return self.convolution.groups == 1 and set(self.convolution.each("dilation")) == {1}

    @property
    def kind(self) -> str:
        """The kind of convolution; each has coefficients of its own in `cost_model.json`."""
        if self.is_plain:
            return ("sequence", "image", "volume")[len(self.convolution.axes) - 1]
        if self.convolution.groups == 1:
            return "dilated sequence" if len(self.convolution.axes) == 1 else "dilated"
        if not self.convolution.groups == self.channels == self.filters:
            return "grouped"
        return "depthwise" if self.positions("stride") == 1 else "strided depthwise"

    @property
    def samples(self) -> int:
        return self.batch or 1

    def positions(self, name: str) -> int:
        """Product over axes of a property such as "outputs" or "size"."""
        return math.prod([self.known(number) for number in self.convolution.each(name)])

    @staticmethod
    def known(size: Size) -> int:
        """A size, or what stands for it as long as it is not known."""
        return size if is_known(size) else ANY_SIZE

    @property
    def inputs(self) -> int:
        """Numbers in x."""
        return self.samples * self.positions("size") * self.channels

    @property
    def outputs(self) -> int:
        """Numbers in y."""
        return self.samples * self.positions("outputs") * self.filters

    @property
    def kernel(self) -> int:
        """Numbers in the kernel."""
        return self.positions("taps") * self.channels // self.convolution.groups * self.filters

    @property
    def blocks(self) -> int:
        """Blocks of ∏s positions in x, over all samples."""
        axes = self.convolution.axes
        return self.samples * math.prod([-(-self.known(axis.size) // axis.stride) for axis in axes])

    @property
    def taps_per_phase(self) -> int:
        """Taps of the longest phase."""
        return math.prod([-(-axis.taps // axis.stride) for axis in self.convolution.axes])

    @property
    def group(self) -> tuple[int, int]:
        """(channels, filters) of one group."""
        return self.channels // self.convolution.groups, self.filters // self.convolution.groups


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
    """An algorithm that computes Aᵀ y.

    Attributes:
        name: What users call it.
        fits: `fits(problem)` says whether it can compute the problem.
        prepare: `prepare(convolution)` is the function (y, kernel) ↦ Aᵀ y, for `y` of shape `(batch, *outputs, filters)` and
            `kernel` of shape `(*taps, channels / groups, filters)`. What depends on sizes alone is computed beforehand.
        work: `work(problem)` is the `Work` that it does.
    """

    name: str
    fits: Callable[[Problem], bool]
    prepare: Callable[[Convolution], Adjoint]
    work: Callable[[Problem], Work]

    @property
    def is_native(self) -> bool:
        """Whether it is the backend's own operation, with derivatives of its own."""
        return self.name == "native"

    def apply(self, y: Tensor, kernel: Tensor, convolution: Convolution) -> Tensor:
        """Aᵀ y."""
        return self.prepare(convolution)(y, kernel)
