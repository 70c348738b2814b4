"""Ties of whole models: whether they hold, and copies that keep them."""

import keras

from keras_adjoint.keras_files import shared_while_saving
from keras_adjoint.keras_internals import layers_inside, own_variables
from keras_adjoint.layers.copying import copying
from keras_adjoint.layers.distributed import innermost
from keras_adjoint.layers.options import boolean
from keras_adjoint.layers.registered import layers_besides
from keras_adjoint.layers.sharing import copy_state, read_config
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.backend import untraced


def is_tied(a: keras.layers.Layer, b: keras.layers.Layer | None = None) -> bool:
    """Whether kernels are shared rather than copied.

    Args:
        a: A layer or model. A single adjoint layer is tied if it reads a kernel that is not its own.
        b: Another layer or model. If given: whether all adjoint layers in `a` read variables of `b`, or those in `b`
            variables of `a`. If not: whether all adjoint layers in the model `a` read variables of other layers of `a`.

    Returns:
        A Boolean; `False` if there is no adjoint layer at all.

    Raises:
        ValueError: If an argument is no Keras layer.

    Example:

    >>> inputs = keras.Input((9, 9, 1))
    >>> conv = keras.layers.Conv2D(4, 3)
    >>> features = conv(inputs)
    >>> model = keras.Model(inputs, ka.adjoint(conv)(features))
    >>> ka.is_tied(model), ka.is_tied(model, conv), ka.is_tied(conv)
    (True, True, False)
    """
    for argument, value in (("a", a), ("b", b)):
        if not isinstance(value, keras.layers.Layer) and not (argument == "b" and value is None):
            raise ValueError(f"`is_tied` takes Keras layers or models. Received: {argument}={value!r}")
    if b is not None:
        return _reads(a, _own_variables(b)) or _reads(b, _own_variables(a))
    adjoint = innermost(a)
    if isinstance(adjoint, Tied):
        return adjoint.tied
    return _reads(a, _own_variables(a))


def _reads(reader: keras.layers.Layer, variables: set[int]) -> bool:
    adjoints = [layer for layer in layers_besides(reader) if isinstance(layer, Tied) and _first_source(layer).weights]
    return bool(adjoints) and all(
        layer.tied and all(id(variable) in variables for variable in _first_source(layer).weights) for layer in adjoints
    )


def _first_source(layer: Tied) -> keras.layers.Layer:
    """The layer whose kernel is read. An adjoint between them may have a bias, which is not read."""
    source: keras.layers.Layer = layer.source
    return _first_source(source) if isinstance(source, Tied) else source


def _own_variables(root: keras.layers.Layer) -> set[int]:
    """Identities of all variables in `root` that do not only belong to the source of an adjoint layer."""
    owned: set[int] = set()
    for layer in layers_besides(root):
        owned.update(id(variable) for variable in own_variables(layer))
    return owned


@untraced
def clone_tied(model: keras.layers.Layer, *, copy_weights: bool = True) -> keras.layers.Layer:
    """A new model with variables of its own, in which adjoint layers read the kernels of the new model's layers.

    `keras.models.clone_model` copies layer by layer, so that every adjoint layer gets a kernel of its own. This function
    copies the model as a file would.

    Args:
        model: A built Keras model or layer that can be saved.
        copy_weights: Whether the new variables get the values of the old ones, or fresh ones from their initializers.

    Returns:
        A model of the same class, not compiled further than `model` is.

    Raises:
        ValueError: If `model` is not a Keras layer or not built.

    Example:

    >>> inputs = keras.Input((9,))
    >>> dense = keras.layers.Dense(4)
    >>> code = dense(inputs)
    >>> model = keras.Model(inputs, ka.adjoint(dense)(code))
    >>> clone = ka.clone_tied(model)
    >>> ka.is_tied(clone), ka.is_tied(clone, model)
    (True, False)
    """
    if not isinstance(model, keras.layers.Layer) or not model.built:
        raise ValueError(f"`clone_tied` takes a built Keras model or layer. Received: model={model!r}")
    copy_weights = boolean("copy_weights", copy_weights)
    clone = copy_with_ties(model)
    if copy_weights:
        copy_state(clone, model, by="path")
        _settle_switches(clone)  # of sources that were another model's, whose variables have the switches of there now
    return clone


def copy_with_ties(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer or model from the config of `layer`, in which what was one layer is one layer again."""
    with copying(layer):
        with shared_while_saving():
            config = keras.saving.serialize_keras_object(layer)
        with shared_while_saving():
            copy: keras.layers.Layer = read_config(config)
    _settle_switches(copy)
    return copy


def _settle_switches(copy: keras.layers.Layer) -> None:
    for each in (copy, *layers_inside(copy)):
        if isinstance(each, Tied):
            each.settle_switch()
