"""PyTorch's convolutions, of tensors and kernels in Keras' layout."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch.nn import functional

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.protocol import Adjoint, Pads
from keras_adjoint.ops.geometry import Convolution, is_known

COPY = 100  # about how many multiply-adds take as long as to copy a number
LARGE_KERNEL = 2**17  # numbers of a kernel that no longer fit into the processor's cache while they move
BLOCK = 32  # channels that move together

Cuts = tuple[slice, ...]


def convolve(x: Tensor, kernel: Tensor, pads: Pads, strides: Sequence[int], dilation: Sequence[int]) -> Tensor:
    x = _channels_first(x)
    padding, cuts = _padding_and_cuts(x.shape[1:], pads, strides, dilation, kernel.shape)
    if padding is None or _slows_gradient(padding, kernel, dilation):
        x, padding, cuts = _padded(x, pads), [0] * len(pads), None
    operation = getattr(functional, f"conv{len(pads)}d")
    y = operation(x, _weight(kernel), None, strides, padding, dilation, x.shape[1] // kernel.shape[-2])
    return _channels_last(y if cuts is None else y[:, :, *cuts])


def _padding_and_cuts(
    x: Sequence[int], pads: Pads, strides: Sequence[int], dilation: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int] | None, list[slice] | None]:
    """(padding, cuts): the outputs wanted are those at `cuts`, or all; (`None`, `None`) if x has to be copied."""
    if all(before == after and before >= 0 for before, after in pads):
        return [before for before, _ in pads], None
    return _even_padding(x, pads, strides, dilation, kernel) or (None, None)


def _slows_gradient(padding: Sequence[int], kernel: Tensor, dilation: Sequence[int]) -> bool:
    """Whether the kernel is differentiated, for which oneDNN takes five times as long or longer with such wide padding."""
    axes = zip(padding, kernel.shape, dilation, strict=False)
    wide = any(zeros > ((taps - 1) * step + 1) // 2 for zeros, taps, step in axes)
    return wide and _is_differentiated(kernel)


def _is_differentiated(kernel: Tensor) -> bool:
    return bool(kernel.requires_grad) and torch.is_grad_enabled() and not _is_exporting()


def _is_exporting() -> bool:
    return bool(torch.compiler.is_exporting() or torch.jit.is_tracing())


def _even_padding(
    x: Sequence[int], pads: Pads, strides: Sequence[int], dilation: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[slice]] | None:
    """Equal padding at both ends of every axis, and the outputs that are then wanted, where that saves time.

    PyTorch's convolutions pad both ends alike. For other pads either x is copied, or a few unused outputs are computed:
    with p ≥ `before` zeros, where s divides p − `before`, the first one wanted is number (p − `before`) / s. `x` and `kernel`
    are shapes, the first without the batch.
    """
    all_channels, *sizes = x
    if not all(is_known(number) and number >= 0 for number in (*sizes, *chain(*pads))):
        return None
    padding, cuts, padded, computed, wanted = [], [], 1, 1, 1
    for size, (before, after), stride, step, taps in zip(sizes, pads, strides, dilation, kernel, strict=False):
        dilated_taps = (taps - 1) * step + 1
        skipped = -(-max(0, after - before) // stride)
        even = before + skipped * stride
        outputs = (before + size + after - dilated_taps) // stride + 1
        padding.append(even)
        cuts.append(slice(skipped, skipped + outputs))
        padded *= before + size + after
        computed *= (2 * even + size - dilated_taps) // stride + 1
        wanted *= outputs
    *all_taps, channels, filters = kernel
    unused = (computed - wanted) * math.prod(all_taps) * filters * channels
    return (padding, cuts) if unused < COPY * padded * all_channels else None


def transposed_convolution(convolution: Convolution) -> Adjoint:
    # PyTorch crops both ends alike and adds zeros at the end; what neither can do is cut and padded afterwards.
    crops, output_padding, missing = [], [], []
    for axis in convolution.axes:
        before, after = axis.pad_before, axis.pad_after
        crop = max(0, min(before, after))
        lacks = crop - after
        extra = lacks if 0 < lacks < max(axis.stride, axis.dilation) else 0
        start, length = crop - before, axis.padded_size - 2 * crop + extra
        crops.append(crop)
        output_padding.append(extra)
        missing.append((start, axis.size - length - start))
    rank, groups = len(crops), convolution.groups
    operation = getattr(functional, f"conv_transpose{rank}d")
    strides, dilation = convolution.each("stride"), convolution.each("dilation")
    cuts, zeros = _cuts(missing), _zeros(missing)
    channels_first, channels_last = (0, rank + 1, *range(1, rank + 1)), (0, *range(2, rank + 2), 1)

    def transposed(y: Tensor, kernel: Tensor) -> Tensor:
        y = y.permute(channels_first)
        x = operation(y, _weight(kernel), None, strides, crops, output_padding, groups, dilation)
        x = x if cuts is None else x[cuts]
        x = x if zeros is None else functional.pad(x, zeros)
        return x.permute(channels_last)

    return transposed


def fold(columns: Tensor, convolution: Convolution) -> Tensor:
    one = [1] * (2 - len(convolution.axes))  # `fold` is for two axes
    sizes, taps, dilation, strides = (
        [*one, *convolution.each(name)] for name in ("padded_size", "taps", "dilation", "stride")
    )
    x = functional.fold(columns, sizes, taps, dilation=dilation, stride=strides)
    x = x.squeeze(2) if one else x
    crops = [(-before, -after) for before, after in convolution.pads]
    return _channels_last(_padded(x, crops))


def _channels_first(x: Tensor) -> Tensor:
    # Not `movedim`: ONNX does not take the negative axes that PyTorch's exporter writes for it.
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, *range(2, x.ndim), 1)


def _padded(x: Tensor, pads: Pads) -> Tensor:
    """Zeros (before, after) of every spatial axis; negative numbers of them cut off, which copies nothing."""
    cuts, zeros = _cuts(pads), _zeros(pads)
    x = x if cuts is None else x[cuts]
    return x if zeros is None else functional.pad(x, zeros)


def _cuts(pads: Pads) -> Cuts | None:
    """What to keep of a tensor with the channels first, or `None` for all of it."""
    if not any(number < 0 for pair in pads for number in pair):
        return None
    kept = [slice(-before if before < 0 else 0, after if after < 0 else None) for before, after in pads]
    return (slice(None), slice(None), *kept)


def _zeros(pads: Pads) -> list[int] | None:
    """What PyTorch's `pad` takes, or `None` where there is nothing to pad."""
    if not any(number > 0 for pair in pads for number in pair):
        return None
    return [max(number, 0) for pair in reversed(pads) for number in pair]


