"""PyTorch's convolutions, of tensors and kernels that lie as Keras has them."""

import math
from itertools import chain

import torch
from torch.nn import functional

from keras_adjoint.ops.geometry import cached, is_known

COPY = 100  # about how many multiply-adds take as long as to copy a number
LARGE_KERNEL = 2**17  # numbers of a kernel that no longer stay in the processor while they move
BLOCK = 32  # channels that move together


def convolve(x, kernel, pads, strides, dilation):
    x = _channels_first(x)
    padding, cuts = _padding_and_cuts(x.shape[1:], pads, strides, dilation, kernel.shape)
    if padding is None or _slows_gradient(padding, kernel, dilation):
        x, padding, cuts = _padded(x, pads), [0] * len(pads), None
    operation = getattr(functional, f"conv{len(pads)}d")
    y = operation(x, _weight(kernel), None, strides, padding, dilation, x.shape[1] // kernel.shape[-2])
    return _channels_last(y if cuts is None else y[:, :, *cuts])


def _padding_and_cuts(x, pads, strides, dilation, kernel):
    """(padding, cuts): the outputs that are wanted are those at `cuts`, or all; (`None`, `None`) if x has to be copied."""
    if all(front == behind and front >= 0 for front, behind in pads):
        return [front for front, _ in pads], None
    return _even_padding(x, pads, strides, dilation, kernel) or (None, None)


def _slows_gradient(padding, kernel, dilation):
    """Whether the kernel is differentiated, for which oneDNN takes five times as long or longer with such wide padding."""
    axes = zip(padding, kernel.shape, dilation, strict=False)
    far = any(zeros > ((taps - 1) * step + 1) // 2 for zeros, taps, step in axes)
    return far and _is_differentiated(kernel)


def _is_differentiated(kernel):
    return kernel.requires_grad and torch.is_grad_enabled() and not _is_for_a_file()


def _is_for_a_file():
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _even_padding(x, pads, strides, dilation, kernel):
    """As many zeros on both ends of every axis, and the outputs that are then wanted, where that saves time.

    PyTorch's convolutions pad both ends alike. For other pads x is copied, or else a few outputs are computed in vain:
    with p ≥ front zeros, where s divides p − front, the first one wanted is number (p − front) / s. `x` and `kernel` are
    shapes, the first without the batch.
    """
    all_channels, *sizes = x
    if not all(is_known(number) and number >= 0 for number in (*sizes, *chain(*pads))):
        return None
    padding, cuts, padded, computed, wanted = [], [], 1, 1, 1
    for size, (front, behind), stride, step, taps in zip(sizes, pads, strides, dilation, kernel, strict=False):
        reach = (taps - 1) * step + 1
        skipped = -(-max(0, behind - front) // stride)
        even = front + skipped * stride
        outputs = (front + size + behind - reach) // stride + 1
        padding.append(even)
        cuts.append(slice(skipped, skipped + outputs))
        padded *= front + size + behind
        computed *= (2 * even + size - reach) // stride + 1
        wanted *= outputs
    *taps, channels, filters = kernel
    in_vain = (computed - wanted) * math.prod(taps) * filters * channels
    return (padding, cuts) if in_vain < COPY * padded * all_channels else None


def transposed_convolve(y, kernel, convolution):
    operation, arguments, missing = _transposition(convolution)
    return _channels_last(_padded(operation(_channels_first(y), _weight(kernel), None, *arguments), missing))


@cached
def _transposition(convolution):
    """PyTorch's operation, its arguments, and the zeros that are then missing.

    It crops both ends alike and adds zeros behind; what neither can do is missing.
    """
    crops, behind, missing = [], [], []
    for axis, (before, after) in zip(convolution.axes, convolution.pads, strict=True):
        crop = max(0, min(before, after))
        lacks = crop - after
        extra = lacks if 0 < lacks < max(axis.stride, axis.dilation) else 0
        front, length = crop - before, axis.padded_size - 2 * crop + extra
        crops.append(crop)
        behind.append(extra)
        missing.append((front, axis.size - length - front))
    operation = getattr(functional, f"conv_transpose{len(crops)}d")
    arguments = (convolution.each("stride"), crops, behind, convolution.groups, convolution.each("dilation"))
    return operation, arguments, tuple(missing)


def fold(columns, convolution):
    one = [1] * (2 - len(convolution.axes))  # `fold` is for two axes
    sizes, taps, dilation, strides = (
        [*one, *convolution.each(name)] for name in ("padded_size", "taps", "dilation", "stride")
    )
    x = functional.fold(columns, sizes, taps, dilation=dilation, stride=strides)
    x = x.squeeze(2) if one else x
    crops = [(-front, -behind) for front, behind in convolution.pads]
    return _channels_last(_padded(x, crops))


def _channels_first(x):
    # Not `movedim`: ONNX does not take the negative axes that PyTorch's exporter writes for it.
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def _channels_last(x):
    return x.permute(0, *range(2, x.ndim), 1)


def _padded(x, pads):
    """Zeros (in front, behind) of every spatial axis; fewer than none are cut off, which copies nothing."""
    if any(zeros < 0 for pair in pads for zeros in pair):
        cuts = [slice(-front if front < 0 else 0, behind if behind < 0 else None) for front, behind in pads]
        x = x[:, :, *cuts]
    if any(zeros > 0 for pair in pads for zeros in pair):
        x = functional.pad(x, [max(zeros, 0) for pair in reversed(pads) for zeros in pair])
    return x


def _weight(kernel):
    """The kernel with filters and channels in front, as PyTorch has it."""
    rank = kernel.ndim - 2
    if _is_better_moved_by_us(kernel):
        *taps, channels, filters = kernel.shape
        kernel = kernel.reshape(-1, BLOCK, filters).transpose(1, 2).contiguous().transpose(0, 1).contiguous()
        weight = kernel.view(filters, *taps, channels).permute(0, rank + 1, *range(1, rank + 1))
        # Along one axis the adjoint is faster with channels last, but its gradients are not.
        return weight.contiguous() if rank == 1 and _is_differentiated(kernel) else weight
    weight = kernel.permute(rank + 1, rank, *range(rank))
    # What PyTorch falls back on in float64 cannot differentiate by a weight that lies otherwise in memory.
    return weight.contiguous() if weight.dtype == torch.float64 else weight


def _is_better_moved_by_us(kernel):
    """Whether a kernel moves several times as fast block by block as in the one go in which PyTorch's operations move it.

    They read a filter at a time, from as many lines of memory as there are taps and channels, which the processor forgets
    before the next filter. A file is to have the one permutation that Keras writes too.
    """
    large = kernel.numel() >= LARGE_KERNEL and kernel.shape[-2] % BLOCK == 0 and kernel.dtype != torch.float64
    lies = kernel.device.type == "cpu" and kernel.is_contiguous()
    return large and lies and not _is_for_a_file()
