"""Linear functions on the host as functions of PyTorch, with derivatives of every order and under `torch.func`."""

from typing import Any

import torch

from keras_adjoint.errors import KerasAdjointError
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.protocol import HostProduct
from keras_adjoint.ops.backend.torch_derivatives import is_traced_by_export


def linear_on_host(product: HostProduct, transposed: HostProduct, rows: Tensor) -> Tensor:
    """See the protocol `Backend`.

    Raises:
        KerasAdjointError: Where `torch.export` records a program, in which the host is not.
    """
    if is_traced_by_export():
        raise KerasAdjointError(
            "What `torch.export` records does not have what an operator of SciPy computes. Put a `Dense` layer in its place, "
            "between `Flatten` and `Reshape`, whose kernel is the transpose of `keras_adjoint.operator(layer).to_matrix()`. "
            f"Received: a batch of {product.inputs} numbers each in `torch.export`"
        )
    found: Tensor = _LinearOnHost.apply(rows, product, transposed)
    return found


class _LinearOnHost(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, product: HostProduct, transposed: HostProduct) -> Tensor:
        return _on_host(rows, product)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, HostProduct, HostProduct], output: Tensor) -> None:
        _, ctx.product, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        return linear_on_host(ctx.transposed, ctx.product, cotangent), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: None) -> Tensor:
        return linear_on_host(ctx.product, ctx.transposed, tangent)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None, None], rows: Tensor, product: HostProduct, transposed: HostProduct
    ) -> tuple[Tensor, int]:
        rows = rows.movedim(in_dims[0], 0)
        found = linear_on_host(product, transposed, rows.flatten(0, 1))
        return found.unflatten(0, rows.shape[:2]), 0


@torch.compiler.disable
def _on_host(rows: Tensor, product: HostProduct) -> Tensor:
    if rows.device.type == "meta":  # shapes alone
        return rows.new_empty((len(rows), product.outputs))
    wide = rows.to(torch.float32) if rows.dtype == torch.bfloat16 else rows  # which NumPy does not have
    return torch.from_numpy(product(wide.detach().cpu().numpy())).to(rows)
