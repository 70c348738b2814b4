"""The backward pass through a graph of linear layers: each is replaced by its adjoint, named after it, at its size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.errors import KerasAdjointError, NoRuleError, SizeError
from keras_adjoint.keras_internals import producer_of
from keras_adjoint.layers.activations import ActivationGradient
from keras_adjoint.layers.adjoint import check_linear, linear_adjoint
from keras_adjoint.layers.adjoint_of_adjoint import second_adjoint
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.layers.call_pattern import one_or_list
from keras_adjoint.layers.derivative import CallGradient
from keras_adjoint.layers.own_copy import own_copy
from keras_adjoint.layers.registry import describe
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.automatic import (
    adjoint_of_call,
    adjoint_of_operation,
    check_own_constants,
    is_automatic,
    operator_of,
)
from keras_adjoint.models.batch_axis import check_batch_axis
from keras_adjoint.models.calls import Call
from keras_adjoint.models.constants import WITH_CONSTANTS
from keras_adjoint.models.deep import CALLS, DeepModel
from keras_adjoint.models.graph import Cotangents, Graph, transpose_graph
from keras_adjoint.models.integers import Integers
from keras_adjoint.models.masks import MaskedShare, check_mask, share_by_mask
from keras_adjoint.models.names import Names
from keras_adjoint.models.operations import has_rule, transpose_operation
from keras_adjoint.models.policies import GRADIENT
from keras_adjoint.models.refused_calls import check_announced, check_real_numbers, check_training
from keras_adjoint.models.steps import SamplesToSteps, StepsToSamples
from keras_adjoint.models.zeros import zeros
from keras_adjoint.ops.precision import epsilon

PART = "mirror a part of the model that has no such layer"


class BackwardPass:
    """Builds the tensors that lead from a graph's outputs back to its inputs.

    Args:
        graph: A `Graph`.
        tied: Whether the adjoints read the kernels of the graph's layers or copies of them.
        records: Whether activations of the forward pass may be used.
        taken: Names that the new layers may not have.

    Attributes:
        records_used: The activations of the forward pass that were used.
        unreached: The graph's inputs that no cotangent arrived at.
    """

    def __init__(self, graph: Graph, *, tied: bool = True, records: bool = False, taken: Iterable[str] = ()) -> None:
        self.graph = graph
        self.tied = tied
        self.records = records
        self.records_used: list[keras.KerasTensor] = []
        self.unreached: list[keras.KerasTensor] = []
        self.names = Names(graph, taken)
        self.integers = Integers(graph.calls)
        self._with_steps: dict[int, keras.KerasTensor] = {}  # by the tensor with as many steps in the graph
        self._made: dict[tuple[int, str, str], keras.layers.Layer] = {}

    # --- the pass

    def run(self, output_cotangents: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
        """The cotangents of the graph's inputs; zeros for inputs that none arrives at."""
        for call in self.graph.calls:
            check_real_numbers(call)
        self.names.stop_at(output_cotangents)
        found = transpose_graph(self.graph, output_cotangents, self.transpose_call, self.add)
        self.unreached = [x for x, cotangent in zip(self.graph.inputs, found, strict=True) if cotangent is None]
        return [
            self.zeros_at(x, output_cotangents[0]) if cotangent is None else cotangent
            for x, cotangent in zip(self.graph.inputs, found, strict=True)
        ]

    def zeros_at(self, x: keras.KerasTensor, like: keras.KerasTensor) -> keras.KerasTensor:
        """Zeros for an input of the graph that no cotangent arrives at."""
        model = next((call.place.partition("/")[0] for call in self.graph.calls), "model")
        try:
            return self.zeros(x, like)
        except SizeError as error:
            raise SizeError(f"At the input `{model}/{producer_of(x).name}`: {error}") from error

    def zeros(self, tensor: keras.KerasTensor, like: keras.KerasTensor) -> keras.KerasTensor:
        """Zeros for a tensor that no cotangent arrives at, as many samples as `like` has; its size may be recorded."""
        if self.records and None in tensor.shape[1:]:
            self.records_used.append(tensor)
            return ops.zeros_like(tensor, dtype=like.dtype)
        return zeros(tuple(tensor.shape[1:]), like=like)

    def model(self, name: str) -> keras.Model:
        """A Functional model from the graph's outputs to its inputs."""
        inputs = [
            keras.Input(batch_shape=y.shape, dtype=y.dtype, name=name_of_input)
            for y, name_of_input in zip(self.graph.outputs, self.names_of_inputs(), strict=True)
        ]
        return self.build(packed_as(self.graph.output_structure, inputs), self.run(inputs), name)

    def names_of_inputs(self) -> list[str]:
        """Names for the inputs of the backward pass: the keys of a dictionary, by which Keras distributes what it is given."""
        paths = tree.flatten_with_path(self.graph.output_structure)
        return [
            self.names.for_input("_".join(map(str, path)))
            if any(isinstance(key, str) for key in path)
            else self.names.new(f"from_{producer_of(y).name}")
            for y, (path, _) in zip(self.graph.outputs, paths, strict=True)
        ]

    def build(self, inputs: Any, outputs: list[keras.KerasTensor], name: str) -> keras.Model:
        """The Functional model from inputs, in any structure, to cotangents of the graph's inputs, in their structure."""
        given = tree.flatten(inputs)
        outputs = [self.pass_on(y) if any(y is x for x in given) else y for y in outputs]
        self.names.rename_others(outputs)
        model_class = DeepModel if len(self.graph.calls) > CALLS else keras.Model
        return model_class(inputs, packed_as(self.graph.input_structure, outputs), name=name)

    def pass_on(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """The same tensor as a layer's output: Keras before 3.14 makes no model that returns its input itself."""
        layer = keras.layers.Identity(dtype=tensor.dtype, name=self.names.new("identity"))
        self.names.keep(layer)
        return layer(tensor)

    # --- one call

    def transpose_call(self, call: Call, cotangents: Cotangents) -> Cotangents:
        """The cotangents of a call's inputs, from those of its outputs."""
        like = next(filter(is_symbolic, cotangents))
        with locate_errors(call):
            ys = [
                self.zeros(output, like) if y is None else y for output, y in zip(call.outputs, cotangents, strict=True)
            ]
            self.integers.check(call)
            check_batch_axis(call)
            check_announced(call)
            if not isinstance(call.operation, keras.layers.Layer):
                if has_rule(call.operation):
                    if not self.tied and isinstance(call.operation, WITH_CONSTANTS):
                        check_own_constants(call)
                    return transpose_operation(call, ys)
                layer = self.layer(call, "adjoint", lambda name: adjoint_of_operation(call, name, tied=self.tied))
                return self.apply(layer, call, ys)
            if isinstance(call.operation, (StepsToSamples, SamplesToSteps)):
                return self.transpose_steps(call, ys)
            check_training(call)
            if is_linear_at_recorded(call.operation):
                return self.transpose_at_recorded(call, ys)
            if isinstance(call.operation, ActivationGradient):
                raise NoRuleError(
                    f'`{call.place}`, the gradient of an activation by "guided", sets negative cotangents to zero, which '
                    f"is not linear. `keras_adjoint.autoencoder` has its gradient: "
                    f'`activation={{{call.operation.name!r}: "gradient"}}`, with what you chose for all others as `"default"`. '
                    f'Or make the decoder in this model by `activation="gradient"`. Received: {describe(call.operation)}'
                )
            check_mask(call, records=self.records)
            layer = self.layer(call, "adjoint", lambda name: self.adjoint_of(call, name))
            if getattr(layer, "needs_switches", False) and self.records and call.recorded:
                for x in call.recorded:
                    self.recorded(x, call, "an unpooling", PART)
                return [layer(one_or_list(ys), switches=call.parameters["switches"])]
            if getattr(layer, "needs_switches", False):
                raise NoRuleError(
                    "Max pooling is linear only once its switches are fixed, as is all that selects, so a model with it has no "
                    "adjoint. "
                    f"`mirror` and `autoencoder` have policies for it. Received: {describe(call.operation)}"
                )
            return self.apply(layer, call, ys)

    def transpose_steps(self, call: Call, ys: list[keras.KerasTensor]) -> Cotangents:
        """The same for what makes steps samples, or samples steps: the cotangent there knows how many of each there are."""
        dtype = call.operation.dtype_policy
        if isinstance(call.operation, SamplesToSteps):
            (self._with_steps[id(call.recorded[0])],) = ys
            return [self.layer(call, "adjoint", lambda name: StepsToSamples(dtype=dtype, name=name))(*ys)]
        join = self.layer(call, "adjoint", lambda name: SamplesToSteps(dtype=dtype, name=name))
        return [join(*ys, self._with_steps[id((call.recorded or call.inputs)[0])])]

    def adjoint_of(self, call: Call, name: str) -> keras.layers.Layer:
        """The adjoint of the layer of a call."""
        layer = call.operation
        second = self.second_adjoint_of(call, name)
        if second is not None:
            return second
        check_linear(layer, advice=" Pass `linear_part=True` to leave out every activation of the model. Or:")
        return self.linear_adjoint_of(call, name=name)

    def transpose_at_recorded(self, call: Call, ys: list[keras.KerasTensor]) -> Cotangents:
        """The same for a layer that is linear for given activations of the forward pass, at these activations."""
        if not self.records:
            policies = ", ".join(f'{policy}="{choice}"' for policy, choice in GRADIENT.items())
            raise NoRuleError(
                f"`{call.place}` is linear only at what the model recorded of its input, so the model is not linear, and its "
                f"output alone does not tell what that was. Its gradient, entry by entry, is "
                f"`keras_adjoint.autoencoder(model, {policies})`. Otherwise {PART}. Received: {describe(call.operation)}"
            )
        for x in call.recorded:
            self.recorded(x, call, "what depends on the input", PART)
        given = {name: value for name, value in call.parameters.items() if name.startswith("recorded")}
        layer = self.layer(call, "adjoint", lambda name: self.adjoint_at_recorded(call.operation, name))
        return list(tree.flatten(layer(one_or_list(ys), **given)))

    def adjoint_at_recorded(self, layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
        if not isinstance(layer, (ActivationGradient, CallGradient)):
            return layer  # it is its own adjoint
        if self.tied:
            return layer.transpose(layer.source, name=name)
        return layer.transpose(own_copy(layer.source), tied=False, name=name)

    def linear_adjoint_of(self, call: Call, **options: Any) -> keras.layers.Layer:
        """The adjoint of the linear part of the layer of a call."""
        if is_automatic(call):
            return adjoint_of_call(call, **options, **self.copy_option())
        return linear_adjoint(call.operation, **options, **self.copy_option())

    def second_adjoint_of(self, call: Call, name: str) -> keras.layers.Layer | None:
        """The adjoint of the layer of a call if that layer is an adjoint itself."""
        found = second_adjoint(call.operation, tied=self.tied, name=name)
        if found is None or found.name == name or self.names.admit(found):
            return found
        return second_adjoint(call.operation, tied=self.tied, name=name, anew=True)

    def copy_option(self) -> dict[str, bool]:
        """The option for adjoints with kernels of their own, where these are wanted."""
        return {} if self.tied else {"tied": False}

    def add(self, tensor: keras.KerasTensor, cotangents: list[keras.KerasTensor]) -> keras.KerasTensor:
        """The sum of the cotangents of a tensor that several calls read."""
        finest = min((cotangent.dtype for cotangent in cotangents), key=epsilon)  # Keras' own choice knows no float64
        layer = keras.layers.Add(dtype=finest, name=self.names.new(f"{producer_of(tensor).name}_sum"))
        self.names.keep(layer)
        return layer(cotangents)

    # --- its layers

    def layer(self, call: Call, role: str, make: Callable[[str], keras.layers.Layer]) -> keras.layers.Layer:
        """The layer that has a role in the transpose of a call, the same one for every call of the same layer that is alike.

        Args:
            call: The call.
            role: A word for the layer's name.
            make: Makes the layer from its name.
        """
        key = id(call.operation), operator_of(call), role
        if key not in self._made:
            self._made[key] = make(self.names.new("_".join([*call.path.split("/"), role])))
            self.names.keep(self._made[key])
        return self._made[key]

    def made_for(self, call: Call) -> dict[str, keras.layers.Layer]:
        """The layers that were made for a call, or for another call of the same layer, by their role."""
        own = id(call.operation), operator_of(call)
        return {role: layer for (*of, role), layer in self._made.items() if tuple(of) == own}

    def apply(self, layer: keras.layers.Layer, call: Call, ys: list[keras.KerasTensor]) -> Cotangents:
        """What a layer gives for the cotangents of a call's outputs, at the size of the call's input."""
        y = one_or_list(ys)
        if isinstance(call.operation, AutomaticAdjoint) and not isinstance(layer, Tied):
            y = call.operation.packed_as_given(ys)  # its source, which takes them in a structure of its own
        result = layer(y, **self._size(layer, call, y))
        options = share_by_mask(call, layer, records=self.records)
        if options is not None:
            dtype, mask = ys[0].dtype, call.parameters["mask"]
            share = self.layer(call, "mask", lambda name: MaskedShare(dtype=dtype, name=name, **options))
            constant = not is_symbolic(mask)
            result = share(result, mask if constant else self.recorded(mask, call, "a mean by a mask", PART))
        return list(tree.flatten(result))

    def _size(self, layer: keras.layers.Layer, call: Call, y: keras.KerasTensor) -> dict[str, Any]:
        if not getattr(layer, "needs_output_size", False):
            return {}
        size = layer.output_size_like(*call.inputs)  # kept in the graph, whatever the source is called with later
        if size is None:
            size = one_or_list([self.tensor_of_unknown_size(x, call) for x in call.inputs])
        return {"output_size": size}

    def tensor_of_unknown_size(self, x: keras.KerasTensor, call: Call) -> keras.KerasTensor:
        """A tensor that has the size of an input of a call."""
        raise SizeError(
            f"`{call.place}` takes inputs of unknown size, which its output does not determine, so the model stands for "
            f"several operators. Give it an input of known size: `keras.Model(x, model(x))` with `x = keras.Input(...)`, "
            f"or take `keras_adjoint.operator(model, size=...)`. Received: {describe(call.operation)}"
        )

    def recorded(self, tensor: keras.KerasTensor, call: Call, what: str, otherwise: str) -> keras.KerasTensor:
        """An activation of the forward pass.

        Args:
            tensor: The activation.
            call: The call that is transposed.
            what: What needs the activation, for the message.
            otherwise: What to do instead, for the message.

        Raises:
            ValueError: If activations may not be used.
        """
        if not self.records:
            raise ValueError(
                f"To undo {what}, a decoder needs an activation that the encoder recorded at `{call.place}`, and `mirror` "
                f"builds one from the code alone. Use `keras_adjoint.autoencoder`, which connects the two, or {otherwise}. "
                f"Received: {describe(call.operation)}"
            )
        self.records_used.append(tensor)
        return tensor


def is_linear_at_recorded(layer: keras.layers.Layer) -> bool:
    """Whether a layer of this package is linear for given activations of the forward pass."""
    gradient = isinstance(layer, ActivationGradient) and not layer.guided
    return gradient or isinstance(layer, (MaskedShare, CallGradient))


@contextmanager
def locate_errors(call: Call) -> Iterator[None]:
    """Put the place of a call into errors about its layer."""
    try:
        yield
    except (KerasAdjointError, ValueError) as error:
        ours = isinstance(error, KerasAdjointError) or type(error) is ValueError
        if not ours or f"`{call.place}`" in str(error):
            raise
        raise type(error)(f"At `{call.place}`: {error}") from error


def packed_as(structure: Any, tensors: Sequence[keras.KerasTensor]) -> Any:
    """Tensors in the lists and dictionaries of a model's inputs or outputs; a single one without a list around it."""
    if isinstance(structure, Mapping) or (isinstance(structure, (list, tuple)) and len(tensors) > 1):
        return tree.pack_sequence_as(structure, list(tensors))
    return one_or_list(tensors)
