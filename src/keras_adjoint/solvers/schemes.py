"""The methods of `unroll`, each as what a step makes of symbolic tensors, in layers that can be saved."""

from abc import ABC, abstractmethod
from typing import Any

import keras

from keras_adjoint.models.ties import clone_tied
from keras_adjoint.operators.operator import Operator
from keras_adjoint.solvers import unroll_options
from keras_adjoint.solvers.momentum import factors
from keras_adjoint.solvers.operator_layers import DataGradient, SquaredBound
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
        self.shared = DataGradient(source, **self.of_operator) if tied is True else None

    def name(self, what: str, step: int) -> str:
        """The name of a layer of one step, counted from 0."""
        return f"{self.source.name}_{what}_{step + 1}"

    def squared_bound(self, y: Any) -> Any:
        """L² for all steps."""
        if self.tied is not False:
            return SquaredBound(self.source, **self.of_operator)(y)
        # That of every copy in every call would take longer than the steps.
        bound = float(keras.ops.convert_to_numpy(self.A.bound()))
        return FirstBound(bound**2, dtype=self.A.precision, name=f"{self.source.name}_first_bound")(y)

    def gradient(self, step: int) -> DataGradient:
        """Aᵀ (A x − y)."""
        if self.shared is not None:
            return self.shared
        learned, name = self.copy(), self.name("gradient", step)
        if self.tied == COPIES:
            return DataGradient(self.source, learned=learned, name=name, **self.of_operator)
        return DataGradient(self.copy(), learned=learned, tied=False, name=name, **self.of_operator)

    def copy(self) -> keras.layers.Layer:
        """A copy of the source, which is trained although the source may be frozen."""
        copied = clone_tied(self.source)
        copied.trainable = True
        return copied

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
            learned="threshold" in options.learn and options.scales,
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
        """The state before the first step: x, and what else the method keeps."""
        parts = self.parts
        if parts.start is not None:
            return (unroll_options.started(parts.start, y, parts.A),)
        start = ZeroStart(parts.A.in_shape, dtype=parts.A.precision, name=f"{parts.source.name}_start")
        return (start(y),)

    @abstractmethod
    def step(self, number: int, state: State, y: Any, squared_bound: Any) -> State:
        """The state after a step. Its first part is x."""


class ProximalGradient(Scheme):
    """ISTA: x⁺ = prox(x − τ Aᵀ(A x − y), τ). Daubechies, Defrise and De Mol 2004."""

    def step(self, number: int, state: State, y: Any, squared_bound: Any) -> State:
        return (self.proximal_gradient(number, state[0], y, squared_bound),)

    def proximal_gradient(self, number: int, x: Any, y: Any, squared_bound: Any) -> Any:
        """One step from x."""
        parts = self.parts
        gradient = parts.gradient(number)(x, y)
        moved, length = parts.gradient_step(number)(x, gradient, squared_bound)
        return parts.prox(number, moved, length)


class Accelerated(ProximalGradient):
    """FISTA: the same from where the last two x lead. Beck and Teboulle 2009."""

    def step(self, number: int, state: State, y: Any, squared_bound: Any) -> State:
        x, before = state[0], state[-1]
        # The first factor is 0, and after the last step there is none.
        ahead = x if number < 2 else self.parts.momentum(number - 1, factors(number)[-1])(x, before)
        return self.proximal_gradient(number, ahead, y, squared_bound), x


SCHEMES: dict[str, type[Scheme]] = {"ista": ProximalGradient, "fista": Accelerated}
