"""The one list of layers: a new layer type is one line here, and every property test holds it to account."""

import inspect
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
from covering import covering
from extent import EXHAUSTIVE
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

import keras_adjoint as ka
from keras_adjoint.testing.pairs import Packing

L = keras.layers
BACKEND = keras.backend.backend()


@dataclass(frozen=True)
class Case:
    """A linear layer with the shape of its input, without the batch axis."""

    title: str
    layer_class: type
    make: object
    shape: tuple  # or a list of shapes, for layers that merge several tensors
    options: dict = field(default_factory=dict)
    single_on: tuple = ()  # backends whose own forward of a float64 layer rounds to float32
    no_double_on: tuple = ()  # backends without a float64 forward
    exists: bool = True  # in this version of Keras
    nowhere_on: tuple = ()  # backends on whose CPU Keras' own forward does not run
    settings: dict = field(default_factory=dict)  # the arguments that are given by name

    def __str__(self):
        return self.title

    def build(self, dtype="float64"):
        """The layer, built, with random numbers in all of its weights."""
        layer = self.make(dtype)
        layer(self.inputs("int32" if isinstance(layer, L.Embedding) else dtype))
        randomize(layer)
        return layer

    @property
    def family(self):
        """The name of the layer's class, whatever its rank."""
        return self.layer_class.__name__.translate(NO_RANK)

    @property
    def is_built_anywhere(self):
        """Whether Keras has the layer's forward on this backend's CPU, in whatever data format."""
        return BACKEND not in self.nowhere_on

    @property
    def runs_itself(self):
        """Whether Keras computes the very layer: TensorFlow's CPU has most convolutions channels last alone."""
        first = BACKEND == "tensorflow" and self.settings.get("data_format") == FIRST
        return self.is_built_anywhere and not (first and "conv" in self.title and "conv3d" not in self.title)

    @property
    def merges(self):
        return isinstance(self.shape, list)

    def inputs(self, dtype):
        """Symbolic tensors for a call of the layer."""
        return [keras.Input(s, dtype=dtype) for s in self.shape] if self.merges else keras.Input(self.shape, dtype=dtype)

    @property
    def packing(self):
        """How the operator reads several inputs as one; `None` if there is one."""
        return Packing([(None, *shape) for shape in self.shape]) if self.merges else None

    def adjoint(self, layer):
        return ka.adjoint(layer, **self.options)

    @property
    def trains(self):
        """Whether the layer has trainable weights, going by the initializers that its class takes."""
        return any("initializer" in name for name in inspect.signature(self.layer_class).parameters)

    @property
    def input_shape(self):
        """The shape of x, which for an embedding is the shape of one-hot vectors, and several inputs packed into one."""
        if self.merges:
            return self.packing.shape[1:]
        return (*self.shape, 7) if self.title.startswith("embedding") else self.shape

    def switches(self, dtype="float64"):
        """What max pooling takes its switches from; `None` for layers that need none."""
        if not self.title.startswith("max"):
            return None
        return np.random.default_rng(1).normal(size=(1, *self.shape)).astype(dtype)


def randomize(layer):
    """Random weights, positive where the layer takes a square root."""
    generator = np.random.default_rng(0)
    for weight in layer.weights:
        if "int" in weight.dtype:
            continue
        value = generator.normal(size=weight.shape)
        value = np.abs(value) + 0.5 if "variance" in weight.name else value
        weight.assign(value.astype(weight.dtype))  # which JAX would compile a program for
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def case(title, layer_class, shape, *args, options=None, **kwargs):
    limits = {name: kwargs.pop(name) for name in ("single_on", "no_double_on", "exists", "nowhere_on") if name in kwargs}
    limits["settings"] = kwargs
    return Case(title, layer_class, lambda dtype: layer_class(*args, dtype=dtype, **kwargs), shape, options or {}, **limits)


