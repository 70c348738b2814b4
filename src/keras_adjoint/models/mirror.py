"""`mirror` and `autoencoder`: from an encoder to its tied decoder, and to both in one model."""

from typing import Any

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.adjoint import linear_adjoint, original_of
from keras_adjoint.layers.bias import MODES, READS_SOURCE
from keras_adjoint.layers.registry import class_with_rule, options_of
from keras_adjoint.models.adjoint import ExactBackwardPass, locate_errors
from keras_adjoint.models.backward import unpacked
from keras_adjoint.models.graph import graph_of, trace
from keras_adjoint.models.policies import Policies, describe_call, has_own_activation
from keras_adjoint.models.policy_layers import GLOBAL_MAX_POOLS, MAX_POOLS, UNDO, activated

# Layers behind which numbers are what they were before, so that what passed an activation still has.
MOVES = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Identity,
    keras.layers.Dropout,
    *MAX_POOLS,
    *GLOBAL_MAX_POOLS,
)


def mirror(
    encoder: keras.Model,
    *,
    bias: Any = "own",
    activation: Any = "same",
    output_activation: Any = None,
    norm: Any = "own",
    pooling: Any = "spread",
    gates: Any = "skip",
    dropout: Any = "drop",
    preprocessing: Any = "undo",
    tied: bool = True,
    name: str | None = None,
) -> keras.Model:
    """The tied decoder of an encoder: every layer undone in reverse order, from the code to the input.

    Whatever is linear is undone by its adjoint, which reads the encoder's own kernel. About everything else a policy
    decides. A policy is one of the names below; or a dictionary from layer names, layer classes and predicates to names,
    with `"default"` for all other layers; or, except for activations, a function from a layer to a name.

    Args:
        encoder: A Functional or built Sequential model, nested ones included.
        bias: A mode of `adjoint`, for layers that can have it; modes that start from the source's bias leave out layers
            without one.
        activation: "same", the encoder's own in the mirrored place; "linear", none; "deconvnet", a ReLU on what comes
            back (Zeiler and Fergus 2014); or an activation. With "same" and with activations of your own the code,
            which has passed its activation already, does not pass one again. "gradient" and "guided" need memory.
        output_activation: The activation of the reconstruction, before preprocessing is undone; by default none.
        norm: "own", a new layer of the same kind; "inverse", which undoes scale and shift; "adjoint", which multiplies
            by the scale; "skip".
        pooling: Of maxima and of global pools: "spread" repeats every value; "average" is the adjoint of average pooling;
            "switches", exact unpooling, needs memory. Other average pools are linear and undone by their adjoints.
        gates: "skip", back through the signal alone, without the gate; "recall", times the recorded gate, needs memory.
        dropout: "drop" or "keep".
        preprocessing: What to do with `Rescaling` and `Normalization`: "undo", "adjoint" or "skip".
        tied: Whether to read the encoder's kernels or copies of them.
        name: Name of the model.

    Returns:
        A Functional model from the encoder's outputs to its inputs. Its layers are named after those that they undo.

    Raises:
        NoRuleError: If a layer has neither an adjoint nor a policy, or `encoder` is no graph of layers.
        ValueError: If a policy does not exist, or needs memory; see `autoencoder`.

    Example:

    >>> image = keras.Input((28, 28, 1))
    >>> features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    >>> encoder = keras.Model(image, keras.layers.MaxPooling2D()(features))
    >>> decoder = ka.mirror(encoder, output_activation="sigmoid")
    >>> decoder.output_shape, ka.is_tied(decoder, encoder)
    ((None, 28, 28, 1), True)
    """
    policies = Policies(bias, activation, output_activation, norm, pooling, gates, dropout, preprocessing)
    way = backward_pass_of(encoder, policies, tied=tied, remembers=False)
    return way.model(name or f"{encoder.name}_mirror")


def autoencoder(
    encoder: keras.Model,
    *,
    name: str | None = None,
    **policies: Any,
) -> keras.Model:
    """An encoder and its tied decoder in one Functional model, with the memory that the policies need.

    The model is made of the encoder's own layers, so that training it trains the encoder. Three kinds of memory are wired
    from the one half to the other: sizes of inputs that are known only at run time, the switches of max pooling, and gates.

    Args:
        encoder: A Functional or built Sequential model, nested ones included. If a policy needs memory from inside a
            nested model, that model's layers become layers of the autoencoder.
        name: Name of the model.
        **policies: Those of `mirror`, and `tied`. Besides: `activation` "gradient", which stops what comes back to
            units that were not active, and "guided", which stops negative values as well; `pooling="switches"`, which puts
            maxima back where they came from; `gates="recall"`, which multiplies by the recorded gate.

    Returns:
        A Functional model from the encoder's inputs to reconstructions of them.

    Raises:
        NoRuleError: If a layer has neither an adjoint nor a policy, or `encoder` is no graph of layers.
        ValueError: If a policy does not exist.

    Example:

    >>> image = keras.Input((None, None, 3))
    >>> features = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    >>> encoder = keras.Model(image, keras.layers.MaxPooling2D()(features))
    >>> autoencoder = ka.autoencoder(encoder, pooling="switches")
    >>> autoencoder(np.ones((1, 45, 38, 3))).shape
    (1, 45, 38, 3)
    """
    tied = policies.pop("tied", True)
    way = backward_pass_of(encoder, Policies.named(policies), tied=tied, remembers=True)
    return around(way, encoder, name or f"{encoder.name}_autoencoder")


