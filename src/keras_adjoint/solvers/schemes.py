"""The methods of `unroll`, each as what a step makes of symbolic tensors, in layers that can be saved."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.models.ties import clone_tied
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.solvers import unroll_options
from keras_adjoint.solvers.momentum import factors
from keras_adjoint.solvers.operator_layers import OperatorLayer
from keras_adjoint.solvers.splitting_layers import (
    DualStep,
    PrimalStep,
    SplittingStep,
    VariationDual,
    VariationPull,
    VariationSplit,
    VariationStart,
)
from keras_adjoint.solvers.step_layers import FirstBound, GradientStep, Momentum, ProximalStep, ZeroStart
from keras_adjoint.solvers.unroll_options import COPIES, Options

State = tuple[Any, ...]


class Parts:
    """The layers of an unrolled network, of which some belong to one step and others to all.

    Args:
        source: The layer whose linear part A is.
        A: Its operator.
        options: See `Options`.
        tied: Whether all steps share the kernel of the source, `"forward"` for A alone.
        start: What gives the first x from y; by default it is zero.
        **of_operator: The options of `operator`.
    """

    def __init__(
        self,
        source: keras.layers.Layer,
        A: Operator,
        options: Options,
        tied: bool | str,
        start: keras.layers.Layer | None = None,
        **of_operator: Any,
    ) -> None:
        self.source, self.A, self.options, self.tied, self.of_operator = source, A, options, tied, of_operator
        self.start = start

    def name(self, what: str, step: int) -> str:
        """The name of a layer of one step, counted from 0."""
        return f"{self.source.name}_{what}_{step + 1}"

    @cached_property
    def shared(self) -> OperatorLayer:
        """The layer of the source's kernel, which all steps call."""
        return OperatorLayer(self.source, **self.of_operator)

    def bound(self, y: Any) -> Any:
        """L for all steps."""
        if self.tied is not False:
            return self.shared.part("bound", y)
        # That of every copy in every call would take longer than the steps.
        bound = float(keras.ops.convert_to_numpy(self.A.bound()))
        return FirstBound(bound, dtype=self.A.precision, name=f"{self.source.name}_first_bound")(y)

    def gradient(self, step: int, x: Any, y: Any) -> Any:
        """Aᵀ (A x − y)."""
        if self.tied is True:
            return self.shared.part("gradient", x, y)
        forward = self.shared if self.tied == COPIES else self.copy("forward", step)
        return self.copy("transpose", step).part("adjoint", forward.part("residual", x, y))

    def forward(self, step: int, x: Any) -> Any:
        """A x."""
        layer = self.copy("forward", step) if self.tied is False else self.shared
        return layer.part("forward", x)

    def adjoint(self, step: int, y: Any) -> Any:
        """Aᵀ y."""
        layer = self.shared if self.tied is True else self.copy("transpose", step)
        return layer.part("adjoint", y)

    def copy(self, what: str, step: int) -> OperatorLayer:
        """The layer of a copy of the source, which is trained although the source may be frozen."""
        copied = clone_tied(self.source)
        copied.trainable = True
        return OperatorLayer(copied, tied=False, name=self.name(what, step), **self.of_operator)

    def zeros(self, space: Space, what: str, y: Any) -> Any:
        """Zeros of a space."""
        return ZeroStart(space.shape, dtype=self.A.precision, name=f"{self.source.name}_{what}")(y)

    def balanced(self, layer_class: type[Any], step: int) -> Any:
        """A step of a method that splits the problem."""
        return layer_class(
            "step" in self.options.learn,
            has_variation=self.has_variation,
            details=vars(self.options.details),
            dtype=self.A.precision,
            name=self.name("step", step),
        )

    @property
    def has_variation(self) -> bool:
        """Whether the penalty is the total variation, which some methods split off."""
        return self.options.prox == "tv"

    def of_variation(self, layer_class: type[Any], what: str, step: int, is_weighted: bool = False) -> Any:
        """A layer of the discrete gradient."""
        return layer_class(
            self.options.weight,
            learned=is_weighted and self.options.learns_threshold,
            details=vars(self.options.details),
            dtype=self.A.precision,
            name=self.name(what, step),
        )

    def gradient_step(self, step: int) -> GradientStep:
        """A step downhill."""
        return GradientStep("step" in self.options.learn, dtype=self.A.precision, name=self.name("step", step))

    def prox(self, step: int, x: Any, length: Any) -> Any:
        """What a proximal operator, or a model, makes of x."""
        options = self.options
        if isinstance(options.prox, list):
            return options.prox[step](x)
        layer = ProximalStep(
            options.prox,
            options.weight,
            learned=options.learns_threshold,
            details=vars(options.details),
            dtype=self.A.precision,
            name=self.name("prox", step),
        )
        return layer(x, length)

    def momentum(self, step: int, factor: float) -> Momentum:
        """Where the last two x lead."""
        is_learned = "momentum" in self.options.learn
        return Momentum(factor, is_learned, dtype=self.A.precision, name=self.name("momentum", step))


