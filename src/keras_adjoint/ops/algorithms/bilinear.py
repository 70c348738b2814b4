"""The trilinear form ⟨A x, y⟩ of a convolution, from which the adjoint has its derivatives.

The form is linear in x, in the kernel K and in y. Its gradients are therefore bilinear in the two others:

    by y: A x, the forward;    by x: Aᵀ y, the adjoint;    by K: the gradient of the forward's kernel.

Each of these, contracted with a tensor of its own shape, is the form again. So the derivatives of each of the three are
the other two, to every order: no derivative of an adjoint costs more than what training the forward costs.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any, Self

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms.problem import Algorithm
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution
from keras_adjoint.ops.precision import HALF
from keras_adjoint.ops.window import window


@dataclass(frozen=True)
class BilinearForm:
    """⟨A x, y⟩; `x`, `y` and `kernel` are the gradients by the argument that they are named after.

    Attributes:
        convolution: The geometry of A.
        algorithm: The algorithm that computes Aᵀ y.
    """

    convolution: Convolution
    algorithm: Algorithm

    @property
    def is_native(self) -> bool:
        """Whether the adjoint is the backend's own operation."""
        return self.algorithm.is_native

    def prepare(self) -> Adjoint:
        """The function (y, kernel) ↦ Aᵀ y."""
        return self.algorithm.prepare(self.convolution)

    def x(self, y: Tensor, kernel: Tensor) -> Tensor:
        """Aᵀ y."""
        return self.algorithm.apply(y, kernel, self.convolution)

    def y(self, x: Tensor, kernel: Tensor) -> Tensor:
        """A x."""
        return forward(x, kernel, self.convolution)

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of the forward's kernel, for backends whose own is slow."""
        return kernel_gradient(x, y, self.convolution)

    def at(self, convolution: Convolution) -> Self:
        """The form of another convolution with the same kind of kernel, by the same algorithm."""
        return replace(self, convolution=convolution)

    def kernel_shape(self, x: Tensor, y: Tensor) -> tuple[int, ...]:
        """The shape of the kernel, `(*taps, channels / groups, filters)`."""
        return (*self.convolution.each("taps"), x.shape[-1] // self.convolution.groups, y.shape[-1])


def forward(x: Tensor, kernel: Tensor, convolution: Convolution) -> Tensor:
    """A x for `x` of shape `(batch, *sizes, channels)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    strides, dilation = convolution.each("stride"), convolution.each("dilation")
    return current().convolve(x, kernel, convolution.padding, strides, dilation)


def kernel_gradient(x: Tensor, y: Tensor, convolution: Convolution) -> Tensor:
    """The gradient of ⟨A x, y⟩ by the kernel of A, tap by tap, summed in float32 or better.

    Output j reads position j·s + t·d − p with the weight K[t], for a padding of p. So ⟨A x, y⟩ has the gradient
    Σ_j x[j·s + t·d − p] ⊗ y[j] by K[t]: a product of matrices that sums over all outputs of all samples, or one per group.

    Args:
        x: Tensor of shape `(batch, *sizes, channels)`.
        y: Tensor of shape `(batch, *outputs, filters)`.
        convolution: The geometry of A.

    Returns:
        A tensor of shape `(*taps, channels / groups, filters)`.
    """
    dtype, groups = ops.dtype(x), convolution.groups
    if dtype in HALF:
        x, y = ops.cast(x, "float32"), ops.cast(y, "float32")
    rows = by_group(y, groups)

    def of_tap(blocks: Tensor, *cuts: Any) -> Tensor:
        read = by_group(blocks[(slice(None), *cuts)], groups)
        return ops.swapaxes(read, 1, 2) @ rows  # `ops.matmul` would compute float64 in float32 on PyTorch

    matrices = current().map_sequential(of_tap, _in_blocks(x, convolution), _reads(convolution))
    gradient = ops.transpose(ops.stack(matrices), (0, 2, 1, 3))
    shape = (*convolution.each("taps"), gradient.shape[1], y.shape[-1])
    return ops.cast(ops.reshape(gradient, shape), dtype)


def by_group(tensor: Tensor, groups: int) -> Tensor:
    """A matrix for every group, with a row for every position of every sample: `(groups, rows, channels / groups)`."""
    rows = ops.reshape(tensor, (-1, groups, tensor.shape[-1] // groups))
    return ops.transpose(rows, (1, 0, 2))


def _in_blocks(x: Tensor, convolution: Convolution) -> Tensor:
    """`x` from where the first tap begins to read, every axis split into blocks of s positions."""
    axes = convolution.axes
    counts = [axis.outputs + (axis.taps - 1) * axis.dilation // axis.stride for axis in axes]
    lengths = [count * axis.stride for count, axis in zip(counts, axes, strict=True)]
    batch, *_, channels = ops.shape(x)
    split = itertools.chain.from_iterable((count, axis.stride) for count, axis in zip(counts, axes, strict=True))
    return ops.reshape(window(x, [-axis.pad_before for axis in axes], lengths), (batch, *split, channels))


def _reads(convolution: Convolution) -> list[tuple[Any, ...]]:
    """For every tap, what all outputs read of the blocks: the tap at t·d = q·s + r reads position r from block q on."""
    reads = []
    for tap in itertools.product(*(range(axis.taps) for axis in convolution.axes)):
        cuts: list[Any] = []
        for number, axis in zip(tap, convolution.axes, strict=True):
            block, position = divmod(number * axis.dilation, axis.stride)
            cuts += [slice(block, block + axis.outputs), position]
        reads.append(tuple(cuts))
    return reads
