"""A model with its adjoint layers converted into stock layers."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.keras_internals import Functional, calls_of, layers_inside
from keras_adjoint.layers.adjoint import recorded_source
from keras_adjoint.layers.adjoint_of_adjoint import AdjointOfAdjoint
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.layers.call_pattern import flat
from keras_adjoint.layers.computation import calls_as, check_called_plainly
from keras_adjoint.layers.copying import copying
from keras_adjoint.layers.distributed import DistributedAdjoint
from keras_adjoint.layers.sharing import copy_state, freeze_alike
from keras_adjoint.layers.sizes import recorded_shapes, without_steps
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import LinearWrapper, axes_of_steps, wrappers_of
from keras_adjoint.operators.lipschitz import Lipschitz
from keras_adjoint.ops import Shape
from keras_adjoint.recursion import deep_recursion
from keras_adjoint.stock.converters import NOT_STOCK, converter_for
from keras_adjoint.stock.freezing import freeze_like, trains
from keras_adjoint.stock.operations import OPERATIONS, joined
from keras_adjoint.stock.pieces import scaled
from keras_adjoint.stock.steps import UNKNOWN, AdjointCall, Branches, Step, received, refuse
from keras_adjoint.stock.wrapped import kernel_index, number, times, times_factor


def is_graph(layer: Layer) -> bool:
    """Whether a layer is a model that computes by the graph of its layers alone."""
    return calls_as(layer, keras.Sequential) or calls_as(layer, Functional)


class Converter:
    """Records what replaced each layer, so that a layer that was shared is shared again."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.copies: dict[int, tuple[Layer, Layer]] = {}  # id of a layer: the layer, its copy
        self.made: dict[tuple[int, bytes], tuple[Step, Layer]] = {}  # adjoint layer and fingerprint: step, stock layer
        self.scaled: dict[tuple[int, float], tuple[Layer, Layer]] = {}  # by a layer and its factor: old, new
        self.distributed: dict[tuple[int, int], Layer] = {}  # id of a stock layer, number of axes of steps: around it
        self.owners: list[tuple[Tied | Lipschitz, Step, Layer]] = []  # adjoint layer, step, stock layer
        self.names: Counter[str] = Counter()

    def model(self, model: keras.Model) -> keras.Model:
        """A copy of a model with every adjoint layer converted."""
        if calls_as(model, keras.Sequential):
            if getattr(model, "inputs", None) is None:
                raise ValueError(f"Build the model before untying it. Received: {received(model)}")
            inputs, outputs = model.inputs[0], model.outputs[0]
        elif calls_as(model, Functional):
            inputs, outputs = model.input, model.output
        else:
            raise ValueError(
                f"`untie` reads the graphs of Functional and Sequential models, and a model with a `call` of its own, or with "
                f"forward hooks, has none. Write it as a Functional one, or untie its parts. Received: {received(model)}"
            )
        # The copy of a compiled model would be compiled, with whatever losses that takes; this one is not.
        with deep_recursion():
            graph = keras.Model(inputs, outputs, name=model.name)
            return keras.models.clone_model(graph, clone_function=self.layer)

    def single(self, layer: Layer) -> keras.Model:
        """A model of one layer, called as it was called first."""
        calls = calls_of(layer)
        if calls:
            arguments = calls[0].arguments
            shape, others, options = calls[0].input_tensors[0].shape, arguments.args[1:], arguments.kwargs
        else:
            shape, others, options = shape_of_input(layer), (), {}
        if shape is None:
            raise SizeError(
                f"The shape of the layer's input is not known, and its source recorded none. Call the layer on a "
                f"`keras.Input` before untying it. Received: {received(layer)}"
            )
        inputs = keras.Input(shape[1:], dtype=layer.variable_dtype)
        return keras.Model(inputs, self.layer(layer)(inputs, *others, **options), name=layer.name)

    def layer(self, layer: Layer) -> Callable[..., Any]:
        """What the copy calls in place of a layer."""
        core = inside_steps(layer)
        if isinstance(core, Tied):
            return partial(self.convert, layer, core, converter_for(core))
        if type(layer) in OPERATIONS:
            return partial(OPERATIONS[type(layer)], layer)
        if isinstance(core, Lipschitz):
            return partial(self.limit, layer, core)
        is_plain = any(isinstance(each, LinearWrapper) for each in wrappers_of(layer))
        if core is not layer and (is_plain or is_graph(core)):
            return self.at_every_step(self.layer(core), layer)
        if id(layer) not in self.copies:
            self.copies[id(layer)] = layer, self.copy(layer)
        return self.copies[id(layer)][1]

    def copy(self, layer: Layer) -> Layer:
        check_called_plainly(layer)
        if is_graph(layer):
            return self.model(layer)
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation of `keras.ops`, which holds nothing
        if type(layer).__module__.partition(".")[0] == __name__.partition(".")[0]:
            refuse(layer, NOT_STOCK.get(type(layer), UNKNOWN))
        inner = next((inner for inner in layers_inside(layer) if isinstance(inner, (Tied, LinearWrapper))), None)
        if inner is not None:
            raise NoRuleError(
                f"`{inner.name}` is inside of `{layer.name}`, where stock layers cannot take its place. Untie it alone, or "
                f"use it in a Functional or Sequential model. Received: {received(layer)}"
            )
        with copying(layer):
            return type(layer).from_config(layer.get_config())

    def convert(
        self,
        layer: Layer,
        tied: Tied,
        converter: Callable[[AdjointCall], list[Step] | Branches],
        y: keras.KerasTensor,
        output_size: Any = None,
        training: bool | None = None,
        mask: Any = None,
        change: Callable[[list[Step]], list[Step]] = list,
    ) -> Any:
        """Apply the stock layers that an adjoint layer is converted into, called as it was called, at every step if it was."""
        options = {} if output_size is None else {"output_size": output_size}
        axes = axes_of_steps(layer)
        spec = layer.compute_output_spec(y, **options)
        input_shape, output_shape = (
            keras.tree.map_structure(lambda x: without_steps(tuple(x.shape), axes), each) for each in (y, spec)
        )
        steps = converter(AdjointCall(tied, input_shape, output_shape, self.to))
        y = joined(flat(y))
        if isinstance(steps, Branches):
            return [self.follow(layer, tied, change(chain), y) for chain in steps.chains]
        return self.follow(layer, tied, change(steps), y)

    def limit(self, layer: Layer, limited: Lipschitz, x: keras.KerasTensor, **options: Any) -> keras.KerasTensor:
        """Apply the layer inside of a `Lipschitz` layer with the kernel that it computes with, at every step if it does."""
        axes = axes_of_steps(layer) - axes_of_steps(limited)
        factor = number(limited.factor(without_steps(tuple(x.shape), axes)))
        inner, core = limited.layer, inside_steps(limited.layer)
        if isinstance(core, Tied):
            change = partial(times, factor=factor, keep_bias=True)
            result: keras.KerasTensor = self.convert(layer, core, converter_for(core), x, change=change)
            return result
        if kernel_index(inner) is None:
            if factor != 1:
                x = self.at_every_step(self.stock_layer(limited, scaled(factor)), layer, axes)(x)
            plain = self.layer(inner)
            return (self.at_every_step(plain, layer, axes) if axes else plain)(x)
        if (id(limited), float(factor)) not in self.scaled:
            number_so_far = self.names[limited.name]
            self.names[limited.name] += 1
            copy = self.copy(inner)
            copy.name = f"{limited.name}_{number_so_far}" if number_so_far else limited.name
            self.scaled[id(limited), float(factor)] = inner, copy
        return self.at_every_step(self.scaled[id(limited), float(factor)][1], layer, axes)(x)

    def follow(self, layer: Layer, tied: Tied, steps: list[Step], y: keras.KerasTensor) -> keras.KerasTensor:
        """`y` after all steps of the conversion."""
        for step in steps:
            y = self.at_every_step(self.stock_layer(tied, step), layer)(y)
        return y

    def at_every_step(self, stock: Any, layer: Layer, axes: int | None = None) -> Any:
        """A stock layer, called at every step if `layer` is; the same one wherever it is."""
        axes = axes_of_steps(layer) if axes is None else axes
        if axes and (id(stock), axes) not in self.distributed:
            wrapped = stock
            for number in range(axes):
                name = f"{stock.name}_at_each_step" if number == axes - 1 else None
                wrapped = keras.layers.TimeDistributed(wrapped, dtype=layer.dtype_policy, name=name)
            self.distributed[id(stock), axes] = wrapped
        return self.distributed[id(stock), axes] if axes else stock

    def stock_layer(self, tied: Tied | Lipschitz, step: Step) -> Layer:
        """The layer of a step; the same one wherever an adjoint layer takes the same step."""
        key = id(tied), step.fingerprint()
        if key not in self.made:
            name = f"{tied.name}_{in_snake_case(step.layer_class.__name__)}"
            number = self.names[name]
            self.names[name] += 1
            layer = step.make(name=f"{name}_{number}" if number else name, dtype=tied.dtype_policy)
            layer.trainable = layer.trainable and tied.trainable and trains(tied)
            self.made[key] = step, layer
            self.owners.append((tied, step, layer))
        return self.made[key][1]

    def copy_weights(self) -> None:
        """Give the new layers their values, now that all of them are built."""
        for old, new in self.copies.values():
            if isinstance(old, keras.layers.Layer) and not is_graph(old):
                copy_state(new, old, by="name")
        for (_, factor), (old, new) in self.scaled.items():
            weights = old.get_weights()
            place = kernel_index(old)
            new.set_weights([times_factor(one, factor) if i == place else one for i, one in enumerate(weights)])
            freeze_alike(new.weights, old.weights)
        for step, layer in self.made.values():
            layer.set_weights(step.weights)
        for tied, step, layer in self.owners:
            if isinstance(tied, Tied):
                freeze_like(layer, step, tied)


