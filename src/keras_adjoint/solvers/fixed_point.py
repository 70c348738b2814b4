"""`FixedPoint`: what the steps of an unrolled network converge to, as a layer, with the gradient of the solution."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.layers.sharing import read_config
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.equilibrium import Equilibrium
from keras_adjoint.solvers.lstsq import Solution
from keras_adjoint.solvers.operator_layers import OperatorLayer
from keras_adjoint.solvers.samples import finite_rows, named, warn_of_missing
from keras_adjoint.solvers.shapes import symbolic, with_batch


@keras.saving.register_keras_serializable(package="keras_adjoint")
class FixedPoint(keras.layers.Layer):
    """y ↦ the x that a step leaves as it is.

    Args:
        cell: One step as a model: lists of the parts of a state, of y, and L, to the state after it, in which x is first.
            Its `OperatorLayer` gives L.
        accelerated: Whether steps are taken with momentum.
        tolerance: ‖T(x) − x‖ relative to ‖T(0)‖, where T is the step.
        max_steps: The most steps.

    Call arguments:
        y: A batch.
    """

    def __init__(
        self,
        cell: keras.Model,
        *,
        accelerated: bool,
        tolerance: float,
        max_steps: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        self.accelerated, self.tolerance, self.max_steps = accelerated, tolerance, max_steps
        self.__dict__["equilibrium"] = Equilibrium(self._step, accelerated, tolerance, max_steps)
        self.built = True

    equilibrium: Equilibrium

    @property
    def operator(self) -> OperatorLayer:
        """The layer of the operator, which the step calls."""
        return next(layer for layer in self.cell.layers if isinstance(layer, OperatorLayer))

    @property
    def spaces(self) -> tuple[Space, Space, Space]:
        """Those of x, of y, and of the state."""
        A = self.operator.A
        return A.in_space, A.out_space, Space(tuple(tuple(x.shape[1:]) for x in self.cell.outputs))

    def solution(self, y: Any) -> Solution:
        """The `Solution`, with the steps, ‖T(x) − x‖ and the status of each sample.

        Args:
            y: A batch.
        """
        found, steps, missed, converged = _found(self, y)
        return Solution(found, steps, missed, converged)

    def call(self, y: Any) -> Any:
        solution = self.solution(y)
        if current().is_concrete([solution.converged]):
            self._report(solution)
        return solution.x

    def _step(self, operands: Sequence[Tensor], rows: Tensor) -> Tensor:
        *values, y, bound = operands
        _, outputs, state = self.spaces
        mapping = list(zip(self.cell.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            found = self.cell([*state.split(rows), *outputs.split(y), bound], training=False)
        return state.join(tree.flatten(found))

    def _report(self, solution: Solution) -> None:
        norms = ops.stop_gradient(solution.residual_norm)  # of which JAX knows numbers while it differentiates
        converged, norms = (np.asarray(ops.convert_to_numpy(each)) for each in (solution.converged, norms))
        warn_of_missing(f"`{self.name}`", ~converged & ~np.isfinite(norms))
        failed = ~converged & np.isfinite(norms)
        if failed.any():
            warnings.warn(
                f"`{self.name}` did not converge to the tolerance of {self.tolerance:g} in {self.max_steps} steps in sample "
                f"{named(failed)}; their x is the last one, see `converged` of its `solution(y)`. Pass a "
                f"larger `tolerance` or more `max_steps` to `unroll`.",
                stacklevel=3,
            )

    def compute_output_spec(self, y: Any) -> Any:
        return symbolic(self.spaces[0], y, self.compute_dtype, self.spaces[1], self.name)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return with_batch(self.spaces[0], input_shape)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("accelerated", "tolerance", "max_steps")}
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "cell": read_config(config["cell"])})


def _fixed_point(layer: FixedPoint, y: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    inputs, outputs, state = layer.spaces
    rows = outputs.join(outputs.leaves(y, layer.compute_dtype, layer.name))
    is_finite = finite_rows(rows)
    rows = ops.where(is_finite, rows, ops.zeros_like(rows))
    # The fixed point does not depend on how long the steps are.
    bound = ops.stop_gradient(layer.operator.part("bound", y))
    operands = [ops.copy(each) for each in layer.cell.variables]  # TensorFlow's variables are no tensors
    start = ops.zeros((ops.shape(rows)[0], state.size), rows.dtype)
    found, steps, missed, converged = layer.equilibrium.find([*operands, rows, bound], start)
    x = ops.where(is_finite, found[:, : inputs.size], float("nan"))  # of no y there is no solution
    missed = ops.where(is_finite[:, 0], missed, float("nan"))
    return inputs.pack(inputs.split(x)), steps, missed, converged & is_finite[:, 0]


_found = current().untraced(_fixed_point)
