"""What a model is shown: pictures of the user, photographs that scikit-image brings along, or, if need be, drawn ones."""

import importlib.util
from dataclasses import dataclass

import keras
import numpy as np
from PIL import Image, ImageOps

BUNDLED = ("cat", "astronaut", "coffee")
UNKNOWN_SIZE = 160  # pixels, where a model takes pictures of any size
VOLUME, LENGTH = 32, 256  # the same for volumes and for signals
EIGHT_BITS = (0.0, 255.0)


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
        shape: The shape of its input without the batch axis, unknown sizes chosen.
        limits: The smallest and the largest value.
    """

    shape: tuple
    limits: tuple

    @property
    def is_picture(self):
        return len(self.shape) == 3 and (self.shape[-1] in (1, 3) or self.shape[0] in (1, 3))

    def fit(self, picture):
        """A `PIL.Image`, its middle cut out and scaled, as values."""
        first = self.shape[-1] not in (1, 3)
        channels, *size = self.shape if first else (self.shape[-1], *self.shape[:2])
        picture = ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB")
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
        values = np.asarray(picture, "float32").reshape(*size, channels) / 255
        return self.scaled(np.moveaxis(values, -1, 0) if first else values)

    def scaled(self, values):
        """Values from 0 to 1 in the range that the model wants."""
        low, high = self.limits
        return low + (high - low) * values


def wanted_by(model, limits=None):
    """What a model takes; a sentence that says why nothing can be shown to it, if that is so.

    Args:
        model: A model with a graph.
        limits: The range of its values; by default 0 to 255 if it begins with `Rescaling` or `Normalization`, else 0 to 1.
    """
    if len(model.inputs) != 1:
        return f"the model has {len(model.inputs)} inputs, and a picture is one"
    x = model.inputs[0]
    if "float" not in x.dtype:
        return f"the model takes numbers of type {x.dtype}, and a picture has brightnesses"
    rank = len(x.shape) - 1
    if not 1 <= rank <= 4 or x.shape[-1] is None:
        return "the shape of its input is not known"
    unknown = {2: LENGTH, 3: UNKNOWN_SIZE, 4: VOLUME}.get(rank)
    shape = tuple(unknown if size is None else size for size in x.shape[1:])
    first = [layer for layer in model._flatten_layers(include_self=False) if type(layer) is not keras.layers.InputLayer]
    eight_bits = bool(first) and isinstance(first[0], (keras.layers.Rescaling, keras.layers.Normalization))
    return Wanted(shape, tuple(limits) if limits is not None else EIGHT_BITS if eight_bits else (0.0, 1.0))


def samples_for(wanted, files=()):
    """A list of `Sample` that a model can take: pictures from files, or what there is without any.

    Raises:
        ValueError: If there are files, and the model takes no pictures, or one of them is none.
    """
    if files and not wanted.is_picture:
        raise ValueError(f"The model takes no pictures, but arrays of shape {wanted.shape}. Received: {files[0]}")
    if files:
        return [Sample(file.name, wanted.fit(opened(file))) for file in files]
    if wanted.is_picture:
        return [Sample(name, wanted.fit(picture)) for name, picture in bundled()]
    drawn = {1: ("a wave that grows faster", chirp), 2: ("waves that grow faster", chirp), 4: ("a ball in a box", ball)}
    name, draw = drawn.get(len(wanted.shape), ("random numbers", noise))
    return [Sample(name, wanted.scaled(draw(wanted.shape)).astype("float32"))]


def opened(file):
    try:
        picture = Image.open(file)
        picture.load()
    except OSError as error:
        raise ValueError(f"{file} cannot be read as a picture: {error}") from error
    return picture


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
