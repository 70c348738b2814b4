"""The backward pass of a mirror: by adjoints where there are any, and elsewhere by policies."""

from dataclasses import replace
from typing import Any

import keras

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.kernels import BIAS_MODES
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.registry import class_with_rule, describe, options_of
from keras_adjoint.layers.wrapped import WRAPPERS, inside
from keras_adjoint.models.automatic import is_automatic
from keras_adjoint.models.backward import PART, BackwardPass, locate_errors
from keras_adjoint.models.call_gradient import by_all_tensors, gradient_of_call
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents, Graph, trace
from keras_adjoint.models.policies import GRADIENT, Policies, describe_call, ends_in_activation, hints
from keras_adjoint.models.policy_layers import GLOBAL_MAX_POOLS, MAX_POOLS, undo
from keras_adjoint.models.steps import SamplesToSteps, StepsToSamples

# Layers that move or select values and do not change them, so that an activation still holds behind them.
MOVES = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Identity,
    keras.layers.Dropout,
    StepsToSamples,
    SamplesToSteps,
    *MAX_POOLS,
    *GLOBAL_MAX_POOLS,
)

# Layers whose gradient is not their adjoint: of steps that are zeros, `Masking` gives zeros that depend on nothing.
MASKED_STEPS = (keras.layers.Masking,)


