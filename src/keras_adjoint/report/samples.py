"""Samples to reconstruct: pictures of the user, photographs from scikit-image, or drawings and signals made here."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_adjoint.models.deconvnet import data_format_of
from keras_adjoint.models.graph import Graph
from keras_adjoint.ops import Shape
from keras_adjoint.plots import photographs

PHOTOGRAPHS = ("cat", "astronaut", "coffee")
PIXELS, VOXELS, LENGTH = 160, 32, 256  # sizes of pictures, volumes and signals, where the model takes every size


@dataclass(frozen=True)
class Sample:
    """An input of a model.

    Attributes:
        name: What it is.
        values: An array of the shape and in the range that the model takes.
    """

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class InputFormat:
    """What a model takes.

    Attributes:
        shape: The shape of its input.
        limits: The smallest and the largest value.
        data_format: Where it has its channels.
    """

    shape: Shape
    limits: tuple[float, float]
    data_format: str = "channels_last"

    @property
    def is_picture(self) -> bool:
        channels = self.shape[1] if self.data_format == "channels_first" else self.shape[-1]
        return len(self.shape) == 4 and channels in photographs.MODES

    def read(self, file: Path) -> np.ndarray:
        """A picture from a file, as the model takes it."""
        return self.scaled(photographs.read(file, self.shape, self.data_format, self.longest))

    def fitted(self, picture: Image.Image) -> np.ndarray:
        """A picture as the model takes it."""
        return self.scaled(photographs.fitted(picture, self.shape, self.data_format, self.longest))

    def scaled(self, colours: np.ndarray) -> np.ndarray:
        """Colours from 0 to 1 in the range of the model."""
        return np.asarray(photographs.as_input(colours, *self.limits, self.data_format)[0])

    @property
    def longest(self) -> int | None:
        """Pixels of the longer side of a picture, if the model does not say."""
        return PIXELS if None in self.shape[1:] else None

    @property
    def known_shape(self) -> tuple[int, ...]:
        """The shape without the batch axis, with a usual size where the model does not say."""
        usual = {3: LENGTH, 4: PIXELS, 5: VOXELS}.get(len(self.shape), LENGTH)
        return tuple(usual if size is None else size for size in self.shape[1:])


def input_format_of(graph: Graph, limits: tuple[float, float] | None = None) -> InputFormat | str:
    """The input format of a model, or the reason why there can be no samples for it.

    Args:
        graph: The graph of the model.
        limits: The range of its values; by default what it probably expects.
    """
    if len(graph.inputs) != 1:
        return f"the model has {len(graph.inputs)} inputs, and a picture is one"
    (x,) = graph.inputs
    if "float" not in x.dtype:
        return f"the model takes numbers of type {x.dtype}, and a picture has brightnesses"
    if not 2 <= len(x.shape) <= 5 or x.shape[-1] is None:
        return "the shape of its input is not known"
    return InputFormat(tuple(x.shape), limits or photographs.usual_range(graph), data_format_of(graph))


def samples_for(wanted: InputFormat, files: Sequence[Path] = ()) -> list[Sample]:
    """Samples that a model can take: pictures from files, or those that need none.

    Raises:
        ValueError: If there are files, and the model takes no pictures, or a file is no picture.
    """
    if files:
        return [Sample(file.name, wanted.read(file)) for file in files]
    if wanted.is_picture:
        return [Sample(name, wanted.fitted(picture)) for name, picture in pictures()]
    made = {
        1: ("a wave of rising frequency", chirp),
        2: ("waves of rising frequency", chirp),
        4: ("a hollow ball", ball),
    }
    name, make = made.get(len(wanted.known_shape), ("random numbers", noise))
    low, high = wanted.limits
    return [Sample(name, (low + (high - low) * make(wanted.known_shape)).astype("float32"))]


def pictures() -> list[tuple[str, Image.Image]]:
    """(name, picture) of photographs, or of a drawing if scikit-image is missing."""
    if importlib.util.find_spec("skimage") is None:
        return [("a drawing, since scikit-image is not installed", drawing())]
    return [(name, Image.fromarray(photographs.bundled(name))) for name in PHOTOGRAPHS]


def drawing(size: int = 320) -> Image.Image:
    """A picture with edges, a slope, discs and fine lines."""
    down, across = np.mgrid[:size, :size] / size
    picture = np.stack([across, down, 1 - across], axis=-1) * 0.6 + 0.2
    picture[np.hypot(down - 0.35, across - 0.35) < 0.2] = (0.95, 0.75, 0.2)
    picture[np.hypot(down - 0.65, across - 0.68) < 0.16] = (0.1, 0.25, 0.55)
    picture[(down > 0.8) & (np.floor(across * 40) % 2 == 0)] = 0.05
    return Image.fromarray(np.round(255 * picture).astype("uint8"))


def chirp(shape: tuple[int, ...]) -> np.ndarray:
    """Waves along the first axis, a different one in each channel."""
    along = np.linspace(0, 1, shape[0])
    channels = np.arange(1, 1 + (shape[1] if len(shape) > 1 else 1))
    waves = 0.5 + 0.45 * np.sin(2 * np.pi * along[:, None] * (2 + 5 * along[:, None] + channels))
    return np.asarray(waves.reshape(shape))


def ball(shape: tuple[int, ...]) -> np.ndarray:
    """A hollow ball."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[:-1]), indexing="ij")
    distance = np.linalg.norm(axes, axis=0)
    return np.repeat(((distance < 0.7) & (distance > 0.25))[..., None] * 1.0, shape[-1], axis=-1)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape)
