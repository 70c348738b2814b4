"""PyTorch's convolutions, of tensors and kernels in Keras' layout."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import torch
from torch.nn import functional

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.protocol import Adjoint, Pads
from keras_adjoint.ops.backend.torch_distributed import check_whole_space
from keras_adjoint.ops.backend.torch_one_channel import is_one, one_channel_first, one_channel_last
from keras_adjoint.ops.backend.torch_trace import fixed_shape
from keras_adjoint.ops.geometry import CACHE_SIZE, Convolution, is_known

COPY = 100  # about how many multiply-adds take as long as to copy a number
LARGE_KERNEL = 2**17  # numbers of a kernel that no longer fit into the processor's cache while they move
BLOCK = 32  # channels that move together

# Not `movedim`: ONNX does not take the negative axes that PyTorch's exporter writes for it.
CHANNELS_FIRST = {rank: (0, rank + 1, *range(1, rank + 1)) for rank in (1, 2, 3)}
CHANNELS_LAST = {rank: (0, *range(2, rank + 2), 1) for rank in (1, 2, 3)}
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED_CONVOLUTIONS = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}

Cuts = tuple[slice, ...]


class Padding(NamedTuple):
    """How a convolution that pads both ends alike gives what one with given pads gives."""

    numbers: tuple[int, ...]
    """Zeros at both ends of every axis."""

    kept: Cuts | None = None
    """The outputs that are wanted, or `None` for all."""

    cuts: Cuts | None = None
    """What is cut off x beforehand."""

    zeros: list[int] | None = None
    """What x is padded with beforehand, which copies it."""

    for_gradients: "Padding | None" = None
    """What to do instead where oneDNN would take five times as long or longer to differentiate by the kernel."""


def convolve(x: Tensor, kernel: Tensor, pads: Pads, strides: Sequence[int], dilation: Sequence[int]) -> Tensor:
    rank = len(pads)
    if type(x) is not torch.Tensor:
        check_whole_space(x)
    # A compiler and a tracer may keep sizes free, which are no key of a cache.
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    padding_of = _padding if is_traced else _cached_padding
    shape = fixed_shape(kernel) if is_traced else tuple(kernel.shape)
    padding = padding_of(tuple(x.shape[1:]), tuple(pads), strides, dilation, shape)
    if padding.for_gradients is not None and _is_differentiated(kernel):
        padding = padding.for_gradients
    is_one_channel = not torch.jit.is_tracing() and x.shape[-1] == 1  # `is_one`, without a call
    x = one_channel_first(x, -1) if is_one_channel else x.permute(CHANNELS_FIRST[rank])
    x = x if padding.cuts is None else x[padding.cuts]
    x = x if padding.zeros is None else functional.pad(x, padding.zeros)
    groups = x.shape[1] // kernel.shape[-2]
    y = CONVOLUTIONS[rank](x, _weight(kernel), None, strides, padding.numbers, dilation, groups)
    return (y if padding.kept is None else y[padding.kept]).permute(CHANNELS_LAST[rank])


def _padding(
    x: Sequence[int], pads: Pads, strides: Sequence[int], dilation: Sequence[int], kernel: Sequence[int]
) -> Padding:
    """The fastest `Padding` for given pads. `x` and `kernel` are shapes, the first without the batch."""
    if all(before == after and before >= 0 for before, after in pads):
        padding = Padding(tuple(before for before, _ in pads))
    else:
        padding = _even_padding(x, pads, strides, dilation, kernel) or _copying(pads)
    axes = zip(padding.numbers, kernel, dilation, strict=False)
    is_wide = any(zeros > ((taps - 1) * step + 1) // 2 for zeros, taps, step in axes)
    return Padding(*padding[:-1], for_gradients=_copying(pads)) if is_wide else padding


_cached_padding = lru_cache(CACHE_SIZE)(_padding)


def _copying(pads: Pads) -> Padding:
    """The `Padding` that cuts and pads x beforehand."""
    return Padding((0,) * len(pads), cuts=_cuts(pads), zeros=_zeros(pads))


def _is_differentiated(kernel: Tensor) -> bool:
    is_exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
    return bool(kernel.requires_grad) and torch.is_grad_enabled() and not is_exporting


def _even_padding(
    x: Sequence[int], pads: Pads, strides: Sequence[int], dilation: Sequence[int], kernel: Sequence[int]
) -> Padding | None:
    """Equal padding at both ends of every axis, and the outputs that are then wanted, where that saves time.

    PyTorch's convolutions pad both ends alike. For other pads either x is copied, or a few unused outputs are computed:
    with p ≥ `before` zeros, where s divides p − `before`, the first one wanted is number (p − `before`) / s. `x` and `kernel`
    are shapes, the first without the batch.
    """
    *sizes, all_channels = x
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
    kept = (slice(None), slice(None), *cuts)
    return Padding(tuple(padding), kept) if unused < COPY * padded * all_channels else None


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
    operation = TRANSPOSED_CONVOLUTIONS[rank]
    strides, dilation = convolution.each("stride"), convolution.each("dilation")
    cuts, zeros = _cuts(missing), _zeros(missing)

    def transposed(y: Tensor, kernel: Tensor) -> Tensor:
        if type(y) is not torch.Tensor:
            check_whole_space(y)
        is_narrow = rank > 1 and is_one(y, -2) and is_one(kernel, -2)
        y = y.permute(CHANNELS_FIRST[rank])
        y = y.clone(memory_format=torch.contiguous_format) if is_narrow else y  # see `torch_one_channel`
        x = operation(y, _weight(kernel), None, strides, crops, output_padding, groups, dilation)
        x = x if cuts is None else x[cuts]
        x = x if zeros is None else functional.pad(x, zeros)
        return one_channel_last(x) if is_one(x, 1) else x.permute(CHANNELS_LAST[rank])

    return transposed


def fold(columns: Tensor, convolution: Convolution) -> Tensor:
    one = [1] * (2 - len(convolution.axes))  # `fold` is for two axes
    sizes, taps, dilation, strides = (
        [*one, *convolution.each(name)] for name in ("padded_size", "taps", "dilation", "stride")
    )
    x = functional.fold(columns, sizes, taps, dilation=dilation, stride=strides)
    x = x.squeeze(2) if one else x
    crops = [(-before, -after) for before, after in convolution.pads]
    return _padded(x, crops).permute(CHANNELS_LAST[len(crops)])


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
    size = math.prod(fixed_shape(kernel)) if torch.jit.is_tracing() else kernel.numel()
    if size >= LARGE_KERNEL and _is_moved_by_blocks(kernel):
        *taps, channels, filters = fixed_shape(kernel)
        kernel = kernel.reshape(-1, BLOCK, filters).transpose(1, 2).contiguous().transpose(0, 1).contiguous()
        weight = kernel.view(filters, *taps, channels).permute(0, rank + 1, *range(1, rank + 1))
        # Along one axis the adjoint is faster with channels last, but its gradients are not.
        return weight.contiguous() if rank == 1 and _is_differentiated(kernel) else weight
    weight = kernel.permute(rank + 1, rank, *range(rank))
    # PyTorch's fallback, in float64 or for one filter in one thread, cannot differentiate by a weight of another layout.
    is_one_filter = not torch.jit.is_tracing() and kernel.shape[-1] == 1
    return weight.contiguous() if weight.dtype == torch.float64 or is_one_filter else weight


def _is_moved_by_blocks(kernel: Tensor) -> bool:
    """Whether a large kernel is transposed several times as fast block by block as in one of PyTorch's operations.

    They read a filter at a time, from as many cache lines as there are taps and channels, which are evicted before the next
    filter. A file is to have the one permutation that Keras writes too.
    """
    is_exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
    fits = fixed_shape(kernel)[-2] % BLOCK == 0 and kernel.dtype != torch.float64
    return fits and kernel.device.type == "cpu" and kernel.is_contiguous() and not is_exporting
