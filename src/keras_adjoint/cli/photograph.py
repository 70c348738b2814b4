"""A photograph as a model wants to see it: of its size, in grey or colour, and in its range of numbers."""

import keras
import numpy as np
from PIL import Image, ImageOps

from keras_adjoint.cli.errors import Unusable
from keras_adjoint.layers.sizes import spatial

LARGEST = 512  # pixels of the longer side where nobody says how large
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of the model's input
PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


def check_input(shape):
    """Raise an `Unusable` unless a model takes pictures."""
    if len(shape) != 4:
        raise Unusable(f"deconv shows pictures, and the model takes an input of shape {shape}.")


def read(file, shape, data_format, longest=None):
    """A photograph in colours from 0 to 1, of the spatial size of an input.

    Args:
        file: A path.
        shape: The shape of the model's input.
        data_format: Where the input has its channels.
        longest: Pixels of the longer side, for a model that takes every size. By default the photograph's, if not too many.

    Returns:
        An array of shape `(height, width, channels)`.
    """
    channels = shape[1] if data_format == "channels_first" else shape[-1]
    if channels not in MODES:
        raise Unusable(f"deconv shows grey and coloured pictures, and the model takes {channels} channels.")
    if not file.is_file():
        raise Unusable(f"{file} is a folder, not a picture." if file.is_dir() else f"There is no file {file}.")
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert(MODES[channels])
    except Exception as error:
        reason = "it is none, or only a part of one" if "cannot identify" in str(error) else error
        raise Unusable(f"{file} cannot be read as a picture: {reason}.") from error
    width, height = size_for(picture, spatial(shape, data_format), longest)
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, "float32").reshape(height, width, channels) / 255


def size_for(picture, sizes, longest):
    """(width, height) that a picture is brought to: the model's, and where it has none the picture's own."""
    if longest and None not in sizes:
        raise Unusable(f"The model takes pictures of {sizes[1]}×{sizes[0]} pixels, so --size has nothing to say.")
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