class Scheme(ABC):
    """A method.

    Args:
        parts: What it takes its layers from.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def begin(self, y: Any) -> State:
        """The state before the first step."""
        parts = self.parts
        if parts.start is not None:
            return (unroll_options.started(parts.start, y, parts.A),)
        return (parts.zeros(parts.A.in_space, "start", y),)

    @abstractmethod
    def step(self, number: int, state: State, y: Any, bound: Any) -> State:
        """The state after a step. Its first part is the solution."""


class ProximalGradient(Scheme):
    """ISTA: x⁺ = prox(x − τ Aᵀ(A x − y), τ). Daubechies, Defrise and De Mol 2004."""

    def step(self, number: int, state: State, y: Any, bound: Any) -> State:
        return (self.proximal_gradient(number, state[0], y, bound),)

    def proximal_gradient(self, number: int, x: Any, y: Any, bound: Any) -> Any:
        """One step from x."""
        parts = self.parts
        gradient = parts.gradient(number, x, y)
        moved, length = parts.gradient_step(number)(x, gradient, bound)
        return parts.prox(number, moved, length)


class Accelerated(ProximalGradient):
    """FISTA: the same from where the last two x lead. Beck and Teboulle 2009."""

    def step(self, number: int, state: State, y: Any, bound: Any) -> State:
        x, before = state[0], state[-1]
        # The first factor is 0, and after the last step there is none.
        ahead = x if number < 2 else self.parts.momentum(number - 1, factors(number)[-1])(x, before)
        return self.proximal_gradient(number, ahead, y, bound), x


class PrimalDual(Scheme):
    """The saddle point of ⟨A x − y, u⟩ − ½‖u‖² + R(x), or of total variation ⟨D x, w⟩ with |w| ≤ weight.

    Chambolle and Pock 2011. It converges with τ (σ L² + σ' ‖D‖²) ≤ 1.
    """

    def begin(self, y: Any) -> State:
        x, u = *super().begin(y), self.parts.zeros(self.parts.A.out_space, "dual_start", y)
        if not self.parts.has_variation:
            return x, u
        return x, u, self.parts.of_variation(VariationStart, "variation_start", 0)(x)

    def step(self, number: int, state: State, y: Any, bound: Any) -> State:
        parts, (x, u, *w) = self.parts, state
        pull = parts.adjoint(number, u)
        if w:
            pull = parts.of_variation(VariationPull, "pull", number)(pull, w[0])
        moved, length, sigma = parts.balanced(PrimalStep, number)(x, pull, bound)
        moved = moved if w else parts.prox(number, moved, length)
        ahead = Momentum(1.0, dtype=parts.A.precision, name=parts.name("ahead", number))(moved, x)
        dual = DualStep(dtype=parts.A.precision, name=parts.name("dual", number))
        u = dual(u, parts.forward(number, ahead), y, sigma)
        if not w:
            return moved, u
        variation = parts.of_variation(VariationDual, "variation", number, is_weighted=True)
        return moved, u, variation(w[0], ahead, bound, sigma)


class Splitting(Scheme):
    """ADMM, linearised: ½‖A x − y‖² + R(z) with z = x, or with z = D x and the lengths of z for total variation.

    The quadratic problem in x is replaced by one step downhill, with which it converges if η (L² + ρ ‖S‖²) ≤ 1 (Boyd et al.
    2011, section 4.4.2).
    """

    def begin(self, y: Any) -> State:
        (x,) = super().begin(y)
        z = self.parts.of_variation(VariationStart, "variation_start", 0)(x) if self.parts.has_variation else x
        return (x, x, z, z)

    def step(self, number: int, state: State, y: Any, bound: Any) -> State:
        parts, (_, x, z, v) = self.parts, state
        gradient = parts.gradient(number, x, y)
        x, length = parts.balanced(SplittingStep, number)(x, gradient, z, v, bound)
        if parts.has_variation:
            z, v = parts.of_variation(VariationSplit, "variation", number, is_weighted=True)(x, v, length)
            return x, x, z, v
        # Not `add`, which takes an empty batch for a bias on TensorFlow.
        ahead = tree.map_structure(lambda x, v: ops.subtract(x, ops.negative(v)), x, v)
        z = parts.prox(number, ahead, length)
        return z, x, z, tree.map_structure(ops.subtract, ahead, z)


SCHEMES: dict[str, type[Scheme]] = {
    "ista": ProximalGradient,
    "fista": Accelerated,
    "primal_dual": PrimalDual,
    "admm": Splitting,
}
