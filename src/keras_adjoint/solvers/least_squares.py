"""`LeastSquares` and `pinv`: the solution of a least-squares problem as a layer, tied to the layer whose equations it is of."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import KerasAdjointError, one_of
from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.options import boolean, is_real_number
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops.backend import untraced
from keras_adjoint.solvers import arguments
from keras_adjoint.solvers.lstsq import Solution, lstsq
from keras_adjoint.solvers.offset import BIASES, check_offset, less_offset
from keras_adjoint.solvers.shapes import from_json, symbolic, with_batch
from keras_adjoint.solvers.transposed import transposed_solution


@keras.saving.register_keras_serializable(package="keras_adjoint")
class LeastSquares(Tied):
    """The layer y ↦ x that minimises ‖A x − y‖² + ridge·‖x‖², where A is the linear part of another layer.

    A bias is no part of A. With `bias="subtract"` it is subtracted from y first, so that a layer that has one is undone.

    A is read from the layer's own kernel at every call, so both train it. Every sample is solved by itself, until
    ‖Aᵀ(y − A x) − ridge·x‖ ≤ tolerance·‖Aᵀ y‖. The gradient is that of the solution, by y, by the kernel and by the ridge.

    Args:
        source: A built linear layer or model, possibly with a bias, which is left out.
        ridge: A number that is not negative. With 0, x is the smallest one of several that are equally good.
        learn_ridge: Whether the ridge is trained; then it begins at `ridge` and stays positive.
        size: The size that the source takes, without the batch axis, if it takes several.
        linear_part: Whether to leave out activations as well.
        bias: "none", or "subtract" to solve for y without what the source gives of zero: its biases and shifts.
        method: "cgls" or "lsmr", see `lstsq`.
        tolerance: By default 1e-5, in float64 1e-10.
        max_steps: By default 1000.
        gradient: "implicit", by one more solve, or "unrolled", by differentiating `max_steps` steps, see `lstsq`.
        tied: See `Tied`.

    Call arguments:
        y: A batch of what the source gives.
        x0: Where to begin, a batch of what it takes. By default zero.
        weights: Of the squares of A x − y, one for each number of y. Those of masked numbers are zero. By default one.

    Input shape: That of the source's output.
    Output shape: That of its input.

    Raises:
        NoRuleError: If the source is not linear.
        SizeError: If its size is not known.
        ValueError: If an option has a value that it does not take.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
    >>> conv.build((None, 6, 6, 2))
    >>> x = np.ones((1, 6, 6, 2), "float32")
    >>> solve = ka.LeastSquares(conv, ridge=1e-6)
    >>> bool(np.allclose(keras.ops.convert_to_numpy(solve(conv(x))), x, atol=1e-2))
    True
    """

    suffix = "least_squares"

    def __init__(
        self,
        source: keras.layers.Layer,
        *,
        ridge: float = 0.0,
        learn_ridge: bool = False,
        size: Any = None,
        linear_part: bool = False,
        bias: str = "none",
        method: str = "cgls",
        tolerance: float | None = None,
        max_steps: int | None = None,
        gradient: str = "implicit",
        **kwargs: Any,
    ) -> None:
        if not isinstance(source, keras.layers.Layer):
            raise ValueError(
                f"`LeastSquares` solves the equations of a layer or model. For an operator there is `lstsq`. "
                f"Received: {source!r}"
            )
        check_offset(one_of("bias", bias, BIASES), source, linear_part)
        found = operator(source, size=size, linear_part=linear_part)
        super().__init__(source, **kwargs)
        self.__dict__["A"] = found  # past Keras' tracking: its layers are no parts of this one
        self.ridge_at_first = _ridge(ridge, boolean("learn_ridge", learn_ridge))
        self.learn_ridge, self.linear_part = bool(learn_ridge), linear_part
        self.bias_mode = bias
        self.method = one_of("method", method, tuple(arguments.METHODS))
        self.tolerance = arguments.tolerance_for(tolerance, found.precision)
        self.max_steps = arguments.steps_from(max_steps)
        self.gradient = one_of("gradient", gradient, arguments.GRADIENTS)
        self.log_ridge = None
        if learn_ridge:
            start = keras.initializers.Constant(math.log(self.ridge_at_first))
            self.log_ridge = self.add_weight(shape=(), initializer=start, name="log_ridge", dtype=found.precision)
        given = [(None, *shape) for shape in found.out_space.shapes]
        self.build(given[0] if len(given) == 1 else given)

    # --- the operator

    A: Operator

    @property
    def exact(self) -> bool:
        return False

    @property
    def ridge(self) -> Any:
        """The ridge as it is now: a number, or a tensor if it is trained."""
        return self.ridge_at_first if self.log_ridge is None else ops.exp(ops.convert_to_tensor(self.log_ridge))

    def solution(self, y: Any, x0: Any = None, weights: Any = None) -> Solution:
        """The `Solution`, with the steps, the residual and the status of each sample.

        Args:
            y: A batch of what the source gives.
            x0: Where to begin.
            weights: Of the squares of A x − y.
        """
        if self.bias_mode == "subtract":
            y = less_offset(self.source, self.A, y)
        return self.linear_solution(y, x0, weights)

    def linear_solution(self, y: Any, x0: Any = None, weights: Any = None) -> Solution:
        """The `Solution` for y as it is."""
        options = {name: getattr(self, name) for name in ("method", "tolerance", "max_steps", "gradient")}
        return lstsq(self.A, y, ridge=self.ridge, x0=x0, weights=weights, **options)

    def call(self, y: Any, x0: Any = None, weights: Any = None) -> Any:
        return self.solution(y, x0, weights).x

    def apply_forward(self, x: Any) -> Any:
        """A x, what the layer takes for the right side of."""
        return self.A(x)

    def solver_error(self) -> float:
        """By how much x may be off, relative to ‖x‖: the tolerance times the condition of the equations, as far as known.

        ‖M (x̂ − x)‖ ≤ tolerance·‖Aᵀ y‖ and Aᵀ y = M x with M = AᵀA + ridge.
        """
        ridge = float(ops.convert_to_numpy(self.ridge))
        try:
            if ridge > 0:
                return self.tolerance * (float(ops.convert_to_numpy(self.A.norm(tolerance=0.1))) ** 2 / ridge + 1)
            values = self.A.singular_values(min(self.A.shape))
        except KerasAdjointError:  # too large for its singular values
            return self.tolerance
        seen = values[values > max(self.A.shape) * float(np.finfo(self.A.precision).eps) * values[0]]
        return self.tolerance * float(seen[0] / seen[-1]) ** 2 if len(seen) else self.tolerance

    # --- shapes and files

    @property
    def in_space(self) -> Space:
        """What the layer takes."""
        return self.A.out_space

    @property
    def expected(self) -> Expected:
        shapes = self.in_space.shapes
        return Expected.shape((None, *shapes[0])) if len(shapes) == 1 else Expected()

    def compute_output_spec(self, y: Any, x0: Any = None, weights: Any = None, **kwargs: Any) -> Any:
        return symbolic(self.A.in_space, y, self.A.dtype, self.A.out_space, self.name)

    def compute_output_shape(self, input_shape: Any, **kwargs: Any) -> Any:
        return with_batch(self.A.in_space, input_shape)

    def get_config(self) -> dict[str, Any]:
        names = ("learn_ridge", "linear_part", "method", "tolerance", "max_steps", "gradient")
        own = {name: getattr(self, name) for name in names}
        own |= {"bias": self.bias_mode, "ridge": self.ridge_at_first, "size": self.A.in_shape}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LeastSquares":
        return super().from_config({**config, "size": from_json(config["size"])})


@rule(LeastSquares)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointLeastSquares(Tied):
    """The adjoint of a `LeastSquares` layer, g ↦ A (AᵀA + ridge)⁻¹ g: the same equations, solved the other way.

    Args:
        source: A `LeastSquares` layer.
        tied: See `Tied`.

    Call arguments:
        g: A batch of what the source gives.

    Input shape: That of the source's output.
    Output shape: That of its input.
    """

    def __init__(self, source: LeastSquares, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.built = True

    def call(self, g: Any) -> Any:
        source = self.source
        ridge = arguments.ridge_from(source.ridge, source.A.precision)
        return transposed_solution(source.A, g, ridge, source.tolerance, source.max_steps)

    def apply_forward(self, x: Any) -> Any:
        return self.source.linear_solution(x).x

    @property
    def in_space(self) -> Space:
        """What the layer takes."""
        space: Space = self.source.A.in_space
        return space

    @property
    def expected(self) -> Expected:
        shapes = self.in_space.shapes
        return Expected.shape((None, *shapes[0])) if len(shapes) == 1 else Expected()

    def compute_output_spec(self, y: Any, **kwargs: Any) -> Any:
        return symbolic(self.source.A.out_space, y, self.source.A.dtype, self.source.A.in_space, self.name)

    def compute_output_shape(self, input_shape: Any, **kwargs: Any) -> Any:
        return with_batch(self.source.A.out_space, input_shape)


@untraced
def pinv(layer: keras.layers.Layer, **options: Any) -> LeastSquares:
    """The pseudo-inverse A⁺ of the linear part A of a layer or model, as a layer tied to its kernel.

    A⁺ y is the x that minimises ‖A x − y‖, and the smallest one if there are several.

    Args:
        layer: A built linear layer or model.
        **options: Those of `LeastSquares`, without a ridge.

    Returns:
        A `LeastSquares` layer.

    Raises:
        NoRuleError: If the layer is not linear.
        SizeError: If its size is not known.
        ValueError: If an option makes no sense.

    Example:

    >>> dense = keras.layers.Dense(2)
    >>> dense.build((None, 4))
    >>> inverse = ka.pinv(dense)
    >>> y = np.array([[1.0, -2.0]], "float32")
    >>> bool(np.allclose(keras.ops.convert_to_numpy(dense(inverse(y))), y, atol=1e-3))
    True
    """
    if {"ridge", "learn_ridge"} & options.keys():
        raise ValueError(
            f"A pseudo-inverse has no ridge; `LeastSquares(layer, ridge=...)` has one. Received: {', '.join(sorted(options))}"
        )
    return LeastSquares(layer, **options)


def _ridge(value: Any, is_learned: bool) -> float:
    if not is_real_number(value) or not 0 <= value < math.inf or (is_learned and value == 0):
        wanted = "a positive number where it is learned" if is_learned else "a number that is not negative"
        raise ValueError(f"`ridge` is {wanted}. Received: ridge={value!r}")
    return float(value)
