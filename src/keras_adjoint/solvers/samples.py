"""Samples that are not finite: they have no solution, leave the others and gradients alone, and a warning names them."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current


def finite_rows(rows: Tensor) -> Tensor:
    """Which rows are finite, as a column."""
    return ops.all(ops.isfinite(rows), axis=-1, keepdims=True)


def maxima(x: Tensor) -> Tensor:
    """The largest numbers along the last axis, which is kept; of no samples none, where backends raise errors."""
    return ops.zeros_like(x[..., :1]) if x.shape[0] == 0 else ops.max(x, axis=-1, keepdims=True)


def named(chosen: Any) -> str:
    """The numbers of the samples that an array of booleans chooses, as text."""
    samples = np.flatnonzero(chosen)
    return ", ".join(map(str, samples[:5])) + (f" and {len(samples) - 5} others" if len(samples) > 5 else "")


def warn_of_missing(solver: str, missing: Any, given: str = "y") -> None:
    """Warn of samples that have no solution, if there are any."""
    if np.any(missing):
        warnings.warn(
            f"{solver}: {given} is not finite in sample {named(missing)}, which has no solution. Other samples are not "
            "touched by that.",
            stacklevel=3,
        )


@keras.saving.register_keras_serializable(package="keras_adjoint")
class FiniteSamples(keras.layers.Layer):
    """y ↦ (y with zeros in the place of samples that are not finite, which samples are finite).

    What is not finite times a derivative of zero is not zero, and kernels are shared by the samples.
    """

    def call(self, y: Any) -> tuple[Any, Tensor]:
        leaves = tree.flatten(y)
        each = [ops.all(ops.isfinite(leaf), axis=tuple(range(1, len(leaf.shape)))) for leaf in leaves]
        is_finite = ops.all(ops.stack(each), axis=0)
        if current().is_concrete([is_finite]):
            warn_of_missing(f"`{self.name}`", ~np.asarray(ops.convert_to_numpy(is_finite)))
        return tree.map_structure(lambda leaf: ops.where(_beside(leaf, is_finite), leaf, 0.0), y), is_finite

    def compute_output_spec(self, y: Any) -> tuple[Any, Any]:
        batch = tree.flatten(y)[0].shape[0]
        cleaned = tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, self.compute_dtype), y)
        return cleaned, keras.KerasTensor((batch,), "bool")


@keras.saving.register_keras_serializable(package="keras_adjoint")
class OfFiniteSamples(keras.layers.Layer):
    """(x, which samples of y were finite) ↦ x with NaN for the others."""

    def call(self, x: Any, is_finite: Tensor) -> Any:
        return tree.map_structure(lambda leaf: ops.where(_beside(leaf, is_finite), leaf, float("nan")), x)

    def compute_output_spec(self, x: Any, is_finite: Any) -> Any:
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, self.compute_dtype), x)


def _beside(leaf: Tensor, marks: Tensor) -> Tensor:
    """One number for each sample, broadcast to the axes of a tensor."""
    return ops.reshape(marks, (-1, *(1 for _ in leaf.shape[1:])))
