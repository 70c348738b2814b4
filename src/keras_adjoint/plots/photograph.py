"""A photograph as a model wants to see it: of its size, in grey or colour, and in its range of numbers."""

import keras
import numpy as np
from PIL import Image, ImageOps

from keras_adjoint.layers.sizes import spatial

LARGEST = 512  # pixels of the longer side where nobody says how large
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of the model's input
PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


def read(file, shape, data_format, longest=None):
    """A photograph from a file, in colours from 0 to 1, of the spatial size of a model's input.

    Args:
        file: A path.
        shape: The shape of the input.
        data_format: Where it has its channels.
        longest: Pixels of the longer side, for a model that takes every size. By default the photograph's, if not too many.

    Returns:
        An array of shape `(height, width, channels)`.

    Raises:
        ValueError: If there is no such picture, or the model takes none.
    """
    mode_for(shape, data_format)
    if not file.is_file():
        raise ValueError(f"{file} is a folder, not a picture." if file.is_dir() else f"There is no file {file}.")
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
    except Exception as error:
        reason = "it is none, or only a part of one" if "cannot identify" in str(error) else error
        raise ValueError(f"{file} cannot be read as a picture: {reason}.") from error
    return fitted(picture, shape, data_format, longest)


def fitted(picture, shape, data_format, longest=None):
    """A `PIL.Image`, its middle cut out and scaled, as `read` returns it."""
    mode, channels = mode_for(shape, data_format)
    width, height = size_for(picture, spatial(shape, data_format), longest)
    picture = ImageOps.fit(picture.convert(mode), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, "float32").reshape(height, width, channels) / 255


def mode_for(shape, data_format):
    """(the mode of `PIL.Image`, the number of channels) for a model's input."""
    if len(shape) != 4:
        raise ValueError(
            f"Pictures have a height, a width and channels, and the model takes an input of shape {shape}."
        )
    channels = shape[1] if data_format == "channels_first" else shape[-1]
    if channels not in MODES:
        raise ValueError(f"Pictures are grey or coloured, and the model takes {channels} channels.")
    return MODES[channels], channels


def size_for(picture, sizes, longest):
    """(width, height) that a picture is brought to: the model's, and where it has none the picture's own."""
    if longest and None not in sizes:
        raise ValueError(f"The model takes pictures of {sizes[1]}×{sizes[0]} pixels, so --size has nothing to say.")
    scale = min(1, LARGEST / max(picture.size)) if longest is None else longest / max(picture.size)
    own = (max(1, round(scale * side)) for side in picture.size)
    return tuple(known or side for known, side in zip(reversed(sizes), own, strict=True))


def usual_range(graph):
    """The range of numbers that a model probably expects: pixel values if it begins by scaling them, else 0 to 1."""
    first = [call.operation for call in graph.calls if any(x is graph.inputs[0] for x in call.inputs)]
    return (0.0, 255.0) if any(isinstance(operation, PREPROCESSING) for operation in first) else (0.0, 1.0)


def as_input(picture, low, high, data_format):
    """A picture as a batch of one, in a model's range."""
    x = (low + (high - low) * picture)[None].astype("float32")
    return np.moveaxis(x, -1, 1) if data_format == "channels_first" else x
