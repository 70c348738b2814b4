"""What layers that go by the norm of the layer inside have in common: its operator at the sizes that they are called with."""

from typing import TYPE_CHECKING, Any

import keras

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.registry import class_with_rule, describe
from keras_adjoint.layers.selection import ADAPTIVE_MAX_POOLS, EXTREMA
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import LinearWrapper, inside
from keras_adjoint.ops import Shape

# With one, two, or more axes as large as this, a convolution's bound is that at every size.
EVERY_SIZE = (2**20, 2**20, 2**16)

_UNWRAPPED = "has no kernel. Leave it unwrapped: `keras_adjoint.certify` goes by its own constant"
L = keras.layers
NOT_LINEAR: dict[tuple[type, ...], str] = {  # and what to do
    (L.Embedding,): "an embedding is called with indices. Use a `Dense` layer on one-hot vectors",
    (L.Activation, L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.Softmax): f"an activation alone {_UNWRAPPED}",
    (
        *(L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D, *EXTREMA),
        *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D, *ADAPTIVE_MAX_POOLS),
    ): f"a maximum {_UNWRAPPED}",
    (L.LayerNormalization, L.GroupNormalization, L.RMSNormalization, L.UnitNormalization): (
        "this normalisation divides by a statistic of what it takes. Leave it out"
    ),
    (L.RNN, L.Bidirectional): "a recurrent layer has activations between its steps. Use convolutions along the steps",
    (L.MultiHeadAttention, L.GroupQueryAttention, L.Attention, L.AdditiveAttention): (
        "attention multiplies tensors that it computes, so it has no constant. Leave it out"
    ),
}

if TYPE_CHECKING:
    from keras_adjoint.operators.operator import Operator


class Measured(LinearWrapper):
    """A wrapper that asks the layer inside for its operator.

    Raises:
        NoRuleError: If the layer inside is a model, or of a type that is not linear.
    """

    measured: keras.layers.Layer  # the layer inside, also where an object stands in for that

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        core, name = inside(layer), type(self).__name__
        if isinstance(core, keras.Model):
            raise NoRuleError(
                f"`{name}` takes a single layer, since what a model computes between its layers need not be linear. Put it "
                f"around every layer of the model. Received: {describe(core)}"
            )
        why = next((why for classes, why in NOT_LINEAR.items() if isinstance(core, classes)), None)
        if why is not None:
            raise NoRuleError(
                f"`{name}` takes a layer that is linear in the tensor it is called with, up to an activation at its end, and "
                f"{why}. Received: {describe(core)}"
            )
        self.__dict__.update(measured=layer, operators={})  # past Keras, which would track what is in it

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if class_with_rule(inside(self.layer)) is None and None not in input_shape[1:]:
            self.operator_at(tuple(input_shape))  # a test of whether the layer is linear needs numbers, not a trace

    def operator_at(self, shape: Shape) -> "Operator":
        """The linear part of the layer inside as an operator on tensors of a shape, batch axis included.

        Where a size is `None`, the tensors are so large that the operator's bound is one at every size.

        Raises:
            SizeError: If the norm may be larger at another size.
        """
        from keras_adjoint.operators.layer_bounds import holds_at_every_size  # imported lazily
        from keras_adjoint.operators.layer_operator import layer_operator

        core, operators = inside(self.measured), self.operators
        if None in shape[1:] and not holds_at_every_size(core):
            raise SizeError(
                f"What norm `{core.name}` has at every size is not known. Build the model for a fixed input size. "
                f"Received: an input of shape {shape}, {describe(core)}"
            )
        is_open = None in shape[1:]
        recorded = self.measured.recorded_shapes() if is_open and isinstance(self.measured, Tied) else []
        large = next((one for one in recorded if None in one[1:]), None)  # which x are large, y alone does not say
        source, taken = (self.measured, as_large(shape)) if large is None else (self.measured.source, as_large(large))
        key = (large is None, taken)
        if key not in operators:
            operator = layer_operator(source, taken, linear_part=True)
            operators[key] = operator if large is None else operator.T
        found: Operator = operators[key]
        return found


def as_large(shape: Shape) -> tuple[int, ...]:
    """A shape without its batch axis, and large where a size is unknown."""
    large = EVERY_SIZE[min(shape[1:].count(None), len(EVERY_SIZE)) - 1]
    return tuple(large if size is None else size for size in shape[1:])
