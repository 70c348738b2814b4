"""Encoders that Hypothesis puts together at random from a table of stages, and random policies for their mirrors."""

import math

import keras
import numpy as np
from helpers import DATA_FORMATS
from hypothesis import strategies as st
from keras import ops, tree
from layer_list import randomize

from keras_adjoint.models.policies import NAMES

L = keras.layers
LARGEST = 600  # elements of a tensor

# The shapes of inputs, channels last: of one to three spatial axes, with sizes that no stride divides.
SHAPES = [(13, 3), (9, 2), (9, 7, 3), (7, 5, 2), (5, 6, 4, 2)]
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
    inner = Drawing(drawing.draw, keras.Input(x.shape[1:]), drawing.data_format)
    for _ in range(2):
        inner.step({name: stage for name, stage in STAGES.items() if name != "nested"})
    drawing.steps.append(f"of {inner.steps}")
    return keras.Model(inner.input, inner.tensor)(x) if inner.tensor is not inner.input else None


def reshaped(x, drawing):
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
    "zero padding": ranked("ZeroPadding", 1, axes=(3, 4)),
    "cropping": ranked("Cropping", 1, axes=(3, 4), least=4),
    "upsampling": ranked("UpSampling", 2, axes=(3, 4)),
    "rescaling": single("Rescaling", 0.5, offset=0.25),
    "normalization": normalization,
    "scaled": operation(lambda x: 0.5 * x + 1.0),
    "sliced": operation(lambda x: x[:, 1:] if x.shape[1] > 1 else None),
    "flatten": single("Flatten", axes=(2, 3, 4)),
    "reshape": reshaped,
    "widened": widened,
    "permute": lambda x, drawing: L.Permute(tuple(range(len(x.shape) - 1, 0, -1)))(x),
    "spectral": lambda x, drawing: L.SpectralNormalization(L.Dense(3, activation=drawing.one_of(ACTIVATIONS)))(x),
    "distributed dense": lambda x, drawing: L.TimeDistributed(L.Dense(2))(x) if len(x.shape) > 2 else None,
}


class Drawing:
    """The tensor that an encoder has come to, and the stages before it."""

    def __init__(self, draw, given, data_format):
        self.draw, self.input, self.tensor, self.data_format = draw, given, given, data_format
        self.steps = []

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def axis(self, x):
        return 1 if self.data_format == "channels_first" and len(x.shape) > 2 else -1

    def sizes(self, x):
        return x.shape[2:] if self.axis(x) == 1 else x.shape[1:-1]

    def apply(self, layer, x):
        self.steps.append(f"{type(layer).__name__}({self.options(layer)})")
        return layer(x)

    def options(self, layer):
        names = ("strides", "padding", "keepdims", "activation", "max_value", "negative_slope")
        values = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        return ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in values.items())

    def step(self, stages):
        """One more stage, unless it does not take the tensor, or makes a large one of it."""
        name, before = self.one_of(stages), len(self.steps)
        self.steps.append(name)
        y = stages[name](self.tensor, self)
        if y is None or not 0 < math.prod(y.shape[1:]) <= LARGEST or len(y.shape) > 5:
            del self.steps[before:]
        else:
            self.steps.append(f"-> {tuple(y.shape[1:])}")
            self.tensor = y


class Encoder:
    """A random encoder, policies for its mirror, and words for both."""

    def __init__(self, model, policies, steps):
        self.model, self.policies, self.steps = model, policies, steps

    def __repr__(self):
        return "\n    ".join(["an encoder of", *self.steps, f"with policies {self.policies}"])


@st.composite
def encoders(draw, **policies):
    """An encoder of up to six stages with random weights, with given or random policies."""
    shape = draw(st.sampled_from(SHAPES))
    data_format = draw(st.sampled_from(DATA_FORMATS))
    if data_format == "channels_first":
        shape = (shape[-1], *shape[:-1])
    drawing = Drawing(draw, keras.Input(shape, name="x"), data_format)
    for _ in range(draw(st.integers(1, 6))):
        drawing.step(STAGES)
    if drawing.tensor is drawing.input:
        drawing.tensor = L.Conv1D(2, 2)(drawing.tensor) if len(shape) == 2 else L.Flatten()(drawing.tensor)
    model = keras.Model(drawing.input, drawing.tensor, name="encoder")
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer._layers == [] and layer.weights:
            randomize(layer)
            layer.set_weights([scaled(weight) for weight in layer.get_weights()])
    steps = [f"{shape} {data_format}", *drawing.steps]
    return Encoder(model, policies or draw(random_policies(model)), steps)


def scaled(weight):
    return weight / math.sqrt(math.prod(weight.shape[:-1])) if weight.ndim > 1 else weight


@st.composite
def random_policies(draw, model):
    """Some policies: a name, or a dictionary from names and classes of layers to names."""
    found = {}
    layers = [layer for layer in model.layers if not isinstance(layer, L.InputLayer)]
    for policy, names in NAMES.items():
        choices = st.sampled_from([*names, "tanh", "relu"] if policy == "activation" else names)
        kind = draw(st.sampled_from(["default", "default", "name", "by layer", "by class", "function"]))
        if kind == "name" or (kind == "function" and policy == "activation"):
            found[policy] = draw(choices)
        elif kind == "by layer" and layers:
            found[policy] = {draw(st.sampled_from(layers)).name: draw(choices), "default": draw(choices)}
        elif kind == "by class" and layers:
            found[policy] = {type(draw(st.sampled_from(layers))): draw(choices)}
        elif kind == "function":
            found[policy] = constantly(draw(choices))
    if draw(st.booleans()):
        found["output_activation"] = draw(st.sampled_from(["sigmoid", "softplus"]))
    return found


class constantly:
    """A policy that chooses the same for every layer."""

    def __init__(self, choice):
        self.choice = choice

    def __call__(self, layer):
        return self.choice

    def __repr__(self):
        return f"constantly({self.choice!r})"


def samples(model, count=2):
    shapes = [x.shape[1:] for x in tree.flatten(model.input)]
    generator = np.random.default_rng(3)
    found = [generator.normal(size=(count, *shape)).astype("float32") for shape in shapes]
    return found[0] if len(found) == 1 else found
