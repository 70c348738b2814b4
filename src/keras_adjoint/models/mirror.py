"""`mirror` and `autoencoder`: from an encoder to its tied decoder, and to both in one model."""

from typing import Any

import keras

from keras_adjoint.layers.options import boolean, name_or_none
from keras_adjoint.models.backward import packed_as
from keras_adjoint.models.graph import Graph
from keras_adjoint.models.mirror_backward import MirrorBackwardPass, graph_of_encoder
from keras_adjoint.models.names import name_of_model
from keras_adjoint.models.policies import Policies
from keras_adjoint.ops.backend import untraced


@untraced
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

    Linear layers are undone by their adjoints, which read the encoder's own kernels. About all others policies decide. A
    policy is one of the names below; or a dictionary from layer names, layer classes and predicates to names, with
    `"default"` for all other layers; or, except for activations, a function from a layer to a name.

    Args:
        encoder: A Functional or built Sequential model, nested ones included.
        bias: A mode of `adjoint`, for layers that can have it; modes that start from the source's bias leave out layers
            without one. The forward layer that is made of an adjoint, in the mirror of a mirror, has none.
        activation: "same", the encoder's own in the mirrored place; "linear", none; "deconvnet", of rectifiers, a ReLU on the
            cotangent (Zeiler and Fergus 2014); or an activation. With "same" and with activations of your own the code, which
            has passed its activation already, does not pass one again. "gradient" and "guided" need recorded activations.
        output_activation: The activation of the reconstruction, before preprocessing is undone; by default none.
        norm: "own", a new layer of the same kind; "inverse", which undoes scale and shift; "adjoint", which of
            normalisations by statistics of their own input is that of the derivative at the recorded input; "scale", which
            multiplies by the scale alone; "skip".
        pooling: Of maxima, minima and global pools: "spread" repeats every value; "average" is the adjoint of average pooling;
            "switches", exact unpooling, needs recorded activations. Other average pools are linear and undone by their
            adjoints.
        gates: "skip", backward through the signal alone, without the gate; "recorded", times the gate, and "gradient",
            back through every factor, which need recorded activations.
        dropout: "drop" or "keep".
        preprocessing: What to do with `Rescaling` and `Normalization`: "undo", "adjoint" or "skip".
        tied: Whether to read the encoder's kernels or copies of them.
        name: Name of the model. By default that of the encoder with "_mirror" behind it, and a number where there was one.

    Returns:
        A Functional model from the encoder's outputs to its inputs. Its layers are named after those that they undo.

    Raises:
        NoRuleError: If a layer has neither an adjoint nor a policy, or `encoder` is no graph of layers.
        ValueError: If a policy does not exist, or needs recorded activations; see `autoencoder`.

    Example:

    >>> image = keras.Input((28, 28, 1))
    >>> features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    >>> encoder = keras.Model(image, keras.layers.MaxPooling2D()(features))
    >>> decoder = ka.mirror(encoder, output_activation="sigmoid")
    >>> decoder.output_shape, ka.is_tied(decoder, encoder)
    ((None, 28, 28, 1), True)
    """
    tied, name = boolean("tied", tied), name_or_none("name", name)
    policies = Policies(bias, activation, output_activation, norm, pooling, gates, dropout, preprocessing)
    backward = MirrorBackwardPass(graph_of_encoder(encoder), encoder, policies, tied=tied)
    return backward.model(name or name_of_model(f"{encoder.name}_mirror"))


@untraced
def autoencoder(
    encoder: keras.Model,
    *,
    name: str | None = None,
    **policies: Any,
) -> keras.Model:
    """An encoder and its tied decoder in one Functional model, so that policies can use recorded activations.

    The model is made of the encoder's own layers, so that training it trains the encoder. What the decoder may read of
    its activations are sizes that are known only at run time, the switches of max pooling, gates, and where activations were
    evaluated.

    Args:
        encoder: A Functional or built Sequential model, nested ones included. If a policy needs activations from
            inside a nested model, that model's layers become layers of the autoencoder.
        name: Name of the model. By default that of the encoder with "_autoencoder" behind it, numbered as in `mirror`.
        **policies: Those of `mirror`, and `tied`. Besides: `activation` "gradient", the gradient of any activation, and of
            whatever else has no adjoint, at its recorded input, and "guided", of rectifiers, which also sets negative
            cotangents to zero (Springenberg et al. 2015); `pooling="switches"`, which puts maxima back where they came
            from; `gates` "recorded", which multiplies by the recorded gate, and "gradient", which goes back through every
            factor; `norm="adjoint"` of others than batch normalisation.

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
    tied, name = boolean("tied", policies.pop("tied", True)), name_or_none("name", name)
    graph = graph_of_encoder(encoder)
    backward = MirrorBackwardPass(graph, encoder, Policies.named(policies), tied=tied, records=True)
    return with_decoder(backward, encoder, name or name_of_model(f"{encoder.name}_autoencoder"))


def with_decoder(backward: MirrorBackwardPass, encoder: keras.Model, name: str) -> keras.Model:
    """The model that consists of an encoder and of its backward pass."""
    own = encoder.outputs
    outputs = backward.run(backward.graph.outputs)
    if any(mine is not theirs for mine, theirs in zip(backward.graph.outputs, own, strict=True)):
        if not backward.records_used:
            outputs = backward.run(own)  # nothing from inside of the nested models is needed, so they stay as they are
        else:
            check_names(backward.graph)
    graph = backward.graph
    return backward.build(packed_as(graph.input_structure, graph.inputs), outputs, name)


def check_names(graph: Graph) -> None:
    """Raise a ValueError if two layers of nested models, which are to become layers of one model, have one name."""
    places: dict[str, Any] = {}
    for call in graph.calls:
        first = places.setdefault(call.operation.name, call)
        if first.operation is not call.operation:
            raise ValueError(
                f"Recorded activations of a nested model make its layers layers of the autoencoder, where names must differ, "
                f"and `{first.place}` and `{call.place}` have the same. Give one of them another name when you make it, or "
                f"choose policies without recorded activations. Received: two layers of the name {call.operation.name!r}"
            )
