"""The problem that every library solves: deconvolution of a batch of noisy images, with its exact solution."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import keras_adjoint as ka

RIDGE = 0.01


@dataclass(frozen=True)
class Problem:
    """argmin ‖A x − y‖² + RIDGE·‖x‖², for a batch y.

    Attributes:
        operator: A.
        images: The x that y was made of, without the noise.
        y: A batch, as an array.
        exact: The solutions as rows, from the dense matrix in float64.
    """

    operator: ka.operators.operator.Operator
    images: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    exact: np.ndarray[Any, Any]

    def error(self, x):
        """How far solutions are from the exact ones, relative to their size."""
        found = keras.ops.convert_to_numpy(x).reshape(self.exact.shape)
        return float(np.linalg.norm(found - self.exact) / np.linalg.norm(self.exact))

    def save(self, path):
        """Write the numbers, for a process of another backend."""
        (kernel,) = self.operator.variables()
        np.savez(path, kernel=keras.ops.convert_to_numpy(kernel), images=self.images, y=self.y, exact=self.exact)


def make(size, batch):
    """A problem of images of a size."""
    keras.utils.set_random_seed(0)
    operator = _operator(size)
    generator = np.random.default_rng(0)
    images = generator.random((batch, *operator.in_shape), "float32")
    noise = generator.standard_normal((batch, *operator.out_shape)).astype("float32")
    y = keras.ops.convert_to_numpy(operator @ images) + 0.01 * noise
    matrix = operator.to_matrix().astype("float64")
    right = matrix.T @ y.astype("float64").reshape(len(y), -1).T
    exact = np.linalg.solve(matrix.T @ matrix + RIDGE * np.eye(matrix.shape[1]), right).T
    return Problem(operator, images, y, exact)


def read(path):
    """A problem that was saved."""
    with np.load(path) as numbers:
        operator = _operator(numbers["images"].shape[1])
        operator.variables()[0].assign(numbers["kernel"])
        return Problem(operator, numbers["images"], numbers["y"], numbers["exact"])


def _operator(size):
    conv = keras.layers.Conv2D(16, 5, strides=2, padding="same", use_bias=False)
    conv.build((None, size, size, 3))
    return ka.operator(conv)
