"""PyTorch."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import keras
import torch

from keras_adjoint.errors import KerasAdjointError
from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.backend import BFLOAT16, TF32, map_unrolled, sum_unrolled, torch_conv, torch_distributed
from keras_adjoint.ops.backend.protocol import Adjoint, Form
from keras_adjoint.ops.backend.torch_derivatives import custom_gradient as custom_gradient
from keras_adjoint.ops.backend.torch_derivatives import (
    exported_vjp,
    is_traced_by_export,
    twice_differentiable,
    without_autocast,
)
from keras_adjoint.ops.backend.torch_derivatives import variables_read as variables_read
from keras_adjoint.ops.backend.torch_host import linear_on_host as linear_on_host
from keras_adjoint.ops.backend.torch_trace import fixed_shape as fixed_shape
from keras_adjoint.ops.backend.torch_trace import known_size as known_size
from keras_adjoint.ops.geometry import Convolution

NAME = "torch"
_CANDIDATES = {
    "sequence": ("native", "subpixel", "columns", "fold"),
    "image": ("native", "subpixel", "columns", "fold"),
    "dilated": ("native", "subpixel"),
    "dilated sequence": ("native", "subpixel"),
    "volume": ("native", "subpixel", "columns"),
    "grouped": ("native",),
    "depthwise": ("native", "subpixel"),
    "strided depthwise": ("native", "subpixel", "phases"),
}
CANDIDATES = {"full": _CANDIDATES, "half": _CANDIDATES}
FOLDED_RANKS: tuple[int, ...] = (1, 2)
WRITES_COLUMNS: tuple[str, ...] = ()
UNFOLDS_GROUPS = False
CHANNELS_AT_ONCE = 4
NATIVE_MARGIN = 1.05
LONGEST_SUM_IN_HALF = 2**15
JIT_CALLS_HOST = True
DIVIDES_VARIABLES = False
RECORDS_LOOPS = False
SHIFTS_CONV_TRANSPOSE = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)  # keras-team/keras#22876
MISCOMPUTES_ONE_COLUMN = torch_conv.MISCOMPUTES_ONE_COLUMN
PROCESS_GROUPS = torch_distributed.PROCESS_GROUPS
check_trained = torch_distributed.check_trained
convolve = torch_conv.convolve
transposed_convolution = torch_conv.transposed_convolution
fold = torch_conv.fold
sum_sequential = sum_unrolled
map_sequential = map_unrolled


def coarse_epsilon() -> float:
    if torch.cuda.is_available():
        return TF32 if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32 else 0.0
    return {"highest": 0.0, "high": TF32, "medium": BFLOAT16}[torch.get_float32_matmul_precision()]


def average_pooling_edges(pad_before: Sequence[Size], pad_after: Sequence[Size]) -> Literal["inside", "replicated"]:
    # Keras pads uneven edges itself here, and repeats the edge instead of leaving it out of the mean.
    # Positions that no window reads, where it is negative, are no padding.
    even = all(before == max(after, 0) for before, after in zip(pad_before, pad_after, strict=True))
    return "inside" if even else "replicated"


def held_dtype(dtype: str) -> str:
    return dtype


def device_of(tensor: Tensor) -> Literal["cpu", "gpu"]:
    return "cpu" if tensor.device.type in ("cpu", "meta") else "gpu"


def signature(tensor: Tensor) -> Hashable:
    # A size that `torch.compile` keeps free is no key. The choice of an algorithm becomes its guards instead.
    if torch.compiler.is_compiling():
        return None
    for size in tensor.shape:
        if type(size) is not int:
            return None
    return tensor.shape, tensor.dtype, tensor.device


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.no_grad()(function)  # as most people run PyTorch, operation by operation


def in_one(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.no_grad()(function)


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    disabled: Callable[..., Any] = torch.compiler.disable(without_autocast()(function))
    return disabled


def wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def eagerly() -> AbstractContextManager[Any]:
    return nullcontext()


def is_dense(tensor: Any) -> bool:
    return not isinstance(tensor, torch.Tensor) or (tensor.layout is torch.strided and not tensor.is_nested)


def is_concrete(tensors: Sequence[Tensor]) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    try:
        return all(tensor.data_ptr() or not tensor.numel() for tensor in tensors)
    except RuntimeError:  # what a transformation works on has no storage
        return False


def static(sizes: Any) -> Any:
    return sizes


def can_transpose(convolution: Convolution, kind: str) -> bool:
    return True


def differentiable(form: Form) -> Adjoint:
    # Operation by operation. PyTorch's own gradients of convolutions, which those of the form would be, take longer.
    return form.prepare()


def vjp(function: Callable[[Any], Any], x: Any, y: Any) -> Any:
    if is_traced_by_export():
        return exported_vjp(function, x, y)
    is_tracing = torch.jit.is_tracing()  # an error ends the trace
    try:
        with twice_differentiable():
            _, transposed = torch.func.vjp(function, x)
        (found,) = transposed(y)
    except RuntimeError as error:
        if not is_tracing:
            raise
        raise KerasAdjointError(
            "`torch.jit.trace`, by which Keras writes ONNX and OpenVINO files on PyTorch, cannot record derivatives, and this "
            "adjoint is computed as one. Save the model as a `.keras` file, load it where Keras runs on TensorFlow, with the "
            f"environment variable KERAS_BACKEND=tensorflow, and export it there. Received: {type(error).__name__}: {error}"
        ) from error
    return found


def linear_vjp(function: Callable[[list[Tensor]], list[Tensor]], zeros: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    found: list[Tensor] = vjp(function, zeros, y)
    return found
