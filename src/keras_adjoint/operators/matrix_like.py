"""What is asked of an operator as of a matrix: its norms and singular values, and the matrix itself for other libraries."""

from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.operators.bridges import to_deepinv, to_lineax, to_pylops
from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.operators.matrix import matrix_of
from keras_adjoint.operators.norm import norm_of
from keras_adjoint.operators.scipy_bridge import singular_values, to_scipy
from keras_adjoint.ops import Tensor

MOST_NUMBERS = 2**27  # of a matrix: half a gigabyte in float32


class MatrixLike(LinearMap):
    """A linear map with the methods of a matrix."""

    # --- spectra

    def norm(self, *, tolerance: float = 1e-3, seed: int = 0) -> Tensor:
        """The largest singular value of A, estimated from below by Lanczos bidiagonalisation.

        The random start is the same for the same seed. With a probability of at most 0.001 over it, the norm is more than
        1 + `tolerance` times as large as the result.

        Args:
            tolerance: The relative error, above 1e-6. Four units in the last place are taken off, so that rounding cannot
                lift the result above the norm.
            seed: Seed of the start.

        Returns:
            A scalar tensor, in float32 or float64, which is differentiable by the kernels. Of layers that compute in half
            precision it is the norm in float32, of the kernels as they are stored.

        Raises:
            ValueError: If the tolerance is not above 1e-6 and below 1, or the seed no integer.

        Example:

        >>> round(float((3 * ka.identity((2,))).norm()), 4)
        3.0
        """
        if not isinstance(tolerance, (int, float, np.floating)) or not 1e-6 < tolerance < 1:
            raise ValueError(
                f"`tolerance` is a relative error above 1e-6 and below 1. Received: tolerance={tolerance!r}"
            )
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"`seed` is an integer that is not negative. Received: seed={seed!r}")
        return norm_of(self.widened(), float(tolerance), seed)

    def bound(self) -> Tensor:
        """A number that is never below the norm, cheap, and differentiable by the kernels.

        Of convolutions it is the norm of the circular convolution that A is a part of (see `keras_adjoint.operators.symbol`);
        of compositions the product of the bounds, of sums the sum, of blocks the norm of the matrix of bounds. Where no rule
        is known for a layer, it is taken from the layer's matrix if that is small.

        Returns:
            A scalar tensor, in float32 or float64.

        Raises:
            NoRuleError: If no bound is known, and the operator is too large for its matrix. `norm` estimates.

        Example:

        >>> round(float((3 * ka.identity((2,))).bound()), 4)
        3.0
        """
        return ops.convert_to_tensor(self.bounded(), self.precision)

    def singular_values(self, count: int = 1, *, which: str = "largest", vectors: bool = False) -> Any:
        """Singular values on the host, by LAPACK where the matrix is small and otherwise by SciPy's ARPACK.

        They are as exact as the rounding of the largest one: from a float32 matrix, zero may come out as a millionth of that.
        Code that is being compiled cannot compute them, as it can `norm` and `bound`.

        Args:
            count: How many. All of them are known where the smaller side of A has at most 1024 numbers, or its matrix 2²³, and
                the smallest ones for such a side alone.
            which: "largest", from the largest down, or "smallest", from the smallest up.
            vectors: Whether to return the singular vectors as well.

        Returns:
            A NumPy array; with `vectors` (left vectors as a batch of what A gives, values, right ones as a batch of what it
            takes).

        Raises:
            KerasAdjointError: If they do not converge, or cannot be told from rounding. The smallest ones of large operators
                cannot.
            ValueError: If an argument makes no sense.

        Example:

        >>> (3 * ka.identity((2,))).singular_values(2).tolist()
        [3.0, 3.0]
        """
        return singular_values(self.widened(), count, which, vectors)

    def condition(self) -> float:
        """The largest singular value over the smallest one; infinite where that is zero up to rounding.

        Returns:
            A Python number.

        Raises:
            KerasAdjointError: If the operator is too large, or in code that is being compiled, see `singular_values`.

        Example:

        >>> ka.identity((2,)).condition()
        1.0
        """
        return self.norm_and_condition()[1]

    def norm_and_condition(self) -> tuple[float, float]:
        """(the norm, the condition) from one decomposition of the matrix, see `condition`."""
        values = self.singular_values(min(self.shape), which="largest")
        lost = values[-1] <= max(self.shape) * float(np.finfo(self.precision).eps) * values[0]
        return float(values[0]), float("inf") if lost else float(values[0] / values[-1])

    # --- as other things

    def to_scipy(self) -> Any:
        """A `scipy.sparse.linalg.LinearOperator` of `A.shape`, between vectors of all numbers of a sample.

        Returns:
            The operator, in float32 or float64, with its adjoint as `rmatvec`, and many columns at once as `matmat`.

        Example:

        >>> ka.identity((2,)).to_scipy().matvec(np.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
        """
        return to_scipy(self)

    def to_pylops(self) -> Any:
        """A `pylops.LinearOperator` of `A.shape`, on NumPy arrays of one sample without a batch axis.

        Returns:
            The operator, in float32 or float64. Its `dims` and `dimsd` are `in_shape` and `out_shape`; where there are several
            tensors, all numbers of a sample in a row.

        Raises:
            KerasAdjointError: If PyLops is not installed.

        Example:

        >>> linear = ka.identity((2, 3)).to_pylops()
        >>> (linear @ np.ones((2, 3))).shape, linear.shape
        ((2, 3), (6, 6))
        """
        return to_pylops(self)

    def to_lineax(self) -> Any:
        """A `lineax.FunctionLinearOperator` between JAX arrays of one sample without a batch axis, or structures of arrays.

        Returns:
            The operator, in A's dtype. As everything in JAX, it has the kernels as they are now; they are leaves of it, by
            which JAX can differentiate. `jax.vmap` of its `mv` computes batches, and its `T` is the adjoint of this package.

        Raises:
            KerasAdjointError: If Keras does not run on JAX, or lineax is not installed.

        Example:

        >>> linear = ka.identity((2, 3)).to_lineax()  # doctest: +SKIP
        >>> linear.mv(jax.numpy.ones((2, 3))).shape  # doctest: +SKIP
        (2, 3)
        """
        return to_lineax(self)

    def to_deepinv(self, *, data_format: str | None = None) -> Any:
        """A `deepinv.physics.LinearPhysics`, on batches of PyTorch tensors with the channels behind the batch axis.

        Args:
            data_format: Where A has its own channels, "channels_last" or "channels_first". By default where its layers have
                them, and otherwise where `keras.config.image_data_format()` says.

        Returns:
            The physics, which is differentiable by the image and by the kernels. Several tensors are a `TensorList`.

        Raises:
            KerasAdjointError: If Keras does not run on PyTorch, DeepInverse is not installed, or the layers of A have their
                channels in different places.

        Example:

        >>> physics = ka.identity((9, 8, 3)).to_deepinv()  # doctest: +SKIP
        >>> physics.A_dagger(torch.ones((1, 3, 9, 8))).shape  # doctest: +SKIP
        (1, 3, 9, 8)
        """
        return to_deepinv(self, data_format)

    def to_matrix(self, *, most_numbers: int = MOST_NUMBERS) -> np.ndarray[Any, Any]:
        """The matrix of A, of shape `A.shape`: column j is A applied to the j-th unit vector.

        Args:
            most_numbers: The largest matrix that is made.

        Returns:
            A NumPy array.

        Raises:
            SizeError: If the matrix has more numbers.
            ValueError: If `most_numbers` is no number.

        Example:

        >>> ka.identity((2,)).to_matrix().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        if isinstance(most_numbers, bool) or not isinstance(most_numbers, (int, float, np.number)):
            raise ValueError(f"`most_numbers` is a number. Received: most_numbers={most_numbers!r}")
        return matrix_of(self, most_numbers)
