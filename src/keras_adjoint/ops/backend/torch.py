"""PyTorch."""

import keras
import torch

from keras_adjoint.ops.backend import BFLOAT16, TF32, map_unrolled, sum_unrolled, torch_conv

NAME = "torch"
_OFFERED = {
    "sequence": ("native", "subpixel", "columns", "fold"),
    "image": ("native", "subpixel", "columns", "fold"),
    "dilated": ("native", "subpixel"),
    "dilated sequence": ("native", "subpixel"),
    "volume": ("native", "subpixel", "columns"),
    "grouped": ("native",),
    "depthwise": ("native", "subpixel"),
    "strided depthwise": ("native", "subpixel", "phases"),
}
CANDIDATES = {"full": _OFFERED, "half": _OFFERED}
FOLDED_RANKS = (1, 2)
WRITES_COLUMNS = ()
UNFOLDS_GROUPS = False
CHANNELS_AT_ONCE = 4
NATIVE_MARGIN = 1.05
LONGEST_SUM_IN_HALF = 2**15
SHIFTS_CONV_TRANSPOSE = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)  # keras-team/keras#22876
convolve = torch_conv.convolve
transposed_convolve = torch_conv.transposed_convolve
fold = torch_conv.fold
sum_sequential = sum_unrolled
map_sequential = map_unrolled


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


def can_transpose(convolution, kind):
    return True


def with_derivatives(form, kernel, y):
    # Operation by operation. PyTorch's own gradients of convolutions, which those of the form would be, take longer.
    return form.x(kernel, y)
