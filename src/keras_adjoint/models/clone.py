"""Copies of whole models that keep their ties."""

import keras

from keras_adjoint.layers.sharing import copy_value, copy_with_ties


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
    clone = copy_with_ties(model)
    if copy_weights:
        for new, old in zip(clone.variables, model.variables, strict=True):
            copy_value(new, old)
    return clone
