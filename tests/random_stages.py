"""What random encoders are made of: stages, one a line.

A stage takes a tensor and the `Drawing` that it is a part of, and returns a tensor, or `None` if it does not take this one.
"""

import math

import keras
import numpy as np
from keras import ops

L = keras.layers
ACTIVATIONS = [
    None,
    None,
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "tanh",
    "gelu",
    "swish",
    "softplus",
    "hard_sigmoid",
    "softmax",
]


def ranked(name, *arguments, axes=(2, 3, 4), least=1, **options):
    """A stage of a layer whose class is named after its rank, as `Conv2D` is, which takes data formats."""

    def stage(x, drawing):
        rank = len(x.shape) - 2
        if len(x.shape) - 1 not in axes or min(drawing.sizes(x)) < least:
            return None
        chosen = {key: drawing.one_of(value) if isinstance(value, list) else value for key, value in options.items()}
        layer = getattr(L, f"{name}{rank}D")(*arguments, data_format=drawing.data_format, **chosen)
        return drawing.apply(layer, x)

    return stage


def on_channels(name, *arguments, **options):
    """A stage of a layer that has its axis of channels as an option."""
    return lambda x, drawing: drawing.apply(getattr(L, name)(*arguments, axis=drawing.axis(x), **options), x)


def single(name, *arguments, axes=(1, 2, 3, 4), **options):
    """A stage of one layer, for tensors of so many axes."""

    def stage(x, drawing):
        chosen = {key: drawing.one_of(value) if isinstance(value, list) else value for key, value in options.items()}
        return drawing.apply(getattr(L, name)(*arguments, **chosen), x) if len(x.shape) - 1 in axes else None

    return stage


def constant(shape):
    return np.full(shape, 1.5, "float32")


def operation(function):
    return lambda x, drawing: function(x)


def residual(x, drawing):
    """A convolution beside the identity."""
    if len(x.shape) < 3 or x.shape[drawing.axis(x)] > 8:
        return None
    conv = ranked("Conv", x.shape[drawing.axis(x)], 3, padding="same", activation=ACTIVATIONS)
    return L.Add()([x, conv(x, drawing)])


def joined(x, drawing):
    """A dense layer of the channels beside them."""
    if drawing.axis(x) != -1:
        return None
    return L.Concatenate()([L.Dense(2, activation=drawing.one_of(ACTIVATIONS))(x), x])


def gated(x, drawing):
    """What squeezes and excites."""
    if len(x.shape) < 3 or drawing.axis(x) != -1:
        return None
    pool = getattr(L, f"GlobalAveragePooling{len(x.shape) - 2}D")(keepdims=True)
    return L.Multiply()([x, L.Dense(x.shape[-1], activation="sigmoid")(pool(x))])


def called_twice(x, drawing):
    """A layer that is called twice."""
    shared = L.Dense(x.shape[-1], activation=drawing.one_of(ACTIVATIONS))
    return shared(shared(x))


def nested(x, drawing):
    """A nested model of two other stages."""
    inner = drawing.of_a_part(keras.Input(x.shape[1:]))
    names = OF_ANY_SIZE if None in x.shape[1:] else STAGES
    for _ in range(2):
        inner.step({name: STAGES[name] for name in names if name not in ("nested", *OF_OTHERS)})
    drawing.steps.append(f"of {inner.steps}")
    return keras.Model(inner.inputs, inner.tensor)(x) if inner.tensor is not inner.inputs[0] else None


def with_an_earlier_one(x, drawing):
    """The tensor and an earlier one of the same shape."""
    others = [y for y in drawing.tensors if y.shape == x.shape and y is not x]
    if not others:
        return None
    layer = drawing.one_of([L.Add, L.Subtract, L.Average, L.Multiply, L.Maximum, L.Minimum, L.Concatenate])()
    return drawing.apply(layer, [x, drawing.one_of(others)])


def masked_mean(x, drawing):
    """The mean over the steps that a mask keeps, which is an input of the model."""
    if drawing.steps_kept is None or x.shape[1:-1] != drawing.steps_kept.shape[1:]:
        return None
    return L.GlobalAveragePooling1D()(x, mask=ops.not_equal(drawing.steps_kept, 0))


