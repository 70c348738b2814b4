"""A model with its adjoint layers written out in stock layers."""

from collections import Counter
from functools import partial

import keras
from keras.src.models.functional import Functional
from keras.src.utils.naming import to_snake_case

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.sharing import copy_value
from keras_adjoint.layers.tied import Tied
from keras_adjoint.stock.steps import Branches, Call, received, refuse
from keras_adjoint.stock.write import OTHERS, writer_for


class Converter:
    """Remembers what every layer became, so that a layer that was shared is shared again."""

    def __init__(self, to):
        self.to = to
        self.copies = {}  # id of a layer: the layer, its copy
        self.written = {}  # id of an adjoint layer, fingerprint of a step: the step, its stock layer
        self.names = Counter()

    def model(self, model):
        """A copy of a model with every adjoint layer written out."""
        if isinstance(model, keras.Sequential):
            if getattr(model, "inputs", None) is None:
                raise ValueError(f"Build the model before untying it. Received: {received(model)}")
            inputs, outputs = model.inputs[0], model.outputs[0]
        elif isinstance(model, Functional):
            inputs, outputs = model.input, model.output
        else:
            raise ValueError(
                f"`untie` reads the graphs of Functional and Sequential models, and a subclassed model has none. Write it as "
                f"a Functional one, or untie its parts. Received: {received(model)}"
            )
        # The copy of a compiled model would be compiled, with whatever losses that takes; this one is not.
        graph = keras.Model(inputs, outputs, name=model.name)
        return keras.models.clone_model(graph, clone_function=self.layer)

    def single(self, layer):
        """A model of one layer, called as it was called first."""
        calls = layer._inbound_nodes
        if calls:
            arguments = calls[0].arguments
            shape, others, options = calls[0].input_tensors[0].shape, arguments.args[1:], arguments.kwargs
        else:
            shape, others, options = (layer.get_build_config() or {}).get("input_shape"), (), {}
        if shape is None:
            raise ValueError(
                f"The shape of the layer's input is not known. Call the layer on a `keras.Input` before untying it. "
                f"Received: {received(layer)}"
            )
        inputs = keras.Input(shape[1:], dtype=layer.variable_dtype)
        return keras.Model(inputs, self.layer(layer)(inputs, *others, **options), name=layer.name)

    def layer(self, layer):
        """What takes the place of a layer when the copy is called."""
        if isinstance(layer, Tied):
            return partial(self.write_out, layer, writer_for(layer))
        if id(layer) not in self.copies:
            self.copies[id(layer)] = layer, self.copy(layer)
        return self.copies[id(layer)][1]

    def copy(self, layer):
        if isinstance(layer, (keras.Sequential, Functional)):
            return self.model(layer)
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation of `keras.ops`, which holds nothing
        if type(layer) in OTHERS:
            refuse(layer, "no arrangement of them is known that computes it")
        inner = next((inner for inner in layer._flatten_layers() if isinstance(inner, Tied)), None)
        if inner is not None:
            raise NoRuleError(
                f"`{inner.name}` is inside of `{layer.name}`, where stock layers cannot take its place. Untie it alone, or "
                f"use it in a Functional or Sequential model. Received: {received(layer)}"
            )
        return type(layer).from_config(layer.get_config())

    def write_out(self, tied, write, y, output_size=None, training=None, mask=None):
        """Apply the stock layers that an adjoint layer is written out in, called as it was called."""
        options = {} if output_size is None else {"output_size": output_size}
        output_shape = keras.tree.map_structure(lambda x: tuple(x.shape), tied.compute_output_spec(y, **options))
        written = write(Call(tied, tuple(y.shape), output_shape, self.to))
        if isinstance(written, Branches):
            return [self.follow(tied, steps, y) for steps in written.chains]
        return self.follow(tied, written, y)

    def follow(self, tied, steps, y):
        """`y` after all steps."""
        for step in steps:
            y = self.stock_layer(tied, step)(y)
        return y

    def stock_layer(self, tied, step):
        """The layer of a step; the same one wherever an adjoint layer takes the same step."""
        key = id(tied), step.fingerprint()
        if key not in self.written:
            name = f"{tied.name}_{to_snake_case(step.layer_class.__name__)}"
            number = self.names[name]
            self.names[name] += 1
            layer = step.make(name=f"{name}_{number}" if number else name, dtype=tied.dtype_policy)
            layer.trainable = layer.trainable and tied.trainable and bool(tied.trainable_weights)
            self.written[key] = step, layer
        return self.written[key][1]

    def copy_weights(self):
        """Give the new layers their values, now that all of them are built."""
        for old, new in self.copies.values():
            if isinstance(old, keras.layers.Layer) and not isinstance(old, keras.Model):
                for new_variable, old_variable in zip(new.variables, old.variables, strict=True):
                    # By way of NumPy, since in JAX an assigned variable shares its buffer, which training then deletes.
                    copy_value(new_variable, old_variable)
                if hasattr(new, "finalize_state"):
                    new.finalize_state()
        for step, layer in self.written.values():
            layer.set_weights(step.weights)
