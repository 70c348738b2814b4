"""Layers of the methods that split a problem: primal-dual steps and linearised ADMM, and total variation within both.

Their lengths keep to τ (σ L² + σ' ‖D‖²) ≤ 1, and to η (L² + ρ ‖S‖²) ≤ 1, whatever is trained: the product is a sigmoid, and
the ratio an exponential.
"""

from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.proximal import Details
from keras_adjoint.solvers.step_layers import FIRST_LENGTH, like, logit_weight, reciprocal
from keras_adjoint.solvers.total_variation import within


class _Balanced(keras.layers.Layer):
    """A layer with a relative length θ in (0, 1), and a ratio that is positive, of which both are trained or neither.

    Args:
        learned: Whether they are trained; else both are 1.
        has_variation: Whether there are discrete gradients in the step.
        details: The fields of `Details`.
    """

    def __init__(
        self, learned: bool = False, has_variation: bool = False, details: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.learned, self.has_variation, self.details = learned, has_variation, Details(**(details or {}))
        self.logit = logit_weight(self, "step", FIRST_LENGTH) if learned else None
        self.log_ratio = self.add_weight(shape=(), initializer="zeros", name="ratio") if learned else None
        self.built = True

    @property
    def relative_length(self) -> Any:
        """θ."""
        return 1.0 if self.logit is None else ops.sigmoid(self.logit)

    @property
    def ratio(self) -> Any:
        """By which one of two steps is longer."""
        return 1.0 if self.log_ratio is None else ops.exp(self.log_ratio)

    def get_config(self) -> dict[str, Any]:
        own = {"learned": self.learned, "has_variation": self.has_variation, "details": vars(self.details)}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_adjoint")
class PrimalStep(_Balanced):
    """(x, p, L) ↦ (x − τ p, τ, σ) with τ = ρ/L² and σ = θ/ρ, or half of that beside total variation.

    Call arguments:
        x: A batch.
        p: Aᵀ u, and Dᵀ w if there is a w.
        bound: L.
    """

    def call(self, x: Any, p: Any, bound: Tensor) -> tuple[Any, Tensor, Tensor]:
        inverse = reciprocal(bound)
        sigma = ops.ones_like(bound) * self.relative_length / self.ratio
        moved = tree.map_structure(lambda x, p: x - self.ratio * (inverse * (inverse * p)), x, p)
        return moved, self.ratio * inverse * inverse, sigma / 2 if self.has_variation else sigma

    def compute_output_spec(self, x: Any, p: Any, bound: Any) -> Any:
        length, sigma = (keras.KerasTensor((1,), self.compute_dtype) for _ in range(2))
        return like(x, self.compute_dtype), length, sigma


@keras.saving.register_keras_serializable(package="keras_adjoint")
class DualStep(keras.layers.Layer):
    """(u, A x, y, σ) ↦ (u + σ (A x − y)) / (1 + σ), which u is the dual of the data."""

    def call(self, u: Any, given: Any, y: Any, sigma: Tensor) -> Any:
        return tree.map_structure(lambda u, given, y: (u + sigma * (given - y)) / (1 + sigma), u, given, y)

    def compute_output_spec(self, u: Any, given: Any, y: Any, sigma: Any) -> Any:
        return like(u, self.compute_dtype)


class _OfVariation(keras.layers.Layer):
    """A layer of the discrete gradient D, with the weight of the total variation.

    Args:
        weight: Of the total variation.
        learned: Whether it is multiplied by a number that is trained, and positive.
        details: The fields of `Details`.
    """

    def __init__(
        self, weight: float = 1.0, learned: bool = False, details: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.weight_at_first, self.learned, self.details = weight, learned, Details(**(details or {}))
        self.log_factor = self.add_weight(shape=(), initializer="zeros", name="threshold") if learned else None
        self.built = True

    @property
    def weight(self) -> Any:
        """The weight of the total variation, as it is now."""
        return self.weight_at_first if self.log_factor is None else self.weight_at_first * ops.exp(self.log_factor)

    def get_config(self) -> dict[str, Any]:
        own = {"weight": self.weight_at_first, "learned": self.learned, "details": vars(self.details)}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_adjoint")
class VariationStart(_OfVariation):
    """x ↦ zeros like D x."""

    def call(self, x: Any) -> Any:
        return tree.map_structure(lambda x: ops.zeros_like(self.details.differences(x).forward(x)), x)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class VariationPull(_OfVariation):
    """(p, w) ↦ p + Dᵀ w."""

    def call(self, p: Any, w: Any) -> Any:
        return tree.map_structure(lambda p, w: p + self.details.differences(p).adjoint(w), p, w)

    def compute_output_spec(self, p: Any, w: Any) -> Any:
        return like(p, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class VariationDual(_OfVariation):
    """(w, x, τ, σ) ↦ w + σ' D x, where it is longer than the weight shortened to that; τ σ' ‖D‖² is what τ σ L² is."""

    def call(self, w: Any, x: Any, bound: Tensor, sigma: Tensor) -> Any:
        def moved(w: Tensor, x: Tensor) -> Tensor:
            D = self.details.differences(x)
            inverse = reciprocal(bound)
            return within(w + sigma / D.norm_squared * (D.forward(x) / inverse / inverse), self.weight)

        return tree.map_structure(moved, w, x)

    def compute_output_spec(self, w: Any, x: Any, bound: Any, sigma: Any) -> Any:
        return like(w, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SplittingStep(_Balanced):
    """(x, g, z, v, L) ↦ (x − η (g + ρ Sᵀ(S x − z + v)), 1/ρ) with ρ = r L²/‖S‖² and η = θ/(L² + ρ ‖S‖²).

    S is the identity, or the discrete gradient.

    Call arguments:
        x: A batch.
        g: Aᵀ (A x − y).
        z: What S x is to become.
        v: By how much it missed that so far.
        bound: L.
    """

    def call(self, x: Any, g: Any, z: Any, v: Any, bound: Tensor) -> tuple[Any, Tensor]:
        inverse = reciprocal(bound)
        length = self.relative_length / (1 + self.ratio)  # times 1/L² that of g

        def moved(x: Tensor, g: Tensor, z: Tensor, v: Tensor) -> Tensor:
            downhill = inverse * (inverse * g)
            if not self.has_variation:
                return x - length * (downhill + self.ratio * (x - z + v))
            D = self.details.differences(x)
            return x - length * (downhill + self.ratio / D.norm_squared * D.adjoint(D.forward(x) - z + v))

        axes = self.details.differences(tree.flatten(x)[0]).norm_squared if self.has_variation else 1.0
        return tree.map_structure(moved, x, g, z, v), inverse * inverse * axes / self.ratio

    def compute_output_spec(self, x: Any, g: Any, z: Any, v: Any, bound: Any) -> Any:
        return like(x, self.compute_dtype), keras.KerasTensor((1,), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class VariationSplit(_OfVariation):
    """(x, v, 1/ρ) ↦ (z, v) after them: z is D x + v with every vector shorter by weight/ρ, and v what that took off."""

    def call(self, x: Any, v: Any, step: Tensor) -> tuple[Any, Any]:
        ahead = tree.map_structure(lambda x, v: self.details.differences(x).forward(x) + v, x, v)
        missed = tree.map_structure(lambda leaf: within(leaf, step * self.weight), ahead)
        return tree.map_structure(lambda ahead, missed: ahead - missed, ahead, missed), missed

    def compute_output_spec(self, x: Any, v: Any, step: Any) -> Any:
        return like(v, self.compute_dtype), like(v, self.compute_dtype)