FIRST = "channels_first"
NO_RANK = str.maketrans("", "", "123")
TF, JAX, TORCH = ("tensorflow",), ("jax",), ("torch",)
KERAS = tuple(map(int, keras.__version__.split(".")[:2]))
TRANSPOSES = KERAS >= (3, 15) or keras.backend.backend() != "torch"  # else some are wrong, and their adjoints refused
DILATES_STRIDES = KERAS >= (3, 15)  # of depthwise convolutions
CHANNELS_FIRST = KERAS >= (3, 11) or keras.backend.backend() != "tensorflow"  # of depthwise convolutions on the CPU
LAYERS = [
    case("conv1d", L.Conv1D, (9, 3), 4, 3),
    case("conv1d, stride 3, same", L.Conv1D, (10, 2), 3, 4, strides=3, padding="same"),
    case("conv1d, causal, dilated", L.Conv1D, (9, 2), 3, 3, dilation_rate=2, padding="causal"),
    case("conv1d, causal, stride 2", L.Conv1D, (9, 2), 3, 4, strides=2, padding="causal"),
    case("conv1d, stride beyond the kernel", L.Conv1D, (11, 2), 3, 2, strides=4),
    case("conv1d, channels first", L.Conv1D, (2, 9), 3, 3, strides=2, data_format=FIRST),
    case("conv2d", L.Conv2D, (6, 5, 3), 4, 3),
    case("conv2d, same", L.Conv2D, (6, 5, 3), 4, 3, padding="same"),
    case("conv2d, stride 2, odd size, same", L.Conv2D, (7, 9, 2), 3, 3, strides=2, padding="same"),
    case("conv2d, stride 2, even kernel", L.Conv2D, (9, 7, 3), 5, 4, strides=2, padding="same"),
    case("conv2d, stride 2, valid", L.Conv2D, (8, 7, 2), 3, 3, strides=2),
    case("conv2d, strides and kernel differ by axis", L.Conv2D, (8, 9, 2), 3, (5, 2), strides=(3, 1), padding="same"),
    case("conv2d, dilated", L.Conv2D, (8, 7, 2), 3, 3, dilation_rate=(2, 1), padding="same"),
    case("conv2d, dilated, valid", L.Conv2D, (8, 7, 2), 3, 3, dilation_rate=2),
    case("conv2d, kernel larger than the image", L.Conv2D, (3, 4, 2), 2, 7, padding="same"),
    case("conv2d, kernel larger than the image, stride 2", L.Conv2D, (3, 4, 2), 2, 7, strides=2, padding="same"),
    case("conv2d, groups", L.Conv2D, (6, 5, 4), 6, 3, groups=2, padding="same"),
    case("conv2d, groups, stride 2", L.Conv2D, (7, 6, 6), 9, 3, groups=3, strides=2),
    case("conv2d, one group per channel", L.Conv2D, (6, 5, 3), 6, 3, groups=3, padding="same"),
    case("conv2d, 1 x 1, stride 2", L.Conv2D, (5, 6, 3), 4, 1, strides=2),
    case("conv2d, bias", L.Conv2D, (5, 6, 3), 4, 3, bias_initializer="ones"),
    case("conv2d, channels first", L.Conv2D, (2, 7, 6), 3, 3, strides=2, padding="same", data_format=FIRST),
    case("conv3d", L.Conv3D, (4, 5, 3, 2), 3, 2, strides=(1, 2, 1), padding="same"),
    case("conv3d, dilated", L.Conv3D, (5, 5, 5, 1), 2, 2, dilation_rate=2),
    case("conv3d, groups", L.Conv3D, (4, 3, 4, 2), 4, 2, groups=2, strides=2),
    case("conv3d, channels first", L.Conv3D, (2, 4, 3, 4), 2, 3, padding="same", data_format=FIRST),
    case("conv1d transpose", L.Conv1DTranspose, (5, 3), 2, 4, strides=3),
    case("conv1d transpose, channels first", L.Conv1DTranspose, (3, 5), 2, 3, strides=2, padding="same", data_format=FIRST, exists=TRANSPOSES),
    case("conv2d transpose, same", L.Conv2DTranspose, (4, 3, 3), 2, 3, strides=2, padding="same", exists=TRANSPOSES),
    case("conv2d transpose, output padding", L.Conv2DTranspose, (4, 3, 2), 2, 3, strides=2, padding="same", output_padding=1, exists=TRANSPOSES),
    case("conv2d transpose, valid, output padding", L.Conv2DTranspose, (3, 3, 2), 2, 3, strides=3, output_padding=2),
    case("conv2d transpose, stride beyond the kernel", L.Conv2DTranspose, (3, 4, 2), 2, 2, strides=3),
    case("conv2d transpose, dilated", L.Conv2DTranspose, (4, 5, 2), 2, 3, dilation_rate=2, nowhere_on=TF),
    case("conv3d transpose", L.Conv3DTranspose, (2, 3, 2, 2), 2, 3, strides=2, padding="same", exists=TRANSPOSES),
    case("depthwise conv1d", L.DepthwiseConv1D, (8, 3), 3, strides=2, padding="same"),
    case("depthwise conv2d", L.DepthwiseConv2D, (7, 6, 3), 3, padding="same"),
    case("depthwise conv2d, stride 2", L.DepthwiseConv2D, (7, 6, 3), 3, strides=2, padding="same"),
    case("depthwise conv2d, multiplier 2", L.DepthwiseConv2D, (8, 6, 3), 3, depth_multiplier=2, strides=2),
    case("depthwise conv2d, stride with dilation", L.DepthwiseConv2D, (9, 8, 2), 3, strides=2, dilation_rate=2, exists=DILATES_STRIDES),
    case("depthwise conv2d, channels first", L.DepthwiseConv2D, (3, 6, 5), 3, data_format=FIRST, exists=CHANNELS_FIRST),
    case("separable conv1d", L.SeparableConv1D, (8, 3), 4, 3, strides=2, padding="same"),
    case("separable conv2d", L.SeparableConv2D, (7, 6, 3), 4, 3, depth_multiplier=2, padding="same"),
    case("separable conv2d, channels first", L.SeparableConv2D, (3, 6, 5), 4, 3, strides=2, data_format=FIRST, exists=CHANNELS_FIRST),
    case("dense", L.Dense, (5,), 3, bias_initializer="ones", single_on=TORCH),
    case("dense, several axes", L.Dense, (2, 5), 3, single_on=TORCH),
    case("einsum dense", L.EinsumDense, (4, 6), "abc,cde->abde", output_shape=(4, 2, 3), bias_axes="de"),
    case("einsum dense, ellipsis", L.EinsumDense, (4, 6), "...x,xy->...y", output_shape=3),
    case("einsum dense, ellipsis behind", L.EinsumDense, (6, 4), "ab...,bc->ac...", output_shape=5),
    case("embedding", L.Embedding, (3,), 7, 4),
    case("embedding, reversible", getattr(L, "ReversibleEmbedding", L.Embedding), (3,), 7, 4, exists=hasattr(L, "ReversibleEmbedding")),
    case("average pooling 1d", L.AveragePooling1D, (9, 2), 3, 2, padding="same"),
    case("average pooling 2d", L.AveragePooling2D, (7, 6, 2), 2),
    case("average pooling 2d, overlapping", L.AveragePooling2D, (7, 8, 2), 3, 2, padding="same"),
    case("average pooling 2d, gaps", L.AveragePooling2D, (8, 8, 2), 2, 3),
    case("average pooling 2d, channels first", L.AveragePooling2D, (2, 7, 6), 3, 2, padding="same", data_format=FIRST),
    case("average pooling 3d", L.AveragePooling3D, (4, 5, 4, 2), 2, no_double_on=TF),
    case("global average pooling 1d", L.GlobalAveragePooling1D, (5, 2), single_on=JAX + TORCH),
    case("global average pooling 2d", L.GlobalAveragePooling2D, (4, 3, 2), single_on=JAX + TORCH),
    case("global average pooling 2d, keepdims", L.GlobalAveragePooling2D, (2, 4, 3), keepdims=True, data_format=FIRST, single_on=JAX + TORCH),
    case("global average pooling 3d", L.GlobalAveragePooling3D, (2, 3, 2, 2), single_on=JAX + TORCH),
    case("max pooling 1d", L.MaxPooling1D, (9, 2), 3, 2, padding="same"),
    case("max pooling 2d", L.MaxPooling2D, (7, 6, 2), 2),
    case("max pooling 2d, overlapping", L.MaxPooling2D, (8, 7, 2), 3, 2, padding="same"),
    case("max pooling 2d, channels first", L.MaxPooling2D, (2, 7, 6), 3, 2, data_format=FIRST),
    case("max pooling 3d", L.MaxPooling3D, (4, 5, 4, 1), 2),
    case("max, global pooling 1d", L.GlobalMaxPooling1D, (5, 2)),
    case("max, global pooling 2d, channels first", L.GlobalMaxPooling2D, (2, 3, 4), data_format=FIRST),
    case("max, global pooling 3d, axes kept", L.GlobalMaxPooling3D, (2, 3, 2, 2), keepdims=True),
    case("up-sampling 1d", L.UpSampling1D, (4, 2), 3),
    case("up-sampling 2d", L.UpSampling2D, (4, 3, 2), (2, 3)),
    case("up-sampling 2d, bilinear", L.UpSampling2D, (4, 3, 2), (2, 3), interpolation="bilinear", single_on=TF),
    case("up-sampling 2d, channels first", L.UpSampling2D, (2, 4, 3), 2, interpolation="bilinear", data_format=FIRST, single_on=TF),
    case("up-sampling 2d, bilinear, one pixel", L.UpSampling2D, (1, 2, 1), 4, interpolation="bilinear", single_on=TF),
    case("up-sampling 3d", L.UpSampling3D, (2, 3, 2, 2), 2),
    case("zero padding 1d", L.ZeroPadding1D, (4, 2), (1, 2)),
    case("zero padding 1d, channels first", L.ZeroPadding1D, (2, 4), (1, 2), data_format=FIRST),
    case("zero padding 2d", L.ZeroPadding2D, (4, 3, 2), ((1, 2), (0, 3))),
    case("zero padding 2d, channels first", L.ZeroPadding2D, (2, 4, 3), 1, data_format=FIRST),
    case("zero padding 3d", L.ZeroPadding3D, (2, 3, 2, 2), 1),
    case("cropping 1d", L.Cropping1D, (6, 2), (1, 2)),
    case("cropping 2d", L.Cropping2D, (6, 5, 2), ((1, 2), (0, 3))),
    case("cropping 3d", L.Cropping3D, (4, 3, 4, 2), 1),
    case("flatten", L.Flatten, (3, 4, 2)),
    case("flatten, channels first", L.Flatten, (2, 3, 4), data_format=FIRST),
    case("reshape", L.Reshape, (3, 4), (2, 6)),
    case("permute", L.Permute, (2, 3, 4), (3, 1, 2)),
    case("repeat vector", L.RepeatVector, (4,), 3),
    case("rescaling", L.Rescaling, (4, 3), 2.5, offset=-1.0),
    case("rescaling by channel", L.Rescaling, (4, 3), [1.0, 2.0, 3.0], offset=[0.0, 1.0, 2.0]),
    case("normalization", L.Normalization, (4, 3)),
    case("normalization, inverted", L.Normalization, (4, 3), mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 2.0], invert=True),
    case("normalization, first axis", L.Normalization, (4, 3), axis=1),
    case("batch normalization", L.BatchNormalization, (4, 3), single_on=JAX + TORCH),
    case("batch normalization, axis 1", L.BatchNormalization, (3, 4, 2), axis=1, scale=False, single_on=JAX + TORCH),
    case("layer scale", LayerScale, (4, 3), 0.5, 3),
    case("dropout", L.Dropout, (4,), 0.5),
    case("spatial dropout", L.SpatialDropout2D, (3, 3, 2), 0.5),
    case("gaussian noise", L.GaussianNoise, (4,), 0.5),
    case("stochastic depth", StochasticDepth, (3, 4), 0.5),
    case("add", L.Add, [(3, 2), (3, 2)]),
    case("add, three inputs, broadcast", L.Add, [(3, 4, 2), (1, 1, 2), (3, 1, 2)]),
    case("add, ranks differ", L.Add, [(3, 4, 2), (4, 2), (2,)]),
    case("subtract", L.Subtract, [(3, 2), (3, 2)]),
    case("average", L.Average, [(3,), (3,), (3,)]),
    case("concatenate", L.Concatenate, [(3, 2), (3, 4)]),
    case("concatenate, axis 1", L.Concatenate, [(3, 2, 2), (1, 2, 2), (2, 2, 2)], axis=1),
    case("scaled residual", CustomScaleLayer, [(3, 2), (3, 2)], 0.3),
    case("random flip", L.RandomFlip, (4, 4, 3)),
    case("random contrast", L.RandomContrast, (4, 4, 3), 0.5),
    case("masking", L.Masking, (4, 3)),
    Case("spectral normalization", L.SpectralNormalization, lambda dtype: L.SpectralNormalization(L.Conv1D(3, 2, strides=2, dtype=dtype), dtype=dtype), (7, 2)),
    Case("time distributed", L.TimeDistributed, lambda dtype: L.TimeDistributed(L.Conv1D(3, 3, strides=2, use_bias=False, dtype=dtype), dtype=dtype), (2, 8, 2)),
    Case("time distributed, flatten", L.TimeDistributed, lambda dtype: L.TimeDistributed(L.Flatten(dtype=dtype), dtype=dtype), (2, 3, 2)),
    Case("time distributed, pooling", L.TimeDistributed, lambda dtype: L.TimeDistributed(L.GlobalAveragePooling1D(dtype=dtype), dtype=dtype), (2, 3, 2), single_on=(*JAX, *TORCH)),
    case("linear activation", L.Activation, (4,), "linear"),
    case("identity", L.Identity, (4,)),
]
LAYERS = [case for case in LAYERS if case.exists]
ONE_OF_EACH_FAMILY = list({case.family: case for case in reversed(LAYERS)}.values())
# Every family of layers with each of the arguments that are given anywhere in the list.
REPRESENTATIVES = covering(LAYERS, lambda case: {(case.family, name) for name in ("", *case.settings)}, strength=1)

# Of those, for what is dear and holds on every backend for the same reason: half are tried on JAX, half on TensorFlow.
HALF = REPRESENTATIVES[BACKEND == "jax" :: 2]


def for_each(cases, quick=None):
    """Parametrize a test by the cases that exist on this backend.

    Of those, `make test` runs the `quick` ones alone, where they are given; on PyTorch all of them are quick.
    """

    def is_quick(case):
        return EXHAUSTIVE or BACKEND == "torch" or quick is None or case in quick

    return pytest.mark.parametrize("case", [case for case in cases if case.is_built_anywhere and is_quick(case)], ids=str)
