"""Photographs as a model takes them: of its size, in grey or colour, in its range of numbers; and those of scikit-image."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageOps

from keras_adjoint.layers.sizes import spatial
from keras_adjoint.models.graph import Graph
from keras_adjoint.models.text import size_text
from keras_adjoint.ops import Shape
from keras_adjoint.plots.picture_files import open_picture

LARGEST = 512  # pixels of the longer side, if no size is asked for
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of the model's input
ALPHA = 3  # the channel of RGBA that says how opaque a pixel is
PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


def read(file: Path, shape: Shape, data_format: str, longest: int | None = None) -> np.ndarray:
    """A photograph from a file, in colours from 0 to 1, of the spatial size of a model's input.

    Args:
        file: A path.
        shape: The shape of the input.
        data_format: Where it has its channels.
        longest: Pixels of the longer side, for a model that takes every size. By default those of the photograph, but at
            most `LARGEST`.

    Returns:
        An array of shape `(height, width, channels)`.

    Raises:
        ValueError: If the file is no picture, or the model takes none.
    """
    mode_for(shape, data_format)
    return fitted(open_picture(file), shape, data_format, longest)


def fitted(picture: Image.Image, shape: Shape, data_format: str, longest: int | None = None) -> np.ndarray:
    """A picture, cropped to its middle and scaled, as `read` returns it."""
    mode, channels = mode_for(shape, data_format)
    width, height = size_for(picture, spatial(shape, data_format), longest)
    if picture.mode == "F":
        grey = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))[..., None]
        layers = [np.ones_like(grey) if number == ALPHA else grey for number in range(channels)]
        return np.concatenate(layers, axis=-1).clip(0, 1)
    picture = ImageOps.fit(picture.convert(mode), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, "float32").reshape(height, width, channels) / 255


def mode_for(shape: Shape, data_format: str) -> tuple[str, int]:
    """(the mode of `PIL.Image`, the number of channels) for a model's input."""
    if len(shape) != 4:
        raise ValueError(
            f"Pictures have a height, a width and channels, and the model takes an input of shape {shape}."
        )
    channels = shape[1] if data_format == "channels_first" else shape[-1]
    if channels not in MODES:
        raise ValueError(f"Pictures are grey or coloured, and the model takes {channels} channels.")
    return MODES[channels], channels


def size_for(picture: Image.Image, sizes: Sequence[int | None], longest: int | None) -> tuple[int, int]:
    """(width, height) that a picture is scaled to: the model's, or the picture's own where the model takes any."""
    if longest and None not in sizes:
        raise ValueError(f"The model takes pictures of {size_text(reversed(sizes))} pixels, so --size has no effect.")
    scale = min(1, LARGEST / max(picture.size)) if longest is None else longest / max(picture.size)
    height, width = sizes
    own_width, own_height = (max(1, round(scale * side)) for side in picture.size)
    return width or own_width, height or own_height


def usual_range(graph: Graph) -> tuple[float, float]:
    """The range of numbers that a model probably expects: pixel values if it begins by scaling them, else 0 to 1."""
    first = [call.operation for call in graph.calls if any(x is graph.inputs[0] for x in call.inputs)]
    return (0.0, 255.0) if any(isinstance(operation, PREPROCESSING) for operation in first) else (0.0, 1.0)


def as_input(picture: np.ndarray, low: float, high: float, data_format: str) -> np.ndarray:
    """A picture as a batch of one, in a model's range."""
    x = (low + (high - low) * picture)[None].astype("float32")
    return np.moveaxis(x, -1, 1) if data_format == "channels_first" else x


# --- in the wheels of scikit-image

BUNDLED = {  # name: (file, the function of `skimage.data` that reads it)
    "astronaut": ("astronaut.png", "astronaut"),
    "cat": ("chelsea.png", "chelsea"),
    "coffee": ("coffee.png", "coffee"),
    "motorcycle": ("motorcycle_left.png", "stereo_motorcycle"),
    "rocket": ("rocket.jpg", "rocket"),
}


def bundled(name: str) -> np.ndarray:
    """One of the colour photographs in scikit-image, as bytes.

    Raises:
        FileNotFoundError: If it is not installed. scikit-image would download it.
    """
    import skimage.data

    file, function = BUNDLED[name]
    if not (Path(skimage.data.__file__).parent / file).exists():
        raise FileNotFoundError(f"This scikit-image comes without {file}; its wheels of 0.25 and 0.26 have it.")
    picture = getattr(skimage.data, function)()
    picture = picture[0] if isinstance(picture, tuple) else picture  # the left one of a stereo pair
    return np.asarray(picture[..., :3])
