"""Encoders that Hypothesis puts together from the stages in `random_stages`, and random policies for their mirrors."""

import math

import keras
import numpy as np
from helpers import DATA_FORMATS
from hypothesis import assume
from hypothesis import strategies as st
from keras import tree
from layer_list import randomize
from operators_of_models import runs
from random_stages import OF_ANY_SIZE, STAGES

import keras_adjoint as ka
from keras_adjoint.models.policy_names import NAMES

L = keras.layers
LARGEST = 600  # elements of a tensor

# The shapes of inputs, channels last: of one to three spatial axes, with sizes that no stride divides.
SHAPES = [(13, 3), (9, 2), (9, 7, 3), (7, 5, 2), (5, 6, 4, 2)]
UNKNOWN = 9  # what an unknown size is
SAMPLES = 2


class Drawing:
    """The tensors of an encoder that is being drawn: what it has come to, and what came before."""

    def __init__(self, draw, inputs, data_format, steps_kept=None):
        self.draw, self.inputs, self.data_format, self.steps_kept = draw, inputs, data_format, steps_kept
        self.tensors = [*inputs]
        self.steps = []

    @property
    def tensor(self):
        return self.tensors[-1]

    def of_a_part(self, x):
        """For a nested model."""
        return Drawing(self.draw, [x], self.data_format)

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def axis(self, x):
        return 1 if self.data_format == "channels_first" and len(x.shape) > 2 else -1

    def sizes(self, x):
        return known(x.shape[2:] if self.axis(x) == 1 else x.shape[1:-1])

    def apply(self, layer, x):
        self.steps.append(f"{type(layer).__name__}({self.options(layer)})")
        return layer(x)

    def options(self, layer):
        names = ("strides", "padding", "keepdims", "activation", "max_value", "negative_slope")
        values = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        return ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in values.items())

    def step(self, stages):
        """One more stage, unless it does not take the tensor, or makes a large one of it, or nothing is known of channels."""
        if self.tensor.shape[-1] is None:
            return
        name, before = self.one_of(stages), len(self.steps)
        self.steps.append(name)
        y = stages[name](self.tensor, self)
        if y is None or not 0 < math.prod(known(y.shape[1:])) <= LARGEST or len(y.shape) > 5:
            del self.steps[before:]
        else:
            self.steps.append(f"-> {tuple(y.shape[1:])}")
            self.tensors.append(y)


def known(shape):
    return tuple(UNKNOWN if size is None else size for size in shape)


class Encoder:
    """A random encoder, policies for its mirror, and words for both."""

    def __init__(self, model, policies, steps):
        self.model, self.policies, self.steps = model, policies, steps

    def __repr__(self):
        return "\n    ".join(["an encoder of", *self.steps, f"with policies {self.policies}"])


@st.composite
def encoders(draw, **policies):
    """An encoder of up to seven stages with random weights, with given or random policies."""
    drawing = begun(draw)
    is_known = None not in drawing.tensor.shape[1:]
    stages = STAGES if is_known else {name: STAGES[name] for name in OF_ANY_SIZE}
    for _ in range(draw(st.integers(1, 7))):
        drawing.step(stages)
    if any(drawing.tensor is x for x in drawing.inputs):
        drawing.tensors.append(L.Dense(2)(drawing.tensor))
    made = drawing.tensors[len(drawing.inputs) :]
    outputs = [made[-1], *draw(st.lists(st.sampled_from(made), max_size=1))]
    returned = draw(st.sampled_from(["one or a list", "one or a list", "dictionary"]))
    inputs = [x for x in [*drawing.inputs, drawing.steps_kept] if x is not None]
    model = keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        {f"{9 - number}": y for number, y in enumerate(outputs)}
        if returned == "dictionary"
        else outputs
        if len(outputs) > 1
        else outputs[0],
        name="encoder",
    )
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer._layers == [] and layer.weights:
            randomize(layer)
            layer.set_weights([scaled(weight) for weight in layer.get_weights()])
    assume(runs(model, tree.flatten(samples(model))))  # Keras refuses the masks of some layers only when it runs them
    given = ", ".join(f"{x.name}{tuple(x.shape[1:])}" for x in inputs)
    steps = [
        f"{given} {drawing.data_format}",
        *drawing.steps,
        f"return {[tuple(y.shape[1:]) for y in outputs]} as {returned}",
    ]
    return Encoder(model, policies or draw(random_policies(model)), steps)


@st.composite
def around_autoencoders(draw, depth=2, **policies):
    """An encoder around the autoencoder, by the same policies, of a random one, so many deep."""
    inner = draw(encoders(**policies))
    assume(None not in [x.shape[-1] for x in inner.model.inputs])
    model, steps = inner.model, inner.steps
    for level in range(1, depth):
        try:
            autoencoder = ka.autoencoder(model, **policies)
        except (ka.KerasAdjointError, ValueError):
            assume(False)
        assume(any("float" in x.dtype for x in model.inputs))
        inputs = tree.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name), model.input)
        pairs = zip(tree.flatten(autoencoder(inputs)), tree.flatten(inputs), strict=True)
        y, x = next((y, x) for y, x in pairs if "float" in x.dtype)
        last = L.Dense(2, activation=draw(st.sampled_from([None, "tanh"])), name=f"around_{level}")
        # Beside x, as what an autoencoder gives may be zero but for rounding, of a unit normalization for instance.
        model = keras.Model(inputs, last(L.Add(name=f"beside_{level}")([y, x])), name="encoder")
        randomize(last)
        last.set_weights([scaled(weight) for weight in last.get_weights()])
        steps = [*steps, f"its autoencoder, beside its input, and {last.activation.__name__}"]
    return Encoder(model, policies, steps)


def begun(draw):
    """A drawing with its inputs: one or two tensors, of a fixed batch or of unknown sizes, or words, or a mask of steps."""
    shape = draw(st.sampled_from(SHAPES))
    data_format = draw(st.sampled_from(DATA_FORMATS))
    kind = draw(st.sampled_from(["one", "one", "two", "batch", "unknown", "words", "steps"]))
    if kind in ("words", "steps"):
        steps = keras.Input((9,), dtype="int32", name="steps")
        if kind == "steps":
            return Drawing(draw, [keras.Input((9, 3), name="x")], "channels_last", steps)
        drawing = Drawing(draw, [steps], "channels_last")
        embedding = L.Embedding(5, 3, mask_zero=draw(st.booleans()))
        drawing.tensors.append(embedding(steps))
        drawing.steps.append(f"Embedding(mask_zero={embedding.mask_zero})")
        return drawing
    if kind == "unknown":
        data_format, shape = "channels_last", (*(None for _ in shape[:-1]), shape[-1])
    if data_format == "channels_first":
        shape = (shape[-1], *shape[:-1])
    names = ("x", "a")[: 1 + (kind == "two")]
    batch = SAMPLES if kind == "batch" else None
    return Drawing(draw, [keras.Input(batch_shape=(batch, *shape), name=name) for name in names], data_format)


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


def samples(model, count=SAMPLES):
    """Arrays for the inputs of a model, in the structure that it takes: numbers, or words."""
    generator = np.random.default_rng(3)

    def sample(x):
        shape = (count, *known(x.shape[1:]))
        if "int" in x.dtype:
            return generator.integers(0, 5, size=shape).astype(x.dtype)
        return generator.normal(size=shape).astype(x.dtype)

    return tree.map_structure(sample, model.input)
