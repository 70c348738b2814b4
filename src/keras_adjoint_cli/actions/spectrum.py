"""`keras-adjoint spectrum`: the norms of a model's linear layers, and the Lipschitz constant of the whole."""

import re
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_adjoint.errors import NoRuleError, SizeError, in_short, with_article
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph, trace
from keras_adjoint.operators.call_constants import Step, step_of
from keras_adjoint.operators.certificate import Certificate
from keras_adjoint.operators.certify import certified
from keras_adjoint.operators.model_operator import graph_at as at_size
from keras_adjoint.operators.spectrum import LayerSpectrum, LinearLayer, linear_layers, spectrum_of
from keras_adjoint_cli.errors import Unusable, no_such_layer
from keras_adjoint_cli.files.budget import Budget
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.progress import progress


@dataclass(frozen=True)
class Spectra:
    """The norms of the linear layers of a model, and what is known of the whole; `None` if one layer was asked for."""

    layers: list[LayerSpectrum]
    certificate: Certificate | None


def read_size(text: str | None) -> int | tuple[int, ...] | None:
    """A size such as "224" or "224x224x3"."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,8}(?:[x×,][1-9]\d{0,8})*", text, re.ASCII):
        raise Unusable(f"A size is a number, or several as in 224x224x3. Received: --size {text}")
    sizes = tuple(map(int, re.split("[x×,]", text)))
    return sizes if len(sizes) > 1 else sizes[0]


def spectra_in(
    model: keras.Model, file: Path, limits: Limits, *, layer: str | None = None, size: str | None = None
) -> Spectra:
    """The `Spectra` of a model, or of one of its layers."""
    graph = graph_at(model, file, limits, size)
    if layer is not None:
        return Spectra(measured(list(linear_layers(steps_of(graph, layer)))), None)
    with progress("Bounding layers", len(graph.calls)) as advance:
        certificate, steps = certified(graph, model.name, advance)
    return Spectra(measured(list(linear_layers(steps))), certificate)


def steps_of(graph: Graph, layer: str) -> dict[Call, Step]:
    """The `Step` of each call of a linear layer, which has the name, with or without those of the models around it."""
    whole = [call for call in graph.calls if call.path == layer]
    calls = whole or [call for call in graph.calls if call.operation.name == layer]
    if not calls:
        raise no_such_layer("--layer", layer, dict.fromkeys(call.path for call in graph.calls))
    steps = {call: step_of(call) for call in calls}
    for call, step in steps.items():
        if step.linear is None:
            kind = type(call.operation).__name__
            reason = f": {step.reason.partition(chr(10))[0].rstrip('. ')}" if step.reason else ""
            raise Unusable(f"{call.path}, {with_article(kind)}, is no linear layer{reason}. Received: --layer {layer}")
    return steps


def measured(found: list[LinearLayer]) -> list[LayerSpectrum]:
    with progress("Computing norms", len(found)) as advance:
        spectra = []
        for one in found:
            spectra.append(spectrum_of(one))
            advance()
        return spectra


def graph_at(model: keras.Model, file: Path, limits: Limits, size: str | None) -> Graph:
    """The graph of a model at the size that is asked for."""
    budget = Budget(file, limits)
    try:
        trace(model)  # which says best why there is none
        with budget.held():
            return at_size(model, read_size(size))
    except (NoRuleError, SizeError) as error:
        received = "no --size" if size is None else f"--size {size}"
        text = str(error).replace("`size`", "--size").replace(f"size={read_size(size)!r}", received)
        raise Unusable(text) from error
    except Exception as error:
        if budget.refusal is not None:
            raise budget.refusal from error
        if size is None or isinstance(error, Unusable):
            raise
        what = in_short(error).rstrip(". ")
        raise Unusable(f"{file} does not take inputs of this size: {what}. Received: --size {size}") from error
