"""The linear part of a model with activations, which is what an adjoint test of such a model is about."""

from typing import Any

import keras

from keras_adjoint.errors import KerasAdjointError
from keras_adjoint.keras_internals import Functional
from keras_adjoint.models.adjoint import adjoint
from keras_adjoint.models.graph import trace
from keras_adjoint.models.policies import calls_activation, ends_in_activation


def linear_part_of_model(model: Any) -> tuple[keras.Model, keras.Model] | None:
    """(A, Aᵀ) for the linear part A of a model, as if it had no activations.

    `None` for what is no model, has no activation, or is more than activations away from linear.
    """
    if not isinstance(model, (Functional, keras.Sequential)):
        return None
    try:
        calls = trace(model).calls
        if not any(calls_activation(call) or ends_in_activation(call.operation) for call in calls):
            return None
        backward = adjoint(model, linear_part=True)
        return adjoint(backward), backward
    except KerasAdjointError:
        return None
