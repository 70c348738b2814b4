"""`keras-adjoint mirror`: make the decoder of an encoder in a file, write it, and see that it loads tied."""

import math
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

import keras_adjoint as ka
from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.graph import trace
from keras_adjoint.models.mirror import around, backward_pass_along
from keras_adjoint_cli.decisions import Watched, decisions_of, variables_read
from keras_adjoint_cli.errors import Failed, unusable
from keras_adjoint_cli.output.console import progress
from keras_adjoint_cli.policy_options import policies_from, read_settings


@dataclass(frozen=True)
class Mirrored:
    """What was made, and how it was decided.

    Attributes:
        model: The decoder or autoencoder.
        decisions: A `Decision` for every layer of the encoder that was undone.
        settings: A `Setting` for every policy on the command line.
    """

    model: keras.Model
    decisions: list
    settings: list


@dataclass(frozen=True)
class Figures:
    """What a file holds, found by loading it.

    Attributes:
        parameters: Parameters, each counted once.
        bytes: Its size.
        adjoints: Layers that read kernels of others.
        variables: Kernels and other variables that they read, each counted once.
        shared: Parameters in these.
    """

    parameters: int
    bytes: int
    adjoints: int
    variables: int
    shared: int


def make(encoder, texts, *, autoencoder, untie):
    """Mirror an encoder by the policies that were given as texts."""
    graph = trace(encoder)
    operations = [*(call.operation for call in graph.calls), *encoder._flatten_layers(include_self=False)]
    settings = read_settings(texts, operations)
    policies = policies_from(settings, operations)
    with progress("Mirroring", len(graph.calls)) as advance, unusable(ValueError):
        kind = partial(Watched, advance=advance)
        way = backward_pass_along(graph, encoder, policies, kind=kind, tied=True, remembers=autoencoder)
        both, half = f"{encoder.name}_autoencoder", f"{encoder.name}_mirror"
        model = around(way, encoder, both) if autoencoder else way.model(half)
    return Mirrored(ka.untie(model) if untie else model, decisions_of(way), settings)


def write(model, file, *, autoencoder):
    """Write a model, load it again, and move it into place if nothing came apart.

    Returns:
        The `Figures` of the file.

    Raises:
        Failed: If the model in the file has other parameters, or its ties came apart.
    """
    with atomic_write(file) as beside:
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
    parameters = sum(math.prod(variable.shape) for variable in shared.values())
    return Figures(loaded.count_params(), size, len(adjoints), len(shared), parameters)


def equal(a, b):
    """Whether two variables hold the same numbers."""
    return np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), equal_nan=True)


def adjoints_in(model):
    """The layers in a model that read the variables of another."""
    return (
        layer for layer in model._flatten_layers() if isinstance(layer, Tied) and layer.tied and layer.source.weights
    )
