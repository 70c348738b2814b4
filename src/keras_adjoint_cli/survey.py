"""`keras-adjoint inspect`: what every layer of a model is, and what undoes it."""

from dataclasses import dataclass
from functools import partial

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.gaps import BackwardPassOverGaps
from keras_adjoint.models.graph import trace
from keras_adjoint.models.mirror import backward_pass_along
from keras_adjoint.models.policies import Policies
from keras_adjoint.models.walk import is_whole, layers_of
from keras_adjoint_cli.decisions import Watched, decision_about, place_in_model
from keras_adjoint_cli.facts import algorithms, hyperparameters, name_of_adjoint, sizes
from keras_adjoint_cli.output.console import progress

EXACT, POLICY, NEITHER, NOT_REACHED = "exact", "policy", "neither", "not reached"


@dataclass(frozen=True)
class Entry:
    """What there is to know about one layer."""

    layer: str  # with the names of the models around it
    type: str
    kernels: dict  # name: shape
    strides: tuple
    dilation: tuple
    padding: str
    groups: int
    inputs: list  # shapes
    outputs: list
    adjoint: str  # the type of its adjoint, or what it is itself the adjoint of
    undone: str  # EXACT, POLICY, NEITHER or NOT_REACHED
    policies: dict  # what they chose for it
    parameters: int
    tied: int  # parameters that its adjoint shares with it
    own: int  # parameters that a mirror adds to undo it
    algorithms: list
    reason: str = ""


class Survey(BackwardPassOverGaps, Watched):
    """A way back that goes on where it finds neither an adjoint nor a policy, and tells how far it has come."""


def survey(model, batch=1):
    """(an `Entry` for every layer of a model, why it cannot be mirrored as a whole or "").

    Args:
        model: A Keras model.
        batch: How many samples the algorithms are chosen for.
    """
    try:
        graph = trace(model)
    except NoRuleError as error:
        return [entry(name, layer, batch) for name, layer in layers_of(model)], str(error)
    with progress("Looking for adjoints", len(graph.calls)) as advance:
        way = backward_pass_along(
            graph, model, Policies(), kind=partial(Survey, advance=advance), tied=True, remembers=True
        )
        way.run([keras.Input(batch_shape=y.shape, dtype=y.dtype) for y in graph.outputs])
    calls = {id(call.operation): call for call in reversed(graph.calls)}
    return [entry(name, layer, batch, way, calls.get(id(layer))) for name, layer in in_order(model, graph)], ""


def in_order(model, graph):
    """(name, layer or operation) in the order of the calls, each followed by the layers inside; then whatever else there is."""
    seen = set()
    calls = [(place_in_model(call), call.operation) for call in graph.calls]
    for name, layer in (*calls, *layers_of(model)):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield name, layer
            if isinstance(layer, keras.layers.Layer) and not is_whole(layer):
                yield from layers_of(layer, f"{name}/", seen)


def entry(name, layer, batch, way=None, call=None):
    """The `Entry` for a layer, which a way back has undone if it met a call of it."""
    facts = {"layer": name, "type": type(layer).__name__, **hyperparameters(layer), **sizes(layer, call)}
    facts |= {"undone": NOT_REACHED, "policies": {}, "tied": 0, "own": 0, "reason": ""}
    adjoint = None
    if call is not None and call in way.errors:
        facts |= {"undone": NEITHER, "reason": str(way.errors[call])}
    elif call is not None and call in way.decisions:
        decision = decision_about(way, call)
        facts |= {"undone": EXACT if decision.exact else POLICY, "policies": decision.policies}
        facts |= {"tied": decision.tied, "own": decision.own}
        adjoint = way.made_for(call).get("adjoint")
    facts["algorithms"] = algorithms(layer, facts["outputs"], batch) or algorithms(adjoint, facts["inputs"], batch)
    return Entry(**facts, adjoint=name_of_adjoint(layer, adjoint))
