"""Layers of an operator, tied to the layer whose kernel it has: what the steps of an unrolled network call.

A is the linear part of the source. All of them compute in float32, or float64, also where the source computes in half
precision.
"""

import warnings
from typing import Any, Self

import keras
from keras import ops

from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.sharing import read_config
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.shapes import from_json, symbolic, with_batch
from keras_adjoint.solvers.step_layers import SMALLEST


class OperatorLayer(Tied):
    """A layer that is computed with the operator of its source.

    Args:
        source: A built linear layer or model, possibly with a bias, which is left out.
        size: The size that the source takes, without the batch axis, if it takes several.
        linear_part: Whether to leave out an activation as well.
        tied: See `Tied`.
    """

    def __init__(
        self, source: keras.layers.Layer, *, size: Any = None, linear_part: bool = False, **kwargs: Any
    ) -> None:
        found = operator(source, size=size, linear_part=linear_part)
        super().__init__(source, **{"dtype": found.precision, **kwargs})
        self.__dict__["A"] = found.widened()  # past Keras' tracking: its layers are no parts of this one
        looks_up = isinstance(
            source, keras.layers.Embedding
        )  # whose operator takes one-hot vectors in place of indices
        self.size = found.in_shape if size is None and not looks_up else size
        self.linear_part = linear_part
        self.built = True

    A: Operator

    @property
    def exact(self) -> bool:
        return False

    @property
    def expected(self) -> Expected:
        return _expected(self.taken())

    def taken(self) -> Space:
        """The space of what the layer is called with."""
        return self.A.out_space

    def given(self) -> Space:
        """The space of what it gives."""
        return self.A.in_space

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return symbolic(self.given(), args[0], self.compute_dtype, self.taken(), self.name)

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return with_batch(self.given(), input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "linear_part": self.linear_part}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config({**config, "size": None if config["size"] is None else from_json(config["size"])})


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Forward(OperatorLayer):
    """x ↦ A x."""

    suffix = "forward"

    def taken(self) -> Space:
        return self.A.in_space

    def given(self) -> Space:
        return self.A.out_space

    def call(self, x: Any) -> Any:
        return apply(self.A, x, self.name)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Backward(OperatorLayer):
    """y ↦ Aᵀ y, in the precision of the solver."""

    suffix = "backward"

    def call(self, y: Any) -> Any:
        return apply(self.A.T, y, self.name)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class DataGradient(OperatorLayer):
    """(x, y) ↦ Aᵀ (A x − y), the gradient of ½‖A x − y‖² by x.

    Args:
        source: See `OperatorLayer`.
        learned: A layer like the source, whose adjoint is applied in place of Aᵀ. It belongs to this layer.
        **options: Those of `OperatorLayer`.

    Call arguments:
        x: A batch of what the source takes.
        y: A batch of what it gives.
    """

    suffix = "gradient"

    def __init__(
        self, source: keras.layers.Layer, *, learned: keras.layers.Layer | None = None, **options: Any
    ) -> None:
        super().__init__(source, **options)
        self.learned = learned
        transpose: Any = self.A.T
        if learned is not None:
            transpose = operator(learned, size=self.size, linear_part=self.linear_part).T.widened()
        self.__dict__["transpose"] = transpose

    transpose: Operator

    def taken(self) -> Space:
        return self.A.in_space

    def call(self, x: Any, y: Any) -> Any:  # type: ignore[override]  # of two tensors
        space = self.A.out_space
        given = space.leaves(apply(self.A, x, self.name), self.compute_dtype, self.name)
        left = [a - b for a, b in zip(given, space.leaves(y, self.compute_dtype, self.name), strict=True)]
        return apply(self.transpose, space.pack(left), self.name)

    @property
    def trainable(self) -> bool:
        return bool(super().trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        Tied.trainable.fset(self, value)  # type: ignore[attr-defined]
        learned = getattr(self, "learned", None)  # none yet while Keras makes the layer
        if learned is not None:
            learned.trainable = bool(value)

    def get_config(self) -> dict[str, Any]:
        learned = None if self.learned is None else keras.saving.serialize_keras_object(self.learned)
        return {**super().get_config(), "learned": learned}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        learned = config["learned"]
        return super().from_config({**config, "learned": None if learned is None else read_config(learned)})


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Bound(OperatorLayer):
    """y ↦ L = `A.bound()`, which is never below the norm of A with the kernel that it has now.

    It is computed once in every call of a model, for all steps. Its derivative by the kernel is a part of the derivative of
    what the steps give, which would be wrong without it.

    Args:
        source: See `OperatorLayer`.
        **options: Those of `OperatorLayer`.

    Call arguments:
        y: A batch, which is not looked at.

    Output shape: `(1,)`.
    """

    suffix = "bound"

    def call(self, y: Any) -> Tensor:
        bound = self.A.bound()
        if current().is_concrete([bound]):
            self._warn(float(ops.convert_to_numpy(ops.stop_gradient(bound))))
        return ops.reshape(bound, (1,))

    def _warn(self, bound: float) -> None:
        """Warn of a kernel for which the length of a step is no number."""
        smallest = SMALLEST[current().held_dtype(self.A.precision)]
        if bound != 0 and not smallest <= bound <= 1 / smallest:
            warnings.warn(
                f"`{self.name}`: steps of length 1/L² need an L between {smallest:g} and {1 / smallest:g}, or none but zero. "
                f"Divide the kernel of `{self.source.name}` by a number. Received: L={bound:g}",
                stacklevel=3,
            )

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return keras.KerasTensor((1,), dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return (1,)


def apply(A: Any, x: Any, name: str) -> Any:
    """A x in A's precision."""
    leaves = A.in_space.leaves(x, A.dtype, name)
    found = A.apply([ops.cast(leaf, A.dtype) for leaf in leaves])
    return A.out_space.pack([ops.cast(leaf, A.precision) for leaf in found])


def _expected(space: Space) -> Expected:
    return Expected.shape((None, *space.shapes[0])) if len(space.shapes) == 1 else Expected()
