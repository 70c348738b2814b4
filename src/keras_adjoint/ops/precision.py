"""How coarsely numbers are rounded: machine epsilons, and those of products as the backend is set to compute them."""

import ml_dtypes

from keras_adjoint.ops.backend import current


def epsilon(dtype):
    """Spacing of the numbers of `dtype` above 1."""
    return float(ml_dtypes.finfo(dtype).eps)


def product_epsilon(dtype):
    """The same for products of `dtype`, which a backend may be set to compute more coarsely in float32."""
    return max(epsilon(dtype), current().coarse_epsilon()) if dtype == "float32" else epsilon(dtype)
