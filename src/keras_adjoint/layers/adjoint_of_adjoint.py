"""The adjoint of an adjoint: the linear part of the source, which is the source itself only if that has nothing besides."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.layers.adjoint import linear_adjoint, probe_shape, recorded_source
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.layers.dense import AdjointEmbedding
from keras_adjoint.layers.norm import AdjointScaling
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule
from keras_adjoint.layers.selection import AdjointSelection
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.tied import Tied, call_at_inference
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.dot_test import operator_dtype

# Adjoints whose source, called as it is, computes something else: with a shift, from words, or by its own maxima.
OF_OTHER_OPERATORS = (AdjointScaling, AdjointEmbedding, AdjointMaxPooling, AdjointGlobalMaxPooling, AdjointSelection)

# Layers with a rule that add something besides a bias.
SHIFTING = (keras.layers.BatchNormalization, keras.layers.Normalization, keras.layers.Rescaling)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointOfAdjoint(Tied):
    """The adjoint of an adjoint layer: the forward operator A, which is the layer behind it without bias and activation.

    Args:
        source: An adjoint layer that is exact.
        tied: See `Tied`.

    Call arguments:
        x: Tensor of the shape that the layer behind the adjoint takes.
        switches: For the adjoint of max pooling, the tensor that was pooled.

    Input shape: That of the layer behind the adjoint.
    Output shape: The same.

    Example:

    >>> dense = keras.layers.Dense(3, activation="relu", bias_initializer="ones")
    >>> dense.build((None, 5))
    >>> adjoint = ka.adjoint(dense, linear_part=True)
    >>> keras.ops.convert_to_numpy(AdjointOfAdjoint(adjoint)(np.zeros((1, 5)))).tolist()
    [[0.0, 0.0, 0.0]]
    """

    @property
    def needs_switches(self) -> bool:
        return bool(getattr(self.source, "needs_switches", False))

    def call(self, x: Tensor, switches: Tensor | None = None) -> Tensor:
        return self.source.apply_forward(x, **({} if switches is None else {"switches": switches}))

    def compute_output_spec(self, y: Any, **switches: Any) -> Any:
        if isinstance(self.source, AdjointEmbedding):
            return keras.KerasTensor((*y.shape[:-1], self.source.source.output_dim), self.compute_dtype)
        automatic = isinstance(self.source, AutomaticAdjoint)
        given = self.source.forward_spec(y) if automatic else self.source.source.compute_output_spec(y)
        return tree.map_structure(lambda x: keras.KerasTensor(x.shape, self.compute_dtype), given)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(self.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype)).shape)

    def shape_of_x(self, recorded: Shape) -> Shape:
        return recorded


def second_adjoint(
    layer: keras.layers.Layer, *, tied: bool = True, name: str | None = None, anew: bool = False
) -> keras.layers.Layer | None:
    """The adjoint of a layer that is an adjoint itself; `None` if it is none, or none is known that way.

    Args:
        layer: Any layer.
        tied: Whether to read the layer's variables or copies of them.
        name: The name of a new layer.
        anew: Whether the result has to be a new layer.

    Returns:
        The layer's source, if that is the very operator and may be returned, and otherwise a new layer.
    """
    if not isinstance(layer, Tied):
        source = recorded_source(layer)
        if source is None or anew or (not tied and layer.weights):
            return None
        return source if is_linear_as_it_is(source) and shares_all(source, layer) else None
    if not layer.exact:
        return None  # it was made from its source, but is not its adjoint
    if not tied and layer.weights:
        owner: Any = linear_adjoint(first_source(layer), tied=False)
        if not isinstance(layer, AdjointOfAdjoint):
            if not is_forward_of(owner):
                return AdjointOfAdjoint(owner, tied=False, name=name)
            owner = owner.source
        owner.name = name or owner.name
        return owner
    if isinstance(layer, AdjointOfAdjoint) and (anew or not is_linear_as_it_is(layer.source)):
        return linear_adjoint(first_source(layer), name=name)
    return layer.source if not anew and is_forward_of(layer) else AdjointOfAdjoint(layer, name=name)


def first_source(layer: Tied) -> keras.layers.Layer:
    """The layer behind an adjoint, or behind the adjoint of one, that is no adjoint."""
    return layer.source.source if isinstance(layer, AdjointOfAdjoint) else layer.source


def is_forward_of(layer: Tied) -> bool:
    """Whether the source of an adjoint layer, called as it is, is the operator that the layer is the adjoint of."""
    if isinstance(layer, AutomaticAdjoint):
        return layer.source_is_forward()
    return not isinstance(layer, OF_OTHER_OPERATORS) and is_linear_as_it_is(layer.source)


def is_linear_as_it_is(layer: keras.layers.Layer) -> bool:
    """Whether a linear layer ends in no activation and adds nothing."""
    if isinstance(layer, keras.layers.Wrapper):
        return is_linear_as_it_is(layer.layer)
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return False
    if getattr(layer, "bias", None) is not None or getattr(layer, "bias_mode", "none") != "none":
        return False
    if isinstance(layer, SHIFTING) and np.any(getattr(layer, "offset", 1)):
        return False
    known = isinstance(layer, Tied) or class_with_rule(layer) not in {None, *REGISTERED_BY_USERS}
    return known or is_zero_at_zero(layer)


def is_zero_at_zero(layer: keras.layers.Layer) -> bool:
    """Whether a layer, of which this package does not know what it adds, gives zeros for zeros."""
    shape = probe_shape(layer)
    if shape is None:
        return False
    found = call_at_inference(layer, ops.zeros(shape, operator_dtype(layer)))
    return not any(np.any(ops.convert_to_numpy(y)) for y in tree.flatten(found))


def shares_all(layer: keras.layers.Layer, other: keras.layers.Layer) -> bool:
    """Whether two layers have the very same variables, so that neither changes without the other."""
    mine, theirs = ({id(variable) for variable in each.variables} for each in (layer, other))
    return mine == theirs