def inside_steps(layer: Any) -> Any:
    """The layer inside of every `TimeDistributed`, and of wrappers that change nothing; without any the layer itself."""
    while type(layer) in (keras.layers.TimeDistributed, DistributedAdjoint) or (
        isinstance(layer, LinearWrapper) and not layer.scales
    ):
        layer = layer.layer
    return layer


def shape_of_input(layer: Layer) -> Shape | None:
    """The shape of what a layer that was never called takes: that it was built for, or that its source gives."""
    built_for = (layer.get_build_config() or {}).get("input_shape")
    if built_for is not None:
        return tuple(built_for)
    if isinstance(layer, AutomaticAdjoint) and [len(one.outputs) for one in layer.patterns[:1]] == [1]:
        return layer.patterns[0].output_shapes[0]  # which custom layers need not be able to say
    if isinstance(layer, AdjointOfAdjoint):
        return next(iter(layer.source.recorded_shapes()), None)
    source = layer.source if isinstance(layer, Tied) else recorded_source(layer)
    if source is None:
        return None
    recorded = layer.recorded_shapes() if isinstance(layer, Tied) else recorded_shapes(source)
    return tuple(source.compute_output_shape(recorded[0])) if recorded else None


def in_snake_case(name: str) -> str:
    """`Conv2DTranspose` as `conv2d_transpose`, which is how Keras names layers after their class."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name).lower()
