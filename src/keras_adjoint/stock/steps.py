"""Stock Keras layers as data, with the weights that they will hold: what the writers return and build from."""

import hashlib
import inspect
import pickle
from dataclasses import dataclass
from itertools import chain

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.sizes import spatial

L = keras.layers
CONV = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}
CROPPING = {1: L.Cropping1D, 2: L.Cropping2D, 3: L.Cropping3D}
ZERO_PADDING = {1: L.ZeroPadding1D, 2: L.ZeroPadding2D, 3: L.ZeroPadding3D}


@dataclass(frozen=True)
class Call:
    """A call of an adjoint layer, which is to be written out.

    Args:
        tied: The layer, built.
        input_shape: Shape of its input, batch axis included.
        output_shape: Shape of its output, or a list of shapes.
        to: "conv_transpose" or "conv".
    """

    tied: keras.layers.Layer
    input_shape: tuple
    output_shape: tuple
    to: str

    @property
    def input_sizes(self):
        return spatial(self.input_shape, self.tied.data_format)

    @property
    def output_sizes(self):
        return spatial(self.output_shape, self.tied.data_format)

    def known(self, sizes):
        """`sizes`, all of which must be known."""
        if None in sizes:
            self.refuse(f"that takes known sizes, and they are {tuple(sizes)}; build the model for a fixed input size")
        return tuple(sizes)

    def refuse(self, reason):
        refuse(self.tied, reason)


def refuse(tied, reason):
    """Raise a NoRuleError."""
    raise NoRuleError(f"`{tied.name}` cannot be written out in stock layers: {reason}. Received: {received(tied)}")


def received(layer):
    """A layer as error messages name it."""
    return f"layer={layer.name!r} of type {type(layer).__name__}"


@dataclass(frozen=True)
class Step:
    """A stock layer that is yet to be made, and the arrays to be set as its weights."""

    layer_class: type
    options: dict
    weights: tuple

    def make(self, **kwargs):
        return self.layer_class(**self.options, **kwargs)

    def fingerprint(self):
        """The same for steps that do the same, so that one layer can serve them."""
        return hashlib.sha256(pickle.dumps((self.layer_class, self.options, self.weights))).digest()


@dataclass(frozen=True)
class Branches:
    """What an adjoint that returns several tensors is written out in: a chain of steps for each."""

    chains: list


def step(layer_class, *weights, **options):
    """A `Step` that works on channels-last tensors."""
    if "data_format" in inspect.signature(layer_class.__init__).parameters:
        options["data_format"] = "channels_last"
    return Step(layer_class, options, weights)


def weighted(layer_class, kernel, bias=None, **options):
    """A `Step` with a kernel, and with a bias if there is one."""
    weights = (kernel,) if bias is None else (kernel, bias)
    return step(layer_class, *weights, use_bias=bias is not None, **options)


# --- numbers


def array(value):
    """A variable or tensor as a NumPy array in single or double precision."""
    value = ops.convert_to_numpy(value)
    return value if value.dtype == "float64" else value.astype("float32")


def kernel_of(tied, name=None):
    """A kernel of the source as it is stored, not rounded to the compute dtype."""
    return array(read_kernel(tied.source, name or tied.kernel_name))


def constant(value):
    """Numbers that a layer keeps in its config: an array, since TensorFlow reads a Python number as single precision."""
    return np.asarray(array(value), "float64")


# --- pieces


def scaled(factor):
    """A product with a number or with an array that broadcasts."""
    return step(L.Rescaling, scale=constant(factor))


def subtracted(tied, bias):
    """What `bias="subtract"` puts before the adjoint."""
    if tied.bias_mode != "subtract" or bias is None:
        return []
    return [step(L.Rescaling, scale=1.0, offset=-constant(bias))]


def windowed(pads):
    """Zeros added (positive) or positions cut (negative) in front of and behind every spatial axis."""
    rank = len(pads)
    cuts = tuple(tuple(max(-pad, 0) for pad in pair) for pair in pads)
    zeros = tuple(tuple(max(pad, 0) for pad in pair) for pair in pads)
    crop = step(CROPPING[rank], cropping=cuts if rank > 1 else cuts[0])
    pad = step(ZERO_PADDING[rank], padding=zeros if rank > 1 else zeros[0])
    return [step for step, amounts in ((crop, cuts), (pad, zeros)) if any(chain(*amounts))]


def convolved(kernel, bias=None, **options):
    """A "valid" convolution with a kernel of shape `(*taps, channels / groups, filters)`."""
    *taps, _, filters = kernel.shape
    return weighted(CONV[len(taps)], kernel, bias, filters=filters, kernel_size=tuple(taps), **options)


def multiplied(matrix, rank=0, bias=None):
    """A product of the channels with a matrix, at each position of `rank` spatial axes."""
    if rank == 0:
        return weighted(L.Dense, matrix, bias, units=matrix.shape[1])
    return convolved(matrix.reshape((1,) * rank + matrix.shape), bias)


def with_options(tied, rank, write):
    """The steps that the options of an adjoint add around those that `write(bias)` gives."""
    before = subtracted(tied, tied.source.bias)
    bias = None if tied._bias is None else array(tied._bias())
    if tied._channel_map is None:
        return [*before, *write(bias)]
    return [*before, *write(None), multiplied(array(tied._channel_map()), rank, bias)]


def among_channels_last(tied, rank, steps):
    """The same steps for a layer of the source's data format."""
    if tied.data_format == "channels_last":
        return steps
    return [channels_to_last(rank), *steps, channels_to_first(rank)]


def channels_to_last(rank):
    return step(L.Permute, dims=(*range(2, rank + 2), 1))


def channels_to_first(rank):
    return step(L.Permute, dims=(rank + 1, *range(1, rank + 1)))
