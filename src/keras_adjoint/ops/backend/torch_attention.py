"""Attention whose derivative can be differentiated: PyTorch's fused kernels have no second derivative."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FUSED = torch.nn.functional.scaled_dot_product_attention


class UnfusedAttention(TorchFunctionMode):
    """Context within which this thread computes attention by matrix products and softmax.

    `torch.nn.attention.sdpa_kernel` would choose that for all threads of the process.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is _FUSED:
            output, _ = torch.ops.aten._scaled_dot_product_attention_math(*args, **(kwargs or {}))
            return output
        return func(*args, **(kwargs or {}))


def twice_differentiable() -> AbstractContextManager[Any]:
    """Context for a function whose derivative may be differentiated, which nothing is where PyTorch records no gradients."""
    return UnfusedAttention() if torch.is_grad_enabled() else nullcontext()
