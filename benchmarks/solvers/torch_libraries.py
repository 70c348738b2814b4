"""What solves least squares on PyTorch, as functions of an operator, the ridge and a tolerance.

DeepInverse imports torchvision. The one on PyPI is built for CUDA, and cannot load its compiled operators beside a PyTorch for
the CPU; then it fails where it says what two of them give. DeepInverse's solvers use neither, so a declaration is enough.
"""

import keras
import torch

import keras_adjoint as ka
from benchmarks.solvers.libraries import MAX_STEPS

OVERLAPS = ("nms", "qnms")


def ours(operator, ridge, tolerance):
    """This package's, as Keras runs it on PyTorch."""

    @torch.no_grad()
    def solve(y):
        return ka.lstsq(operator, y, ridge=ridge, tolerance=tolerance, max_steps=MAX_STEPS).x

    return solve


def deepinv_with_bridge(operator, ridge, tolerance):
    """Conjugate gradients of DeepInverse with this package's convolution and adjoint."""
    deepinv = imported()
    physics = operator.to_deepinv()
    return _deepinv_solve(deepinv, physics.A, physics.A_adjoint, ridge, tolerance)


def deepinv_with_convolutions(operator, ridge, tolerance):
    """The same with PyTorch's own convolution, padded as Keras does, and its transpose, without what was padded."""
    deepinv = imported()
    kernel = keras.ops.convert_to_tensor(operator.variables()[0]).detach()
    kernel = kernel.permute(3, 2, 0, 1).contiguous()
    (size, _, _), taps = operator.in_shape, kernel.shape[-1]
    outputs = operator.out_shape[0]
    added = (outputs - 1) * 2 + taps - size
    before, after = added // 2, added - added // 2

    def forward(x):
        return torch.nn.functional.conv2d(torch.nn.functional.pad(x, (before, after) * 2), kernel, stride=2)

    def adjoint(y):
        whole = torch.nn.functional.conv_transpose2d(y, kernel, stride=2)
        return whole[..., before : before + size, before : before + size]

    return _deepinv_solve(deepinv, forward, adjoint, ridge, tolerance)


def _deepinv_solve(deepinv, forward, adjoint, ridge, tolerance):
    @torch.no_grad()
    def solve(y):
        y = y.permute(0, 3, 1, 2).contiguous()
        options = {"gamma": 1 / ridge, "solver": "CG", "tol": tolerance, "max_iter": MAX_STEPS}
        return deepinv.optim.linear.least_squares(forward, adjoint, y, **options).permute(0, 2, 3, 1)

    return solve


def imported():
    """DeepInverse."""
    import importlib.util

    if importlib.util.find_spec("torchvision") and not hasattr(torch.ops.torchvision, OVERLAPS[0]):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            for name in OVERLAPS:
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import deepinv

    return deepinv


LIBRARIES = {
    "`lstsq`, cgls, on PyTorch": ours,
    "DeepInverse, CG, by `to_deepinv`": deepinv_with_bridge,
    "DeepInverse, CG, by PyTorch's convolutions": deepinv_with_convolutions,
}
