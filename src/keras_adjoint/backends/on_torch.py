"""PyTorch."""

import math
from itertools import chain

import torch
from torch.nn import functional

from keras_adjoint.backends import BFLOAT16, TF32, written_down, written_out
from keras_adjoint.geometry import is_known, remembered

NAME = "torch"
_OFFERED = {
    "sequence": ("native", "subpixel", "columns", "fold"),
    "image": ("native", "subpixel", "columns", "fold"),
    "dilated": ("native", "subpixel"),
    "volume": ("native", "subpixel", "columns"),
    "grouped": ("native",),
    "depthwise": ("native", "subpixel"),
    "strided depthwise": ("native", "subpixel", "phases"),
}
OFFERED = {"full": _OFFERED, "half": _OFFERED}
FOLDED_RANKS = (1, 2)
UNFOLDS_GROUPS = False
CHANNELS_AT_ONCE = 1
PROMISE = 1.25  # all but its own operation is differentiated operation by operation, which may take 1.7 times as long
LONGEST_SUM_IN_HALF = 2**15
summed = written_out
in_turn = written_down
COPY = 100  # about how many multiply-adds take as long as to copy a number


def coarse_epsilon():
    if torch.cuda.is_available():
        return TF32 if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32 else 0.0
    return {"highest": 0.0, "high": TF32, "medium": BFLOAT16}[torch.get_float32_matmul_precision()]


def average_pooling_edges(before, after):
    # Keras pads uneven edges itself here, and repeats the edge instead of leaving it out of the mean.
    return "inside" if all(b == a for b, a in zip(before, after, strict=True)) else "replicated"


def device_of(tensor):
    return "cpu" if tensor.device.type in ("cpu", "meta") else "gpu"


def compiled(function):
    return torch.no_grad()(function)  # as most people run PyTorch, operation by operation


def wait(tensor):
    if tensor.is_cuda:
        torch.cuda.synchronize()


def known_size(size):
    # `torch.jit.trace` makes a tensor of every size. Asked for its integer, it says the size of its example.
    return int(size) if isinstance(size, torch.Tensor) else size


def convolve(x, kernel, pads, strides, dilation):
    x, weight = _channels_first(x), _weight(kernel)
    padding, cuts = [0] * len(pads), None
    if all(front == behind and front >= 0 for front, behind in pads):
        padding = [front for front, _ in pads]
    elif even := _even_padding(x.shape[1:], pads, strides, dilation, weight.shape):
        padding, cuts = even
    else:
        x = _padded(x, pads)
    operation = getattr(functional, f"conv{len(pads)}d")
    y = operation(x, weight, None, strides, padding, dilation, x.shape[1] // weight.shape[1])
    return _channels_last(y if cuts is None else y[:, :, *cuts])


def _even_padding(x, pads, strides, dilation, weight):
    """As many zeros on both ends of every axis, and the outputs that are then wanted, where that saves time.

    PyTorch's convolutions pad both ends alike. For other pads x is copied, or else a few outputs are computed in vain:
    with p ≥ front zeros, where s divides p − front, the first one wanted is number (p − front) / s. `x` and `weight` are
    shapes, the first without the batch.
    """
    all_channels, *sizes = x
    if not all(is_known(number) and number >= 0 for number in (*sizes, *chain(*pads))):
        return None
    padding, cuts, padded, computed, wanted = [], [], 1, 1, 1
    for size, (front, behind), stride, step, taps in zip(sizes, pads, strides, dilation, weight[2:], strict=True):
        reach = (taps - 1) * step + 1
        skipped = -(-max(0, behind - front) // stride)
        even = front + skipped * stride
        outputs = (front + size + behind - reach) // stride + 1
        padding.append(even)
        cuts.append(slice(skipped, skipped + outputs))
        padded *= front + size + behind
        computed *= (2 * even + size - reach) // stride + 1
        wanted *= outputs
    filters, channels, *taps = weight
    in_vain = (computed - wanted) * math.prod(taps) * filters * channels
    return (padding, cuts) if in_vain < COPY * padded * all_channels else None


def transposed_convolve(y, kernel, convolution):
    operation, arguments, missing = _transposition(convolution)
    return _channels_last(_padded(operation(_channels_first(y), _weight(kernel), None, *arguments), missing))


@remembered
def _transposition(convolution):
    """PyTorch's operation, its arguments, and the zeros that are then missing.

    It crops both ends alike and adds zeros behind; what neither can do is missing.
    """
    axes = convolution.axes
    crops = [max(0, min(front, behind)) for front, behind in convolution.pads]
    behind = [
        extra if 0 < (extra := crop - after) < max(axis.stride, axis.dilation) else 0
        for axis, crop, (_, after) in zip(axes, crops, convolution.pads, strict=True)
    ]
    missing = []
    for axis, crop, extra in zip(axes, crops, behind, strict=True):
        front, length = crop - axis.before, axis.padded_size - 2 * crop + extra
        missing.append((front, axis.size - length - front))
    operation = getattr(functional, f"conv_transpose{len(axes)}d")
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


def can_transpose(convolution, kind):
    return True


def with_derivatives(form, kernel, y):
    return form.x(kernel, y)


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
    rank = kernel.ndim - 2
    weight = kernel.permute(rank + 1, rank, *range(rank))
    # What PyTorch falls back on in float64 cannot differentiate by a weight that lies otherwise in memory.
    return weight.contiguous() if weight.dtype == torch.float64 else weight
