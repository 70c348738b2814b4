"""`keras-adjoint deconv`: a layer's strongest features in a photograph, and what they look like in pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import keras_adjoint as ka
from keras_adjoint.errors import KerasAdjointError, in_short
from keras_adjoint.models.code import gives_back_its_shape, narrowest_cut
from keras_adjoint.models.deconvnet import DECONVNET, NoSuchLayerError, channel_axis_of, data_format_of, graph_up_to
from keras_adjoint.models.graph import Graph, trace
from keras_adjoint.ops import Tensor
from keras_adjoint.plots import photographs
from keras_adjoint_cli.errors import Unusable, no_such_layer, unusable
from keras_adjoint_cli.policy_options import choices_from, read_settings

USUAL = 9  # features, if the layer has as many
EDGE = 0.002  # the part of a projection's energy that may lie beyond each side of its box


@dataclass(frozen=True)
class Feature:
    """One feature of a layer, projected back to pixels.

    Attributes:
        channel: Its channel.
        unit: Where in the channel it is strongest.
        strength: How strong it is there.
        projection: Its projection, of the size of the photograph.
        box: (top, left, bottom, right) of the part of the photograph that the projection is in.
    """

    channel: int
    unit: tuple[int, ...]
    strength: float
    projection: np.ndarray
    box: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """A photograph as the model saw it, and the features that it shows."""

    photograph: np.ndarray
    range: tuple[float, float]
    layer: str
    features: list[Feature]
    hint: str = ""  # what to say if the layer belongs to the decoder of an autoencoder


def project(
    model: keras.Model,
    file: Path,
    layer: str,
    *,
    strongest: int | None = None,
    channel: int | None = None,
    texts: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
    size: int | None = None,
) -> Seen:
    """What the strongest features of a layer respond to in a photograph."""
    with unusable(ValueError):
        try:
            graph = graph_up_to(model, layer)
        except NoSuchLayerError as error:
            raise no_such_layer("--layer", layer, error.names) from error
    if len(graph.inputs) != 1:
        raise Unusable(f"deconv shows what is in one picture, and the model takes {len(graph.inputs)} inputs.")
    (image,), (features,), data_format = graph.inputs, graph.outputs, data_format_of(graph)
    with unusable(ValueError):
        picture = photographs.read(file, image.shape, data_format, size)
    low, high = limits or photographs.usual_range(graph)
    x = photographs.as_input(picture, low, high, data_format)
    with computing(layer):
        values = keras.ops.convert_to_numpy(keras.Model(image, features)(x))
    values = np.moveaxis(values, channel_axis_of(graph), -1)[0]
    strongest = strongest or min(USUAL, values.shape[-1] if channel is None else values[..., 0].size)
    policies = choices_from(read_settings(texts, [call.operation for call in graph.calls]), DECONVNET)
    with unusable(ValueError):
        projector = ka.deconvnet(model, layer, strongest=strongest, channel=channel, **policies)
    with computing(layer):
        projections = channels_last(projector(x)[0], data_format)
    units = strongest_units(values, channel)[:strongest]
    features_seen = [feature(values, *pair) for pair in zip(units, projections, strict=True)]
    return Seen(picture, (low, high), layer, features_seen, hint_about(model, graph, layer))


@contextmanager
def computing(layer: str) -> Iterator[None]:
    """Inside, name the layer whose features are computed in what Keras or the backend raises."""
    try:
        yield
    except KerasAdjointError:
        raise
    except Exception as error:
        raise Unusable(
            f"The features of {layer} cannot be computed: {type(error).__name__}: {in_short(error)}"
        ) from error


def hint_about(model: keras.Model, graph: Graph, layer: str) -> str:
    """What to say of a layer that comes after the code of an autoencoder; "" of any other."""
    cut = narrowest_cut(trace(model)) if gives_back_its_shape(model) else None
    if cut is None or cut.layer not in [call.path for call in graph.calls[:-1]]:
        return ""
    return (
        f"This model gives back the shape that it takes, as an autoencoder does, and {layer} comes after its narrowest place, "
        f"{cut.layer}: it sees the picture only through that."
    )


def strongest_units(values: np.ndarray, channel: int | None) -> list[tuple[int, ...]]:
    """Indices of the strongest unit of each channel, strongest first; or of all units of one channel."""
    flat = values.reshape(-1, values.shape[-1])
    if channel is None:
        places = [(int(flat[:, number].argmax()), number) for number in range(flat.shape[-1])]
    else:
        places = [(place, channel) for place in range(len(flat))]
    places.sort(key=lambda place: -flat[place])
    return [(*map(int, np.unravel_index(position, values.shape[:-1])), number) for position, number in places]


def feature(values: np.ndarray, unit: tuple[int, ...], projection: np.ndarray) -> Feature:
    """A `Feature` of a layer with these values."""
    *place, channel = map(int, unit)
    return Feature(channel, tuple(place), float(values[unit]), projection, box_of(projection))


def box_of(projection: np.ndarray) -> tuple[int, ...]:
    """(top, left, bottom, right) of the square, as far as the picture goes, that nearly all of a projection is in."""
    energy = np.square(projection.astype("float64")).sum(-1)
    if not energy.sum():
        return (0, 0, *energy.shape)
    spans = [span(energy.sum(1 - axis)) for axis in (0, 1)]
    side = max(stop - start for start, stop in spans)
    starts = []
    for (start, stop), size in zip(spans, energy.shape, strict=True):
        starts.append(max(0, min((start + stop - side) // 2, size - side)))
    return (*starts, *(min(start + side, size) for start, size in zip(starts, energy.shape, strict=True)))


def span(energy: np.ndarray) -> tuple[int, int]:
    """(start, stop) of the positions along one axis that nearly all of the energy is at."""
    below = np.cumsum(energy) / energy.sum()
    return int(np.searchsorted(below, EDGE)), min(len(energy), int(np.searchsorted(below, 1 - EDGE)) + 1)


def channels_last(tensor: Tensor, data_format: str) -> np.ndarray:
    """A batch or a stack of pictures as an array with the channels last."""
    array = keras.ops.convert_to_numpy(tensor)
    return np.moveaxis(array, 1, -1) if data_format == "channels_first" and array.ndim > 2 else array
