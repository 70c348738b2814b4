"""Derivatives that can be differentiated: some functions of PyTorch have no second derivative, and are computed by others."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from keras_adjoint.ops import Tensor


def _attention(*arguments: Any, **options: Any) -> Tensor:
    output, _ = torch.ops.aten._scaled_dot_product_attention_math(*arguments, **options)
    return output


def _hard_sigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return functional.relu6(x + 3) / 6


# Functions whose derivative PyTorch cannot differentiate, and the same by functions whose derivative it can.
DIFFERENTIABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.scaled_dot_product_attention: _attention,
    functional.hardsigmoid: _hard_sigmoid,
}


class TwiceDifferentiable(TorchFunctionMode):
    """Context within which this thread computes functions by those in `DIFFERENTIABLE`.

    `torch.nn.attention.sdpa_kernel` would choose the kernel of attention for all threads of the process.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return DIFFERENTIABLE.get(func, func)(*args, **(kwargs or {}))


def twice_differentiable() -> AbstractContextManager[Any]:
    """Context for a function whose derivative may be differentiated, which nothing is where PyTorch records no gradients."""
    return TwiceDifferentiable() if torch.is_grad_enabled() else nullcontext()
