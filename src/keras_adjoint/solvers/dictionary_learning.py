"""The Keras model that learns a dictionary: codes and kernel in turns, a step of each for every batch."""

import warnings
from typing import Any, Protocol, Self

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.keras_internals import held_value
from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.samples import finite_rows, named
from keras_adjoint.solvers.solve import rows_of
from keras_adjoint.solvers.sparse_codes import Lasso
from keras_adjoint.solvers.system import dot

MEASURED = ("error", "used", "converged")
OF_FINITE = ("loss", "error", "used")  # means over the signals that have codes


class Coding(Protocol):
    """What the model needs of a `SparseCoding`, which makes it."""

    name: str
    source: Any
    D: Operator
    lasso: Lasso
    unit_atoms: bool

    def without_warning(self, y: Any) -> Any: ...

    def operands(self) -> list[Tensor]: ...


@keras.saving.register_keras_serializable(package="keras_adjoint")
class DictionaryLearning(keras.Model):
    """A model whose loss is ½‖y − D z‖² + weight·‖z‖₁ at the optimal codes z, and whose one weight to train is the kernel.

    By the envelope theorem the gradient of the optimum is that at fixed codes. Signals that are not finite have none, and do
    not count, but as not converged.

    Args:
        coding: A `SparseCoding` layer with unit atoms.

    Call arguments:
        y: A batch of signals.

    Input shape: That of the signals.
    Output shape: A dictionary of what the loss is computed from.
    """

    def __init__(self, coding: Coding, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.coding = coding
        self.built = True
        self.averages = {name: keras.metrics.Mean(name=name) for name in MEASURED}
        self.objective = keras.metrics.Mean(name="objective")

    def ready(self, optimizer: Any, **options: Any) -> Self:
        """This model, ready for `fit`.

        Raises:
            ValueError: See `SparseCoding.learner`.
        """
        if not self.coding.unit_atoms:
            raise ValueError(
                "A dictionary is learned with `unit_atoms=True`: otherwise its atoms would grow forever, so that the codes "
                f"cost less. Received: unit_atoms=False of `{self.coding.name}`"
            )
        if not self.trainable_variables:
            raise ValueError(
                f"The kernel of `{self.coding.source.name}` is frozen, so there is nothing to learn. Set its `trainable`. "
                f"Received: trainable={self.coding.source.trainable}"
            )
        if "loss" in options:
            raise ValueError(f"The loss is the objective of the codes. Received: loss={options['loss']!r}")
        self.compile(optimizer=optimizer, **options)
        return self

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `fit`. Where it ends in an error, on JAX its variables would be left without values."""
        before = [(variable, ops.convert_to_numpy(variable)) for variable in self.coding.source.variables]
        try:
            return super().fit(*args, **kwargs)
        except BaseException:
            getattr(self, "jax_state_sync", lambda: None)()  # what was learned until then, if anything was
            for variable, value in before:
                if held_value(variable) is None:
                    variable.assign(value)
            raise

    @property
    def trainable_variables(self) -> list[Any]:
        """The kernel alone: a bias is no part of the dictionary."""
        kernel = self.coding.source.kernel
        return [each for each in super().trainable_variables if each is kernel]

    @property
    def trainable_weights(self) -> list[Any]:
        return self.trainable_variables

    def call(self, y: Any) -> dict[str, Tensor]:
        coding, lasso = self.coding, self.coding.lasso
        found = coding.without_warning(y)
        rows = rows_of(coding.D.out_space, y, coding.D)
        codes = ops.stop_gradient(rows_of(coding.D.in_space, found.codes, coding.D))
        has_codes = finite_rows(codes)
        rows, codes = ops.where(has_codes, rows, 0.0), ops.where(has_codes, codes, 0.0)
        weight = ops.where(has_codes[:, 0], ops.stop_gradient(found.weight), 0.0)
        with lasso.problem.at(coding.operands()) as system:
            missed = rows - system.forward(codes)
        return {
            "error": dot(missed, missed)[:, 0] / 2,
            "penalty": weight * ops.sum(ops.abs(codes), axis=-1),
            "used": ops.mean(ops.cast(codes != 0, rows.dtype), axis=-1),
            "converged": ops.cast(found.converged, rows.dtype),
            "counted": ops.cast(has_codes[:, 0], rows.dtype),
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        objective, counted = y_pred["error"] + y_pred["penalty"], y_pred["counted"]
        weighted = counted if sample_weight is None else counted * ops.cast(sample_weight, objective.dtype)
        for name, average in self.averages.items():
            average.update_state(y_pred[name], sample_weight if name == "converged" else weighted)
        each = objective if sample_weight is None else objective * ops.cast(sample_weight, objective.dtype)
        self.objective.update_state(each, counted)
        return ops.sum(objective * weighted) / ops.maximum(ops.sum(counted), 1)

    def get_metrics_result(self) -> dict[str, Any]:
        """What is measured so far. Keras would weight losses by the sizes of the batches, with signals that do not count."""
        found = {**super().get_metrics_result(), "loss": self.objective.result()}
        del found["objective"]
        none = ops.equal(ops.convert_to_tensor(self.objective.count), 0)
        return {
            name: ops.where(none, float("nan"), each) if name in OF_FINITE else each for name, each in found.items()
        }

    def compute_output_spec(self, y: Any, **kwargs: Any) -> dict[str, Any]:
        batch = tree.flatten(y)[0].shape[0]
        names = ("error", "penalty", "used", "converged", "counted")
        return {name: keras.KerasTensor((batch,), dtype=self.coding.D.precision) for name in names}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coding": keras.saving.serialize_keras_object(self.coding)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DictionaryLearning":
        return cls(**{**config, "coding": keras.saving.deserialize_keras_object(config["coding"])})


def check_signals(signals: Any) -> None:
    """Raise a ValueError where there is nothing to learn from, and warn of what is left out, as far as that is an array."""
    shape = getattr(signals, "shape", None)
    if signals is None or (shape is not None and len(shape) and shape[0] == 0):
        raise ValueError(
            f"`fit` learns from signals: an array of some, or a dataset. Received: {None if shape is None else tuple(shape)}"
        )
    if isinstance(signals, np.ndarray) and signals.dtype.kind == "f":
        missing = ~np.isfinite(signals).reshape(len(signals), -1).all(axis=1)
        if missing.any():
            warnings.warn(
                f"`SparseCoding`: sample {named(missing)} is not finite, so it has no codes, and nothing is learned from it.",
                stacklevel=3,
            )