class MirrorBackwardPass(BackwardPass):
    """The backward pass through an encoder that need not be linear.

    Args:
        graph: A `Graph` of the encoder's layers, its own or a part of it.
        encoder: The encoder.
        policies: The `Policies`.
        **options: See `BackwardPass`.

    Attributes:
        choices: For each call that was reached what the policies chose. A call that no choice is about is transposed by its
            adjoint, and so is one whose only choice is about the activation that it ends in.

    Raises:
        ValueError: If a policy does not exist, or names a layer that the encoder does not have.
    """

    def __init__(self, graph: Graph, encoder: keras.Model, policies: Policies, **options: Any) -> None:
        layers = layers_inside(encoder)
        policies.check([call.operation for call in graph.calls] + layers)
        if options.get("records"):
            graph = by_all_where_gradient(graph, policies)
        super().__init__(graph, taken=[layer.name for layer in layers], **options)
        self.policies = policies
        self.choices: dict[Call, dict[str, Any]] = {}
        self._code = code_tensors(graph)
        self._network_inputs = self._behind_preprocessing()

    def tensor_of_unknown_size(self, x: keras.KerasTensor, call: Call) -> keras.KerasTensor:
        known = "give the encoder an input of known size: `keras.Model(x, encoder(x))` with `x = keras.Input(...)`"
        return self.recorded(x, call, "an input of unknown size", known)

    def run(self, output_cotangents: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
        found = super().run(output_cotangents)
        pairs = zip(self.graph.inputs, found, strict=True)
        return [self._output_activation(y) if id(x) in self._network_inputs else y for x, y in pairs]

    def transpose_call(self, call: Call, cotangents: Cotangents) -> Cotangents:
        if id(call.outputs[0]) in self._network_inputs:
            cotangents = [self._output_activation(cotangents[0])]
        policy = self.policies.about(call)
        choices = self.choices[call] = {}
        if self.integers.change(call) and self._is_gradient(call):
            return [None] * len(call.inputs)  # integers have no derivative
        with locate_errors(call):
            self.integers.check(call)
            if call.by_all:
                choices[policy or "activation"] = GRADIENT[policy or "activation"]
                return gradient_of_call(self, call, cotangents, "what depends on the input", PART)
            if policy is not None:
                choices[policy] = self.policies.choose(policy, call.operation)
                choice = self._effective(policy, choices[policy], call)
                return undo(self, policy, call, cotangents, choice, call.inputs)
            if ends_in_activation(call.operation):
                choices["activation"] = self.policies.choose("activation", call.operation)
                choice = self._effective("activation", choices["activation"], call)
                cotangents = undo(self, "activation", call, cotangents, choice, call.outputs)
        wants_gradient = self._wants_gradient(call)
        try:
            if not (wants_gradient and isinstance(inside(call.operation), MASKED_STEPS)):
                return super().transpose_call(call, cotangents)
        except NoRuleError:
            if not wants_gradient:
                raise
        except SizeError:
            if not self._knows_sizes_when_it_runs(call):
                raise
            return gradient_of_call(self, call, cotangents, "an input of unknown size", PART, role="derivative")
        with locate_errors(call):
            choices["activation"] = "gradient"
            return undo(self, "activation", call, cotangents, "gradient", call.inputs)

    def _wants_gradient(self, call: Call) -> bool:
        """Whether a call that no policy is about may be differentiated: the mirror is to be the gradient."""
        operation = call.operation
        is_layer = isinstance(operation, keras.layers.Layer)
        no_rule = not is_layer or isinstance(operation, (*WRAPPERS, *MASKED_STEPS)) or is_automatic(call)
        return no_rule and not call.training and self._is_gradient(call)

    def _knows_sizes_when_it_runs(self, call: Call) -> bool:
        """Whether the derivative at the recorded input, which of a linear operation is its adjoint, has the size of that."""
        is_layer = isinstance(call.operation, keras.layers.Layer)
        return self.records and not is_layer and any(None in x.shape[1:] for x in call.inputs)

    def _is_gradient(self, call: Call) -> bool:
        return self.records and self.policies.choose("activation", call.operation) == "gradient"

    def adjoint_of(self, call: Call, name: str) -> keras.layers.Layer:
        """The adjoint of the linear part of a layer, with the bias that the policy gives it."""
        layer = call.operation
        second = self.second_adjoint_of(call, name)
        if second is not None:
            return second
        if is_automatic(call) or class_with_rule(inside(layer)) is None:
            try:
                return self.linear_adjoint_of(call, name=name)
            except NoRuleError as error:
                raise NoRuleError(f"{describe_call(call)} {hints(call)}. Received: {describe(layer)}") from error
        return self.linear_adjoint_of(call, name=name, **self._bias(layer))

    def _bias(self, layer: keras.layers.Layer) -> dict[str, str]:
        choice = self.policies.choose("bias", layer)
        layer = inside(layer)
        if class_with_rule(layer) is None:
            return {}
        options, modes = options_of(layer)
        possible = "bias" in options and choice in (modes or BIAS_MODES)
        starts_from_nothing = choice in READS_SOURCE and getattr(layer, "bias", None) is None
        return {"bias": choice} if possible and choice != "none" and not starts_from_nothing else {}

    def _effective(self, policy: str, choice: Any, call: Call) -> Any:
        """A choice as it holds for a call: the code has passed its activation already, so it passes none again."""
        of_its_own = policy == "activation" and choice not in ("deconvnet", "gradient", "guided")
        return "linear" if of_its_own and id(call.outputs[0]) in self._code else choice

    def _output_activation(self, y: keras.KerasTensor) -> keras.KerasTensor:
        choice = self.policies.output_activation
        if choice is None:
            return y
        layer = keras.layers.Activation(choice, dtype=y.dtype, name=self.names.new("output_activation"))
        self.names.keep(layer)
        return layer(y)

    def _behind_preprocessing(self) -> set[int]:
        """Identities of the tensors behind the preprocessing, one for each input: the inputs of the network proper."""
        readers = self.graph.readers()
        found = {id(tensor) for tensor in self.graph.inputs}
        for call in self.graph.calls:
            x = next(iter(call.inputs), None)
            if id(x) not in found or readers[id(x)] != 1:
                continue
            if isinstance(call.operation, StepsToSamples) or self.policies.about(call) == "preprocessing":
                found.remove(id(x))
                found.add(id(call.outputs[0]))
        return found


def by_all_where_gradient(graph: Graph, policies: Policies) -> Graph:
    """The graph, whose calls act on all that they depend on wherever the policies choose their gradient."""

    def as_chosen(call: Call) -> Call:
        by_all = by_all_tensors(call)
        # The predicates of a policy may ask for what other layers do not have, so they are asked about these calls alone.
        return by_all if by_all is not call and policies.make_gradient_of(call) else call

    return replace(graph, calls=list(map(as_chosen, graph.calls)))


def code_tensors(graph: Graph) -> set[int]:
    """Identities of the tensors that are the code, or become the code by `MOVES` alone and are read by nothing else."""
    readers = graph.readers()
    code = {id(tensor) for tensor in graph.outputs if not readers[id(tensor)]}
    for call in reversed(graph.calls):
        if isinstance(call.operation, MOVES) and id(call.outputs[0]) in code and readers[id(call.inputs[0])] == 1:
            code.add(id(call.inputs[0]))
    return code


def graph_of_encoder(encoder: keras.Model) -> Graph:
    """The `Graph` of a model that is to be mirrored.

    Raises:
        NoRuleError: If the model is no graph of layers.
        ValueError: If it is no model.
    """
    if not isinstance(encoder, keras.Model):
        raise ValueError(
            f"A Functional or Sequential model is mirrored; of a single layer take the `adjoint`. Received: encoder={encoder!r}"
        )
    return trace(encoder)
