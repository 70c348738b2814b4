"""What a model is shown: pictures of the user, photographs that scikit-image brings along, or, if need be, drawn ones."""

import importlib.util
from dataclasses import dataclass

import numpy as np
from PIL import Image

from keras_adjoint.models.deconvnet import data_format_of
from keras_adjoint.plots import photograph

BUNDLED = ("cat", "astronaut", "coffee")
PIXELS, VOXELS, LENGTH = 160, 32, 256  # sizes of pictures, volumes and signals, where the model takes every size


@dataclass(frozen=True)
class Sample:
    """Something to put into a model.

    Attributes:
        name: What it is.
        values: An array of the shape of the model's input, in the range that it wants.
    """

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Wanted:
    """What a model takes.

    Attributes:
        shape: The shape of its input.
        limits: The smallest and the largest value.
        data_format: Where it has its channels.
    """

    shape: tuple
    limits: tuple
    data_format: str = "channels_last"

    @property
    def is_picture(self):
        channels = self.shape[1] if self.data_format == "channels_first" else self.shape[-1]
        return len(self.shape) == 4 and channels in photograph.MODES

    def picture(self, file):
        """A picture from a file, as values."""
        return self.values(photograph.read(file, self.shape, self.data_format, self.longest))

    def values(self, colours):
        """Colours from 0 to 1 as values."""
        return photograph.as_input(colours, *self.limits, self.data_format)[0]

    @property
    def longest(self):
        return PIXELS if None in self.shape[1:] else None

    @property
    def known_shape(self):
        """The shape without the batch axis, with some number where a size is not known."""
        usual = {3: LENGTH, 4: PIXELS, 5: VOXELS}.get(len(self.shape), LENGTH)
        return tuple(usual if size is None else size for size in self.shape[1:])


def wanted_by(graph, limits=None):
    """What the model behind a `Graph` takes; a sentence that says why nothing can be shown to it, if that is so.

    Args:
        graph: A `Graph`.
        limits: The range of its values; by default what it probably expects.
    """
    if len(graph.inputs) != 1:
        return f"the model has {len(graph.inputs)} inputs, and a picture is one"
    (x,) = graph.inputs
    if "float" not in x.dtype:
        return f"the model takes numbers of type {x.dtype}, and a picture has brightnesses"
    if not 2 <= len(x.shape) <= 5 or x.shape[-1] is None:
        return "the shape of its input is not known"
    return Wanted(tuple(x.shape), tuple(limits or photograph.usual_range(graph)), data_format_of(graph))


def samples_for(wanted, files=()):
    """A list of `Sample` that a model can take: pictures from files, or what there is without any.

    Raises:
        ValueError: If there are files, and the model takes no pictures, or one of them is none.
    """
    if files:
        return [Sample(file.name, wanted.picture(file)) for file in files]
    if wanted.is_picture:
        sizes = wanted.shape, wanted.data_format, wanted.longest
        return [Sample(name, wanted.values(photograph.fitted(picture, *sizes))) for name, picture in bundled()]
    drawn = {1: ("a wave that grows faster", chirp), 2: ("waves that grow faster", chirp), 4: ("a ball in a box", ball)}
    name, draw = drawn.get(len(wanted.known_shape), ("random numbers", noise))
    low, high = wanted.limits
    return [Sample(name, (low + (high - low) * draw(wanted.known_shape)).astype("float32"))]


def bundled():
    """(name, `PIL.Image`) of photographs, or of a drawing if scikit-image is missing."""
    if importlib.util.find_spec("skimage") is None:
        return [("a drawing, since scikit-image is not there to bring photographs", drawing())]
    from keras_adjoint.demo import photographs

    known = photographs.TRAINING | photographs.HELD_OUT
    read = {name: photographs.as_picture(photographs.read(*known[name])) for name in BUNDLED}
    return [(name, Image.fromarray(np.round(255 * values).astype("uint8"))) for name, values in read.items()]


def drawing(size=320):
    """A picture with edges, a slope, discs and fine lines."""
    down, across = np.mgrid[:size, :size] / size
    picture = np.stack([across, down, 1 - across], axis=-1) * 0.6 + 0.2
    picture[np.hypot(down - 0.35, across - 0.35) < 0.2] = (0.95, 0.75, 0.2)
    picture[np.hypot(down - 0.65, across - 0.68) < 0.16] = (0.1, 0.25, 0.55)
    picture[(down > 0.8) & (np.floor(across * 40) % 2 == 0)] = 0.05
    return Image.fromarray(np.round(255 * picture).astype("uint8"))


def chirp(shape):
    """Waves along the first axis, another one in each channel."""
    along = np.linspace(0, 1, shape[0])
    channels = np.arange(1, 1 + (shape[1] if len(shape) > 1 else 1))
    waves = 0.5 + 0.45 * np.sin(2 * np.pi * along[:, None] * (2 + 5 * along[:, None] + channels))
    return waves.reshape(shape)


def ball(shape):
    """A ball with a hole."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[:-1]), indexing="ij")
    distance = np.sqrt(sum(np.square(axis) for axis in axes))
    return np.repeat(((distance < 0.7) & (distance > 0.25))[..., None] * 1.0, shape[-1], axis=-1)


def noise(shape):
    return np.random.default_rng(0).random(shape)
