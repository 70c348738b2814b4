"""Independent references for kernels: a convolution by explicit loops, and tensors of every framework."""

import numpy as np
import pytest

FRAMEWORKS = ["jax", "tensorflow", "torch"]


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def loop_convolution(x, kernel, strides=1, padding="valid", groups=1):
    """A convolution without batch axis, one output and one tap at a time."""
    *taps, inputs, filters = kernel.shape
    sizes = x.shape[:-1]
    if padding == "same":
        outputs = [-(-size // strides) for size in sizes]
        zeros = [max((n - 1) * strides + k - size, 0) for n, k, size in zip(outputs, taps, sizes, strict=True)]
        x = np.pad(x, [(total // 2, total - total // 2) for total in zeros] + [(0, 0)])
    else:
        outputs = [(size - k) // strides + 1 for size, k in zip(sizes, taps, strict=True)]
    y = np.zeros((*outputs, filters))
    for place in np.ndindex(*outputs):
        for tap in np.ndindex(*taps):
            pixel = x[tuple(p * strides + t for p, t in zip(place, tap, strict=True))]
            for filter in range(filters):
                first = filter // (filters // groups) * inputs
                y[place][filter] += pixel[first : first + inputs] @ kernel[tap][:, filter]
    return y


def tensor(framework, array, dtype=None):
    """A tensor of any installed framework, whichever backend is active."""
    module, make = {
        "jax": ("jax.numpy", "asarray"),
        "tensorflow": ("tensorflow", "convert_to_tensor"),
        "torch": ("torch", "tensor"),
    }[framework]
    module = pytest.importorskip(module)
    return getattr(module, make)(array, dtype=dtype and getattr(module, dtype))
