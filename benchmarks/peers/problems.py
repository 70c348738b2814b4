"""The work: strided convolutions between several channels, and least squares with them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A "valid" convolution of one sample; x is `(channels, *sizes)` and the kernel `(filters, channels, *taps)`."""

    name: str
    sizes: tuple
    channels: int
    filters: int
    taps: int
    stride: int

    @property
    def x_shape(self):
        return (self.channels, *self.sizes)

    @property
    def y_shape(self):
        return (self.filters, *((size - self.taps) // self.stride + 1 for size in self.sizes))

    @property
    def kernel(self):
        shape = (self.filters, self.channels, *(self.taps,) * len(self.sizes))
        return np.random.default_rng(0).standard_normal(shape).astype("float32") / self.taps


PROBLEMS = (
    Problem("photograph, 3→32, k5 s2, 129 × 129", (129, 129), 3, 32, 5, 2),
    Problem("features, 16→32, k3, 64 × 64", (64, 64), 16, 32, 3, 1),
    Problem("sound, 1→64, k16 s8, 16 000", (16000,), 1, 64, 16, 8),
)


def conjugate_gradients(forward, adjoint, b, dot, iterations=20):
    """CGLS (Björck 1996, algorithm 7.4.1): x that makes ‖A x − b‖ small, from x = 0.

    Args:
        forward: A.
        adjoint: Aᵀ.
        b: The right side.
        dot: The inner product of two tensors, as a number.
        iterations: How many.
    """
    residual = b
    direction = gradient = adjoint(residual)
    x = 0 * direction
    norm = dot(gradient, gradient)
    for _ in range(iterations):
        image = forward(direction)
        step = norm / dot(image, image)
        x = x + step * direction
        residual = residual - step * image
        gradient = adjoint(residual)
        norm, before = dot(gradient, gradient), norm
        direction = gradient + norm / before * direction
    return x
