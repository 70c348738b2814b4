"""The norm of a layer as each library computes it: functions of a layer and its operator, `None` where it has no way to."""

import math

import keras
import numpy as np


def number(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def norm(layer, operator):
    """`A.norm()`, to a thousandth."""
    return number(operator.norm())


def bound(layer, operator):
    """`A.bound()`, never below the norm."""
    return number(operator.bound())


def spectral_normalization(layer, operator):
    """What `keras.layers.SpectralNormalization` divides the kernel by, after 30 power iterations."""
    if not hasattr(layer, "kernel"):
        return None
    wrapper = keras.layers.SpectralNormalization(layer, power_iterations=30)
    wrapper.build((None, *operator.in_shape))
    _, normalized = wrapper.normalized_weights()
    return float(
        np.linalg.norm(keras.ops.convert_to_numpy(layer.kernel))
        / np.linalg.norm(keras.ops.convert_to_numpy(normalized))
    )


def pylops(layer, operator):
    """Power iteration on AᵀA with PyLops' defaults: ten, from a random start."""
    from pylops.optimization.eigs import power_iteration

    np.random.seed(0)  # which PyLops draws from
    linear = operator.to_pylops()
    largest, *_ = power_iteration(linear.H @ linear)
    return math.sqrt(abs(largest))


def scipy(layer, operator):
    """`scipy.sparse.linalg.svds`, by ARPACK, to a ten-thousandth of the squared norm."""
    from scipy.sparse.linalg import svds

    linear = operator.to_scipy()
    start = np.random.default_rng(0).standard_normal(min(linear.shape)).astype(linear.dtype)
    return float(svds(linear, k=1, v0=start, tol=1e-4, return_singular_vectors=False)[0])


def deepinv(layer, operator):
    """`LinearPhysics.compute_sqnorm` with its defaults: power iterations until they change by a thousandth, at most 100."""
    import torch

    physics, shape = operator.to_deepinv(), operator.in_shape
    x = torch.randn((1, shape[-1], *shape[:-1]), generator=torch.Generator().manual_seed(0))
    return math.sqrt(number(physics.compute_sqnorm(x, verbose=False)))


def orthogonium(layer, operator):
    """`get_conv_sv` (Delattre et al. 2024), four iterations, for zero-padded convolutions with stride 1 and no dilation."""
    fits = (
        isinstance(layer, keras.layers.Conv2D)
        and layer.padding == "same"
        and {*layer.strides, *layer.dilation_rate} == {1}
    )
    import torch
    from orthogonium.layers.conv.singular_values import get_conv_sv

    if not fits:
        return None
    kernel = np.transpose(keras.ops.convert_to_numpy(layer.kernel), (3, 2, 0, 1))
    channels, taps = operator.in_shape[-1], kernel.shape[2:]
    conv = torch.nn.Conv2d(channels, len(kernel), taps, padding="same", groups=layer.groups, bias=False)
    conv.weight.data = torch.tensor(kernel)
    return float(get_conv_sv(conv, n_iter=4, return_stab_rank=False, imsize=operator.in_shape[0]))


def four_reshapes(layer, operator):
    """Singla and Feizi (2021): the least norm of four reshaped kernels, times the root of the number of taps."""
    fits = type(layer) is keras.layers.Conv2D and layer.groups == 1
    if not fits:
        return None
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    height, width, channels, filters = kernel.shape
    orders = ((0, 3, 1, 2), (1, 3, 0, 2), (3, 0, 1, 2), (0, 1, 3, 2))  # rows and columns of each matrix follow
    sides = (height * filters, width * filters, filters, height * width * filters)
    norms = [
        np.linalg.norm(kernel.transpose(order).reshape(side, -1), 2) for order, side in zip(orders, sides, strict=True)
    ]
    return float(min(norms) * math.sqrt(height * width))


LIBRARIES = {
    "`norm`": norm,
    "`bound`": bound,
    "Keras": spectral_normalization,
    "PyLops": pylops,
    "SciPy": scipy,
    "DeepInverse": deepinv,
    "orthogonium": orthogonium,
    "Singla, Feizi": four_reshapes,
}
