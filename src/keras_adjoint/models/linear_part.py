"""The backward pass through the linear part of a model: as if its layers had no activations, and it called none."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.registry import class_with_rule, describe
from keras_adjoint.models.backward import BackwardPass, locate_errors
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents
from keras_adjoint.models.policies import calls_activation, keeps_shape


class LinearPartBackwardPass(BackwardPass):
    """A `BackwardPass` that leaves out activations: those that layers end in, layers such as `ReLU`, and operations."""

    def transpose_call(self, call: Call, cotangents: Cotangents) -> Cotangents:
        if not calls_activation(call):
            return super().transpose_call(call, cotangents)
        with locate_errors(call):
            self.integers.check(call)
        if not keeps_shape(call):
            raise NoRuleError(
                f"`{call.place}` is an activation that does not give one tensor of the shape of another, so it cannot be left "
                f"out. Take the adjoint of a part of the model that ends before it. Received: {describe(call.operation)}"
            )
        return cotangents

    def adjoint_of(self, call: Call, name: str) -> keras.layers.Layer:
        second = self.second_adjoint_of(call, name)
        if second is not None:
            return second
        with saying_what_is_left_out(call.operation):
            return self.linear_adjoint_of(call, name=name)


@contextmanager
def saying_what_is_left_out(layer: keras.layers.Layer) -> Iterator[None]:
    """Say in errors about a layer without a rule what was left out of it: nothing."""
    try:
        yield
    except NoRuleError as error:
        if class_with_rule(layer) is not None:
            raise
        raise NoRuleError(
            f"`linear_part=True` leaves out activations that a model calls or that end a layer with a rule, and nothing inside "
            f"of another layer. {error}"
        ) from error
