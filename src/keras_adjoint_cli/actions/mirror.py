"""`keras-adjoint mirror`: make the decoder of an encoder in a file, write it, and see that it loads tied."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import keras_adjoint as ka
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.models.code import Cut
from keras_adjoint.models.decisions import (
    DecidingBackwardPass,
    Decision,
    Decisions,
    Kind,
    adjoints_in,
    count_parameters,
    variables_read,
)
from keras_adjoint.models.graph import trace
from keras_adjoint.models.mirror import with_decoder
from keras_adjoint_cli.actions.encoder import advice
from keras_adjoint_cli.errors import Failed, unusable
from keras_adjoint_cli.files.destination import written
from keras_adjoint_cli.policy_options import Setting, policies_from, read_settings
from keras_adjoint_cli.progress import progress


@dataclass(frozen=True)
class Mirrored:
    """What was made, and how it was decided.

    Attributes:
        model: The decoder or autoencoder.
        decisions: The `Decision` about every layer of the encoder that was reached, in the order of the calls.
        settings: A `Setting` for every policy on the command line.
        hint: What to say of an encoder that seems to be an autoencoder, or "".
        cut: Its code.
    """

    model: keras.Model
    decisions: list[Decision]
    settings: list[Setting]
    hint: str = ""
    cut: Cut | None = None


@dataclass(frozen=True)
class Figures:
    """What a file holds, found by loading it.

    Attributes:
        parameters: Parameters, each counted once.
        bytes: Its size.
        adjoint_layers: Layers that read kernels of others.
        tied_variables: Kernels and other variables that they read, each counted once.
        tied_parameters: Parameters in these.
    """

    parameters: int
    bytes: int
    adjoint_layers: int
    tied_variables: int
    tied_parameters: int


def make(encoder: keras.Model, texts: Sequence[str], *, autoencoder: bool, untie: bool) -> Mirrored:
    """Mirror an encoder by the policies that were given as texts."""
    graph = trace(encoder)
    operations = [*(call.operation for call in graph.calls), *layers_inside(encoder)]
    settings = read_settings(texts, operations)
    policies = policies_from(settings, operations)
    with progress("Mirroring", len(graph.calls)) as advance, unusable(ValueError):
        backward = DecidingBackwardPass(graph, encoder, policies, records=autoencoder, advance=advance)
        both, half = f"{encoder.name}_autoencoder", f"{encoder.name}_mirror"
        model = with_decoder(backward, encoder, both) if autoencoder else backward.model(half)
    reached = [one for one in Decisions(encoder, backward).by_layer().values() if one.kind != Kind.UNREACHED]
    return Mirrored(ka.untie(model) if untie else model, reached, settings, *advice(encoder, graph))


def write(model: keras.Model, file: Path, *, autoencoder: bool) -> Figures:
    """Write a model, load it again, and let it take its place if nothing came apart.

    Returns:
        The `Figures` of the file.

    Raises:
        Failed: If the model in the file has other parameters, or its ties came apart.
    """
    with written(file) as beside, progress(f"Writing {file.name} and loading it again"):
        model.save(beside)
        loaded = keras.saving.load_model(beside, compile=False)
        pairs = zip(model.weights, loaded.weights, strict=False)
        if len(model.weights) != len(loaded.weights) or not all(equal(made, read) for made, read in pairs):
            raise Failed(f"{file} was not written: loaded again, the model has other parameters.")
        if autoencoder and any(adjoints_in(model)) and not ka.is_tied(loaded):
            raise Failed(f"{file} was not written: loaded again, the model is not tied.")
        size = beside.stat().st_size
    adjoints = list(adjoints_in(loaded))
    shared = {id(variable): variable for layer in adjoints for variable in variables_read(layer)}
    return Figures(loaded.count_params(), size, len(adjoints), len(shared), count_parameters(shared.values()))


def equal(a: keras.Variable, b: keras.Variable) -> bool:
    """Whether two variables hold the same numbers."""
    return np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), equal_nan=True)