def around(way, encoder, name):
    """The model that goes the way of a graph forth and back."""
    ends = way.run(way.graph.outputs)
    own = graph_of(encoder).outputs
    if any(mine is not theirs for mine, theirs in zip(way.graph.outputs, own, strict=True)):
        if not way.recalled:
            ends = way.run(own)  # nothing from inside the nested models is needed, so they can stay as they are
        else:
            check_names(way.graph)
    return keras.Model(unpacked(way.graph.inputs), unpacked(ends), name=name)


def check_names(graph):
    """Raise a ValueError if two layers of nested models, which are to become layers of one model, have one name."""
    places: dict[str, Any] = {}
    for call in graph.calls:
        first = places.setdefault(call.operation.name, call)
        if first.operation is not call.operation:
            raise ValueError(
                f"Memory from inside a nested model makes its layers layers of the autoencoder, where names must differ, and "
                f"`{first.place}` and `{call.place}` have the same. Give one of them another name when you make it, or choose "
                f"policies without memory. Received: two layers of the name {call.operation.name!r}"
            )


def backward_pass_of(encoder, policies, **options):
    """The `MirrorBackwardPass` of an encoder. Options as in `backward_pass_along`."""
    if not isinstance(encoder, keras.Model):
        raise ValueError(
            f"A Functional or Sequential model is mirrored; of a single layer take the `adjoint`. Received: encoder={encoder!r}"
        )
    return backward_pass_along(trace(encoder), encoder, policies, **options)


def backward_pass_along(graph, encoder, policies, *, kind=None, **options):
    """The way back along a graph made of an encoder's layers: a `MirrorBackwardPass`, or of a `kind` derived from it."""
    layers = list(encoder._flatten_layers(include_self=False))
    policies.check([call.operation for call in graph.calls] + layers)
    return (kind or MirrorBackwardPass)(graph, policies, taken=[layer.name for layer in layers], **options)


class MirrorBackwardPass(ExactBackwardPass):
    """The way back by adjoints where there are any and else by policies.

    Args:
        graph: A `Graph`.
        policies: The `Policies`.
        **options: See `ExactBackwardPass`.

    Attributes:
        decisions: For each call that was undone the choices about it by policy. Without any its adjoint undoes it, and so it
            does if there is but one about the activation that the layer ends in.
    """

    def __init__(self, graph, policies, **options):
        super().__init__(graph, **options)
        self.policies = policies
        self.decisions = {}
        self._code = code_tensors(graph)
        self._pictures = self._after_preprocessing()

    def is_code(self, tensor):
        """Whether a tensor leaves the encoder as it is, but for its shape, and no call of another kind reads it."""
        return id(tensor) in self._code

    def run(self, starts):
        ends = super().run(starts)
        pairs = zip(self.graph.inputs, ends, strict=True)
        return [self._output_activation(end) if id(x) in self._pictures else end for x, end in pairs]

    def carry_back(self, call, backs):
        if id(call.outputs[0]) in self._pictures:
            backs = [self._output_activation(backs[0])]
        policy = self.policies.about(call.operation)
        decided = self.decisions[call] = {}
        with locate_errors(call):
            if policy is not None:
                decided[policy] = self.policies.choose(policy, call.operation)
                return UNDO[policy](self, call, backs[0], decided[policy])
            if has_own_activation(call.operation):
                decided["activation"] = self.policies.choose("activation", call.operation)
                backs = [activated(self, call, backs[0], decided["activation"])]
        return super().carry_back(call, backs)

    def adjoint_of(self, call, name):
        """The adjoint of the linear part of a layer, with the bias that the policy gives it."""
        layer = call.operation
        original = original_of(layer)
        if original is not None:
            return original
        if class_with_rule(layer) is None:
            raise NoRuleError(
                f"{describe_call(call)} If it is linear, write a function that takes the layer and returns the layer computing "
                f"its adjoint, and decorate it with `@keras_adjoint.register_rule({type(layer).__name__})`. If it is a kind of "
                f'activation, normalisation or dropout, say so, as in `activation={{{type(layer).__name__}: "linear"}}`'
            )
        own = {} if self.tied else {"tied": False}
        return linear_adjoint(layer, name=name, **own, **self._bias(layer))

    def _bias(self, layer):
        choice = self.policies.choose("bias", layer)
        options, modes = options_of(layer)
        possible = "bias" in options and choice in (modes or MODES)
        starts_from_nothing = choice in READS_SOURCE and getattr(layer, "bias", None) is None
        return {"bias": choice} if possible and choice != "none" and not starts_from_nothing else {}

    def _output_activation(self, y):
        choice = self.policies.output_activation
        if choice is None:
            return y
        return keras.layers.Activation(choice, dtype=y.dtype, name=self.name("output_activation"))(y)

    def _after_preprocessing(self):
        """Identities of the tensors behind the preprocessing, one for each input: what the network proper sees."""
        readers = self.graph.readers()
        seen = {id(tensor) for tensor in self.graph.inputs}
        for call in self.graph.calls:
            x = call.inputs[0]
            if id(x) in seen and readers[id(x)] == 1 and self.policies.about(call.operation) == "preprocessing":
                seen.remove(id(x))
                seen.add(id(call.outputs[0]))
        return seen


def code_tensors(graph):
    """Identities of the tensors that are the code, or become it by moving and choosing numbers alone."""
    readers = graph.readers()
    code = {id(tensor) for tensor in graph.outputs if not readers[id(tensor)]}
    for call in reversed(graph.calls):
        if isinstance(call.operation, MOVES) and id(call.outputs[0]) in code and readers[id(call.inputs[0])] == 1:
            code.add(id(call.inputs[0]))
    return code
