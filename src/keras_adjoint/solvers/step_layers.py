"""Layers that the steps of unrolled networks are made of: numbers that are trained, and kept where the theory wants them.

The relative length θ of a step is in (0, 1) since it is a sigmoid, and so is a momentum; a threshold is positive since it is
a multiple of an exponential.
"""

import math
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops, tree

from keras_adjoint.layers.sharing import read_config
from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.proximal import PROXIMALS, Details, proximal

FIRST_LENGTH = 0.9  # of a step that is trained
SMALLEST_FACTOR = 0.02  # of momentum, where it is trained
SMALLEST = {
    "float32": 1e-18,
    "float64": 1e-150,
}  # a bound whose inverse square is finite; smaller ones are taken for it


@keras.saving.register_keras_serializable(package="keras_adjoint")
class ZeroStart(keras.layers.Layer):
    """y ↦ zeros, as many samples of given shapes.

    Args:
        shapes: A structure of shapes, without the batch axis.
    """

    def __init__(self, shapes: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shapes = shapes
        self.built = True

    def call(self, y: Any) -> Any:
        batch = ops.shape(tree.flatten(y)[0])[0]
        return _over_shapes(lambda shape: ops.zeros((batch, *shape), self.compute_dtype), self.shapes)

    def compute_output_spec(self, y: Any) -> Any:
        batch = tree.flatten(y)[0].shape[0]
        return _over_shapes(lambda shape: keras.KerasTensor((batch, *shape), self.compute_dtype), self.shapes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shapes": self.shapes}


@keras.saving.register_keras_serializable(package="keras_adjoint")
class FirstBound(keras.layers.Layer):
    """y ↦ L as it once was, which is kept as a weight and not trained.

    Args:
        bound: L.
    """

    def __init__(self, bound: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        initializer = keras.initializers.Constant(bound)
        self.bound = self.add_weight(shape=(1,), initializer=initializer, trainable=False, name="bound")
        self.built = True

    def call(self, y: Any) -> Tensor:
        return ops.convert_to_tensor(self.bound)

    def compute_output_spec(self, y: Any) -> Any:
        return keras.KerasTensor((1,), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class GradientStep(keras.layers.Layer):
    """(x, g, L) ↦ (x − τ g, τ) with τ = θ/L².

    Args:
        learned: Whether θ is trained, within (0, 1); else it is 1.

    Call arguments:
        x: A batch.
        g: The gradient there.
        bound: L, of shape `(1,)`. Where it is zero, τ is θ.
    """

    def __init__(self, learned: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.learned = learned
        self.logit = logit_weight(self, "step", FIRST_LENGTH) if learned else None
        self.built = True

    @property
    def relative_length(self) -> Any:
        """θ."""
        return 1.0 if self.logit is None else ops.sigmoid(self.logit)

    def call(self, x: Any, g: Any, bound: Tensor) -> tuple[Any, Tensor]:
        inverse = reciprocal(bound)
        moved = tree.map_structure(lambda x, g: x - self.relative_length * (inverse * (inverse * g)), x, g)
        return moved, self.relative_length * inverse * inverse

    def compute_output_spec(self, x: Any, g: Any, bound: Any) -> tuple[Any, Any]:
        return like(x, self.compute_dtype), keras.KerasTensor((1,), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "learned": self.learned}


@keras.saving.register_keras_serializable(package="keras_adjoint")
class ProximalStep(keras.layers.Layer):
    """(x, τ) ↦ the z that minimises ½‖z − x‖² + τ·weight·R(z).

    Args:
        prox: A name of the table in `proximal`, or a function (x, t) ↦ z.
        weight: Of R.
        learned: Whether the weight is multiplied by a number that is trained, and positive.
        details: The fields of `Details`.

    Call arguments:
        x: A batch.
        step: τ, of shape `(1,)`.
    """

    def __init__(
        self,
        prox: str | Callable[..., Any],
        weight: float = 1.0,
        learned: bool = False,
        details: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prox, self.weight_at_first, self.learned = prox, weight, learned
        self.details = Details(**(details or {}))
        self.log_factor = self.add_weight(shape=(), initializer="zeros", name="threshold") if learned else None
        self.function = proximal(prox, self.details) if isinstance(prox, str) else prox
        self.built = True

    @property
    def weight(self) -> Any:
        """The weight of R, as it is now."""
        return self.weight_at_first if self.log_factor is None else self.weight_at_first * ops.exp(self.log_factor)

    def call(self, x: Any, step: Tensor) -> Any:
        threshold = step * self.weight
        return tree.map_structure(lambda leaf: self.function(leaf, threshold), x)

    def compute_output_spec(self, x: Any, step: Any) -> Any:
        return like(x, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        prox = self.prox if isinstance(self.prox, str) else keras.saving.serialize_keras_object(self.prox)
        own = {"prox": prox, "weight": self.weight_at_first, "learned": self.learned, "details": vars(self.details)}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        prox = config["prox"]
        return cls(**{**config, "prox": prox if isinstance(prox, str) and prox in PROXIMALS else read_config(prox)})


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Momentum(keras.layers.Layer):
    """(x, the one before) ↦ x + β·(x − the one before).

    Args:
        factor: β, where it begins.
        learned: Whether it is trained, within (0, 1).
    """

    def __init__(self, factor: float, learned: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor_at_first, self.learned = factor, learned
        self.logit = logit_weight(self, "momentum", max(factor, SMALLEST_FACTOR)) if learned else None
        self.built = True

    @property
    def factor(self) -> Any:
        """β, as it is now."""
        return self.factor_at_first if self.logit is None else ops.sigmoid(self.logit)

    def call(self, x: Any, before: Any) -> Any:
        return tree.map_structure(lambda x, before: x + self.factor * (x - before), x, before)

    def compute_output_spec(self, x: Any, before: Any) -> Any:
        return like(x, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor_at_first, "learned": self.learned}


def like(x: Any, dtype: str) -> Any:
    """Symbolic tensors of the same shapes."""
    return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype), x)


def reciprocal(bound: Tensor) -> Tensor:
    """1/L, and 1 where L is zero: there the gradient is zero, and every step is as good.

    What is multiplied by 1/L² is multiplied by this twice. The derivative of 1/L² itself may be no number where that of the
    product is one: for a kernel of 1e13, float32 holds 1/L², but not 1/L³.
    """
    smallest = SMALLEST[keras.backend.standardize_dtype(bound.dtype)]
    held = ops.where(
        bound > smallest, bound, ops.where(bound > 0, ops.ones_like(bound) * smallest, ops.ones_like(bound))
    )
    return 1 / held


def logit_weight(layer: keras.layers.Layer, name: str, start: float) -> keras.Variable:
    """A weight whose sigmoid begins at a number."""
    initializer = keras.initializers.Constant(math.log(start / (1 - start)))
    return layer.add_weight(shape=(), initializer=initializer, name=name)


def _over_shapes(function: Callable[[Any], Any], shapes: Any) -> Any:
    if isinstance(shapes, dict):
        return {name: _over_shapes(function, one) for name, one in shapes.items()}
    if all(isinstance(size, int) for size in shapes):
        return function(tuple(shapes))
    return [_over_shapes(function, one) for one in shapes]