def reshaped(x, drawing):
    if None in x.shape[1:]:
        return L.Reshape((-1, x.shape[-1]))(x)
    size = math.prod(x.shape[1:])
    return L.Reshape((size // 2, 2) if size % 2 == 0 else (1, size))(x)


def widened(x, drawing):
    """A dense layer of everything, to a small image."""
    return L.Reshape((5, 4, 2))(L.Dense(40, activation=drawing.one_of(ACTIVATIONS))(L.Flatten()(x)))


def normalization(x, drawing):
    """A normalization by given statistics."""
    axis = drawing.axis(x)
    statistics = {"mean": [0.5] * x.shape[axis], "variance": [2.0] * x.shape[axis]}
    return drawing.apply(L.Normalization(axis=axis, **statistics), x)


STAGES = {
    "convolution": ranked("Conv", 4, 3, padding=["same", "valid"], strides=[1, 2], least=3, activation=ACTIVATIONS),
    "dilated": ranked("Conv", 3, 2, dilation_rate=2, use_bias=False, least=3, activation=ACTIVATIONS),
    "wide stride": ranked("Conv", 2, 2, strides=3, padding=["same", "valid"], least=2),
    "depthwise": ranked("DepthwiseConv", 2, strides=[1, 2], padding=["same", "valid"], axes=(2, 3), least=2),
    "separable": ranked("SeparableConv", 3, 3, padding="same", activation=ACTIVATIONS, axes=(2, 3)),
    "transposed": lambda x, drawing: (
        L.Conv2DTranspose(2, 2, data_format=drawing.data_format)(x) if len(x.shape) == 4 else None
    ),
    "dense": single("Dense", 3, activation=ACTIVATIONS),
    "max pooling": ranked("MaxPooling", 2, padding=["same", "valid"], least=2),
    "overlapping max pooling": ranked("MaxPooling", 3, strides=2, padding="same"),
    "average pooling": ranked("AveragePooling", 2, padding=["same", "valid"], least=2),
    "global max pooling": ranked("GlobalMaxPooling", keepdims=[True, False]),
    "global average pooling": ranked("GlobalAveragePooling", keepdims=[True, False]),
    "batch normalization": on_channels("BatchNormalization"),
    "layer normalization": single("LayerNormalization"),
    "group normalization": on_channels("GroupNormalization", 1),
    "root mean square normalization": single("RMSNormalization"),
    "unit normalization": single("UnitNormalization"),
    "relu": single("ReLU", max_value=[None, 6.0], negative_slope=[0.0, 0.1]),
    "leaky relu": single("LeakyReLU"),
    "prelu": single("PReLU", "random_normal"),
    "softmax": single("Softmax"),
    "activation": single("Activation", activation=["relu", "tanh", "gelu", "selu", "log_softmax", "linear"]),
    "activation as an operation": operation(ops.relu),
    "another one": operation(keras.activations.gelu),
    "dropout": single("Dropout", 0.4),
    "spatial dropout": ranked("SpatialDropout", 0.4, axes=(3, 4)),
    "noise": single("GaussianNoise", 0.1),
    "alpha dropout": single("AlphaDropout", 0.3),
    "augmentation": single("RandomFlip", axes=(3,)),
    "residual": residual,
    "joined": joined,
    "gated": gated,
    "called twice": called_twice,
    "nested": nested,
    "with an earlier tensor": with_an_earlier_one,
    "with the earlier tensor": with_an_earlier_one,
    "masked mean": masked_mean,
    "masking": single("Masking", axes=(2,)),
    "zero padding": ranked("ZeroPadding", 1, axes=(3, 4)),
    "cropping": ranked("Cropping", 1, axes=(3, 4), least=4),
    "upsampling": ranked("UpSampling", 2, axes=(3, 4)),
    "rescaling": single("Rescaling", 0.5, offset=0.25),
    "normalization": normalization,
    "scaled": operation(lambda x: 0.5 * x + 1.0),
    "sliced": operation(lambda x: x[:, 1:] if x.shape[1] is None or x.shape[1] > 1 else None),
    "sliced by steps": operation(lambda x: x[:, ::2]),
    "mean": operation(lambda x: x - ops.mean(x, axis=1, keepdims=True)),
    "operations": operation(lambda x: ops.concatenate([ops.flip(x, axis=1), x], axis=1)),
    "a part": operation(lambda x: ops.split(x, [1], axis=-1)[0] if x.shape[-1] > 1 else None),
    "times constants": operation(lambda x: L.Multiply()([x, constant((x.shape[0] or 1, *[1] * (len(x.shape) - 1)))])),
    "flatten": single("Flatten", axes=(2, 3, 4)),
    "reshape": reshaped,
    "widened": widened,
    "permute": lambda x, drawing: L.Permute(tuple(range(len(x.shape) - 1, 0, -1)))(x),
    "spectral": lambda x, drawing: L.SpectralNormalization(L.Dense(3, activation=drawing.one_of(ACTIVATIONS)))(x),
    "distributed dense": lambda x, drawing: L.TimeDistributed(L.Dense(2))(x) if len(x.shape) > 2 else None,
}

OF_OTHERS = ("with an earlier tensor", "with the earlier tensor", "masked mean")  # what a nested model has not

# What takes tensors of unknown sizes.
OF_ANY_SIZE = (
    *(
        "convolution",
        "dilated",
        "wide stride",
        "depthwise",
        "separable",
        "transposed",
        "dense",
        "max pooling",
        "average pooling",
    ),
    *(
        "overlapping max pooling",
        "global max pooling",
        "global average pooling",
        "batch normalization",
        "relu",
        "leaky relu",
    ),
    *("layer normalization", "activation", "activation as an operation", "dropout", "residual", "joined", "gated"),
    *(
        "zero padding",
        "cropping",
        "upsampling",
        "rescaling",
        "normalization",
        "scaled",
        "with an earlier tensor",
        "nested",
    ),
    *("sliced", "sliced by steps", "mean", "operations", "a part", "times constants", "flatten", "reshape", "permute"),
)
