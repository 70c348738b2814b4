"""Derivatives that can be differentiated: some functions of PyTorch have no second derivative, and are computed by others."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from keras_adjoint.errors import KerasAdjointError
from keras_adjoint.ops import Tensor


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(groups, dim=-3) for each in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    kept = None
    if is_causal:
        kept = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    elif attn_mask is not None:
        kept = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -math.inf
        scores = scores if attn_mask is kept else scores + attn_mask.masked_fill(~kept, 0)
    if kept is None:
        weights = scores.softmax(-1)
    else:  # where nothing is kept, PyTorch's attention gives zeros
        weights = scores.masked_fill(~kept, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~kept, 0)
    return functional.dropout(weights, dropout_p) @ value


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


# --- functions with a derivative of their own


def custom_gradient(
    function: Callable[[Sequence[Tensor]], Tensor],
    gradient: Callable[[Sequence[Tensor], Tensor], list[Tensor]],
    operands: Sequence[Tensor],
) -> Tensor:
    """See the protocol `Backend`."""
    found: Tensor = _CustomGradient.apply(function, gradient, *operands)
    return found


class _CustomGradient(torch.autograd.Function):
    @staticmethod
    def forward(function: Any, gradient: Any, *operands: Tensor) -> Tensor:
        return function([each.detach() for each in operands]).clone()  # an operand that is returned would be no result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.gradient, *operands = inputs
        ctx.save_for_backward(*operands)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise KerasAdjointError(
            "PyTorch has derivatives of this function in reverse alone. Use `torch.func.vjp`, `torch.func.jacrev` or "
            "`torch.autograd.functional.jvp`, which takes two of those. Received: a call within `torch.func.jvp` or "
            "`torch.func.jacfwd`"
        )

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *ctx.gradient(ctx.saved_tensors, cotangent))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """One call for each, as their loops end at different times."""
        function, gradient, *operands = inputs
        found = [
            custom_gradient(
                function,
                gradient,
                [each if dim is None else each.select(dim, i) for each, dim in zip(operands, in_dims[2:], strict=True)],
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(found), 0


def variables_read(function: Callable[[], Sequence[Tensor]]) -> list[Any]:
    with torch.enable_grad():
        waiting = [tensor.grad_fn for tensor in function()]
    met, found = set(), []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in met:
            met.add(node)
            waiting += [behind for behind, _ in node.next_functions]
            found += [node.variable] if hasattr(node, "variable") else []
    return found


def is_traced_by_export() -> bool:
    """Whether `torch.export` records what is computed, as it does not where it reads the code instead."""
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # the first since PyTorch 2.7
    return bool(is_exporting() and not torch.compiler.is_dynamo_compiling())


def exported_vjp(function: Callable[[Any], Any], x: Any, y: Any) -> Any:
    """The vector-Jacobian product of a function at x with y by gradients.

    `torch.export` keeps the tensors that `torch.func.vjp` wraps as constants, and cannot write them to a file.
    """
    leaves, structure = tree_flatten(x)
    is_inside = torch.is_grad_enabled()  # perhaps of another one
    with torch.enable_grad(), twice_differentiable():
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        outputs, cotangents = tree_flatten(function(tree_unflatten(leaves, structure)))[0], tree_flatten(y)[0]
        pairs = [(output, along) for output, along in zip(outputs, cotangents, strict=True) if output.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if pairs:
            found = torch.autograd.grad(*_unzipped(pairs, leaves), create_graph=is_inside, allow_unused=True)
    filled = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]
    return tree_unflatten(filled, structure)


def _unzipped(pairs: Sequence[tuple[Tensor, Tensor]], leaves: Sequence[Tensor]) -> tuple[Any, Any, Any]:
    return [output for output, _ in pairs], leaves, [along for _, along in pairs]
