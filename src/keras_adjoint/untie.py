"""`untie`: the same computation in stock Keras layers, for people who do not have this package."""

import keras

from keras_adjoint.layers.tied import Tied
from keras_adjoint.rules import describe
from keras_adjoint.stock import KINDS, stock_steps


def untie(layer_or_model, *, to="conv_transpose"):
    """A model of stock Keras layers that computes the same to rounding, with copies of all weights.

    Args:
        layer_or_model: An adjoint layer that has been called, or a Functional or Sequential model with adjoint layers in
            it, nested models included.
        to: What becomes of an adjoint convolution. "conv_transpose": a transposed convolution with the very same kernel,
            then crops or zeros to the exact size; the kernel of a grouped one is written out with zeros between its
            groups. "conv": a plain convolution with the flipped kernel, and at stride s one to s phases per axis, which
            reshapes and permutations interleave.

    Returns:
        A `keras.Model` without any layer of this package. It is not compiled.

    Raises:
        NoRuleError: If a layer cannot be expressed by stock layers: max pooling, which needs its switches, or a layer
            whose size is unknown.
        ValueError: If `to` is unknown, or the argument is neither a layer that has been called nor such a model.

    Example:

    >>> inputs = keras.Input((9, 8, 3))
    >>> conv = keras.layers.Conv2D(4, 3, strides=2)
    >>> model = keras.Model(inputs, ka.adjoint(conv)(conv(inputs)))
    >>> [type(layer).__name__ for layer in ka.untie(model).layers]
    ['InputLayer', 'Conv2D', 'Conv2DTranspose', 'ZeroPadding2D']
    """
    if to not in KINDS:
        raise ValueError(f"`to` must be one of {', '.join(KINDS)}. Received: to={to!r}")
    converter = Converter(to)
    if isinstance(layer_or_model, keras.Model):
        model = converter.model(layer_or_model)
    elif isinstance(layer_or_model, keras.layers.Layer):
        model = converter.single(layer_or_model)
    else:
        raise ValueError(f"`untie` takes a Keras layer or model. Received: {layer_or_model!r}")
    converter.copy_weights()
    return model


class Converter:
    """Remembers what every layer became, so that a layer that was shared is shared again."""

    def __init__(self, to):
        self.to = to
        self.clones = {}
        self.stock = {}

    def model(self, model):
        """A model with every adjoint layer written out."""
        if isinstance(model, keras.Sequential):
            if not model.built:
                raise ValueError(f"Build the model before untying it. Received: {describe(model)}")
            outputs = inputs = keras.Input(batch_shape=model.input_shape, dtype=model.inputs[0].dtype)
            for layer in model.layers:
                outputs = self.layer(layer)(outputs)
            return keras.Model(inputs, outputs, name=model.name)
        if not hasattr(model, "_functional") and not model.__class__.__name__ == "Functional":
            raise ValueError(
                f"`untie` reads the graph of Functional and Sequential models; write a subclassed one as a Functional one. "
                f"Received: {describe(model)}"
            )
        compiled, model.compiled = model.compiled, False  # a compiled model would hand its optimizer to the copy
        try:
            return keras.models.clone_model(model, clone_function=self.layer)
        finally:
            model.compiled = compiled

    def single(self, layer):
        """A model of one layer, for the shape that it was called with."""
        nodes = layer._inbound_nodes
        shape = nodes[0].input_tensors[0].shape if nodes else (layer.get_build_config() or {}).get("input_shape")
        if shape is None:
            raise ValueError(f"Call the layer before untying it, so that its size is known. Received: {describe(layer)}")
        inputs = keras.Input(batch_shape=(None, *shape[1:]), dtype=layer.compute_dtype)
        return keras.Model(inputs, self.layer(layer)(inputs), name=layer.name)

    def layer(self, layer):
        """What takes the place of a layer when the copy is called."""
        if isinstance(layer, Tied):
            return lambda y, **kwargs: self.write_out(layer, y, **kwargs)
        if id(layer) not in self.clones:
            nested = isinstance(layer, keras.Model)
            self.clones[id(layer)] = layer, self.model(layer) if nested else self.copy(layer)
        return self.clones[id(layer)][1]

    @staticmethod
    def copy(layer):
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation of `keras.ops`, which holds nothing
        return type(layer).from_config(layer.get_config())

    def write_out(self, tied, y, **kwargs):
        """Apply the stock layers of an adjoint layer."""
        key = id(tied), tuple(y.shape), str(kwargs)
        if key not in self.stock:
            output = tied.compute_output_spec(y, **kwargs)
            steps = stock_steps(tied, tuple(y.shape), tuple(output.shape), self.to)
            for step in steps:
                step.layer.dtype_policy = tied.dtype_policy
            self.stock[key] = tied, steps
        for step in self.stock[key][1]:
            y = step.layer(y)
        return y

    def copy_weights(self):
        """Give the new layers their values, now that all of them are built."""
        for old, new in self.clones.values():
            if isinstance(old, keras.layers.Layer) and not isinstance(old, keras.Model):
                for new_variable, old_variable in zip(new.variables, old.variables, strict=True):
                    new_variable.assign(old_variable)
                if hasattr(new, "finalize_state"):
                    new.finalize_state()
        for _, steps in self.stock.values():
            for step in steps:
                step.layer.set_weights(step.weights)
