"""The encoder in a model: all of it, or, of an autoencoder, the part up to its code."""

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.code import Cut, autoencoder_hint, encoder_up_to, narrowest_cut
from keras_adjoint.models.deconvnet import NoSuchLayerError
from keras_adjoint.models.graph import Graph, trace
from keras_adjoint_cli.errors import Unusable, no_such_layer, unusable

NARROWEST = "narrowest"


def encoder_of(model: keras.Model, code: str | None) -> keras.Model:
    """The part of a model up to its code, if a layer was named, or is to be found."""
    if code is None:
        return model
    with unusable(ValueError, NoRuleError):
        if code == NARROWEST and all(layer.name != NARROWEST for layer in model.layers):
            graph = trace(model)
            cut = narrowest_cut(graph) if len(graph.inputs) == 1 else None
            if cut is None:
                raise Unusable(
                    f"{model.name} has no narrowest place: none is known to be narrower than its input. Name the layer "
                    f"whose output is the code. Received: --code {NARROWEST}"
                )
            code = cut.layer
        try:
            return encoder_up_to(model, code)
        except NoSuchLayerError as error:
            raise no_such_layer("--code", code, error.names) from error


def advice(model: keras.Model, graph: Graph | None = None) -> tuple[str, Cut | None]:
    """(what to say of a model that seems to be an autoencoder, with the option for it, or ""; its code)."""
    try:
        hint, cut = autoencoder_hint(model, graph or trace(model))
    except NoRuleError:  # it has no graph, which is said elsewhere
        return "", None
    option = f"--code {cut.layer if cut else 'LAYER'}"
    return hint and f"{hint} To leave out what comes after it: {option}", cut
