"""The Keras model that learns a dictionary: codes and kernel in turns, a step of each for every batch."""

from typing import Any, Protocol, Self

import keras
from keras import ops, tree

from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.solve import rows_of
from keras_adjoint.solvers.sparse_codes import Lasso
from keras_adjoint.solvers.system import dot

MEASURED = ("error", "used", "converged")


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

    By the envelope theorem the gradient of the optimum is that at fixed codes.

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
        weight = ops.stop_gradient(found.weight)
        with lasso.problem.at(coding.operands()) as system:
            missed = rows - system.forward(codes)
        return {
            "error": dot(missed, missed)[:, 0] / 2,
            "penalty": weight * ops.sum(ops.abs(codes), axis=-1),
            "used": ops.mean(ops.cast(codes != 0, rows.dtype), axis=-1),
            "converged": ops.cast(found.converged, rows.dtype),
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        for name, average in self.averages.items():
            average.update_state(y_pred[name], sample_weight)
        objective = y_pred["error"] + y_pred["penalty"]
        return ops.mean(objective if sample_weight is None else objective * ops.cast(sample_weight, objective.dtype))

    def compute_output_spec(self, y: Any, **kwargs: Any) -> dict[str, Any]:
        batch = tree.flatten(y)[0].shape[0]
        names = ("error", "penalty", "used", "converged")
        return {name: keras.KerasTensor((batch,), dtype=self.coding.D.precision) for name in names}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coding": keras.saving.serialize_keras_object(self.coding)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DictionaryLearning":
        return cls(**{**config, "coding": keras.saving.deserialize_keras_object(config["coding"])})