def _weight(kernel: Tensor) -> Tensor:
    """The kernel with filters and channels in front, as PyTorch has it."""
    rank = kernel.ndim - 2
    if kernel.numel() >= LARGE_KERNEL and _is_moved_by_blocks(kernel):
        *taps, channels, filters = kernel.shape
        kernel = kernel.reshape(-1, BLOCK, filters).transpose(1, 2).contiguous().transpose(0, 1).contiguous()
        weight = kernel.view(filters, *taps, channels).permute(0, rank + 1, *range(1, rank + 1))
        # Along one axis the adjoint is faster with channels last, but its gradients are not.
        return weight.contiguous() if rank == 1 and _is_differentiated(kernel) else weight
    weight = kernel.permute(rank + 1, rank, *range(rank))
    # PyTorch's fallback in float64 cannot differentiate by a weight with another layout in memory.
    return weight.contiguous() if weight.dtype == torch.float64 else weight


def _is_moved_by_blocks(kernel: Tensor) -> bool:
    """Whether a large kernel is transposed several times as fast block by block as in one of PyTorch's operations.

    They read a filter at a time, from as many cache lines as there are taps and channels, which are evicted before the next
    filter. A file is to have the one permutation that Keras writes too.
    """
    fits = kernel.shape[-2] % BLOCK == 0 and kernel.dtype != torch.float64
    return fits and kernel.device.type == "cpu" and kernel.is_contiguous() and not _is_exporting()
