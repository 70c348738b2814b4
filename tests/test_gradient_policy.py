"""`activation="gradient"` and the other exact policies: the backward pass is the gradient, as autodiff has it."""

import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from autodiff import compiled, gradients, kernel_gradients
from encoders import EXACT, Cube, X, assert_close, chain, values
from helpers import compiled as quickly
from helpers import in_turn
from keras import ops
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint.ops.backend import current

L = keras.layers
ALL = {**EXACT, "gates": "recorded"}

# Those that Keras cannot call on symbolic tensors, and those whose output has another shape or that need arguments.
ONLY_IN_LAYERS = {"hard_silu", "mish", "sparsemax"}
ONLY_AS_OPERATIONS = {"glu", "threshold"}
NAMES = sorted({function.__name__ for function in keras.src.activations.ALL_OBJECTS} - {"linear"})
STEEP = {"exponential", "sparse_sigmoid", "sparsemax"}  # of large values infinite or constant
OPTIONS = {"threshold": (0.1, -0.2)}


def gradient(encoder, x=X):
    """Jᵀ of an encoder at `x`, applied to its code."""
    (found,) = gradients(lambda x: ops.sum(encoder(x, training=False) ** 2) / 2, [ops.convert_to_tensor(x)])
    return found


def assert_is_gradient(encoder, x=X, **policies):
    autoencoder = ka.autoencoder(encoder, **{**ALL, **policies})
    found = values(quickly(lambda x: autoencoder(x, training=False))(x))
    expected = gradient(encoder, x)
    assert np.any(expected)
    assert_close(found, expected)


def network(*stages, pool=None):
    """Convolutions, a normalisation and a pool with something between each two of them, and random weights."""
    x = y = keras.Input((13, 11, 3))
    pool = pool or L.MaxPooling2D(2, strides=1)
    linear = [L.Conv2D(4, 3, strides=2), L.BatchNormalization(), pool, L.Conv2D(6, 2)]
    for layer, stage in zip(linear, (*stages, *(lambda y: y for _ in linear)), strict=False):
        y = stage(layer(y))
    return random_weights(keras.Model(x, y, name="encoder"))


def random_weights(model, scale=1.0):
    for layer in model.layers:
        if layer.weights:
            randomize(layer)
            layer.set_weights([scale * weight for weight in layer.get_weights()])
    return model


def operation(name):
    if name in ONLY_IN_LAYERS:
        return lambda x: getattr(ops, name, keras.activations.tanh)(x)
    return lambda x: getattr(keras.activations, name)(x, *OPTIONS.get(name, ()))


@pytest.mark.parametrize("name", in_turn(NAMES))
def test_every_activation_of_keras(name):
    x = y = keras.Input((13, 11, 3))
    within = "relu" if name in ONLY_AS_OPERATIONS else name
    for layer in (L.Rescaling(0.5, offset=0.1), L.Conv2D(4, 3, strides=2, activation=within), L.BatchNormalization()):
        y = layer(y)
    y = L.Conv2D(4, 2)(L.Activation(within)(L.MaxPooling2D(2, strides=1)(y)))
    y = operation(name)(y)
    encoder = keras.Model(x, L.DepthwiseConv2D(2, activation=within)(y))
    assert_is_gradient(random_weights(encoder, 0.3 if name in STEEP else 1.0))


LAYERS = {
    "ReLU6": lambda: L.ReLU(6.0),
    "ReLU with all options": lambda: L.ReLU(max_value=0.7, negative_slope=0.3, threshold=0.1),
    "LeakyReLU": lambda: L.LeakyReLU(0.2),
    "ELU": lambda: L.ELU(0.7),
    "PReLU": lambda: L.PReLU("random_normal", shared_axes=[1, 2]),
    "Softmax": lambda: L.Softmax(),
    "Softmax along another axis": lambda: L.Softmax(axis=1),
    "Softmax along two axes": lambda: L.Softmax(axis=[1, 2]),
    "Activation with a function": lambda: L.Activation(
        lambda x: ops.sin(3 * x) + x * ops.mean(x, axis=-1, keepdims=True)
    ),
    "a layer declared to be one": lambda: Cube(),
}
OPERATIONS = {
    "gelu with its options": lambda x: ops.gelu(x, approximate=True),
    "leaky_relu with its options": lambda x: ops.leaky_relu(x, negative_slope=0.4),
    "softmax along another axis": lambda x: ops.softmax(x, axis=1),
    "relu with its options": lambda x: keras.activations.relu(x, negative_slope=0.2, max_value=0.5, threshold=0.1),
}


@pytest.mark.parametrize("name", in_turn(LAYERS))
def test_every_activation_layer(name):
    layer = LAYERS[name]()
    assert_is_gradient(network(layer, L.Activation("relu")), activation={"default": "gradient", Cube: "gradient"})


@pytest.mark.parametrize("name", in_turn(OPERATIONS))
def test_operations_with_options(name):
    assert_is_gradient(network(OPERATIONS[name], L.Activation("relu")))


def smooth_network():
    """A network whose gradient is made in every way: from outputs, from inputs, and from what is computed once more."""
    stages = (
        L.Activation("tanh"),
        L.PReLU("random_normal"),
        lambda y: ops.softplus(y),
        L.Conv2D(4, 1, activation="gelu"),
    )
    return network(*stages, pool=L.AveragePooling2D(2, strides=1))


def test_compiled_in_one_piece():
    stages = (
        L.Activation("tanh"),
        L.PReLU("random_normal"),
        L.Softmax(),
        L.Conv2D(4, 1, activation="gelu"),
        L.Conv2D(2, 3),
    )
    encoder = chain(L.Conv2D(4, 3), *stages)
    run = compiled(ka.autoencoder(encoder, **ALL))
    assert_close(values(run(ops.convert_to_tensor(X))), gradient(encoder))


def test_its_own_derivatives_are_those_of_the_gradient():
    """By the input and by the encoder's weights: what is recorded depends on both."""
    encoder = smooth_network()
    autoencoder = ka.autoencoder(encoder, **ALL)
    x = ops.convert_to_tensor(X)

    def found(x):
        return ops.sum(autoencoder(x, training=False) ** 2)

    def expected(x):
        return ops.sum(current().vjp(lambda x: encoder(x, training=False), x, encoder(x, training=False)) ** 2)

    assert_close(gradients(found, [x])[0], gradients(expected, [x])[0])
    variables = [encoder.get_layer(name).weights[0] for name in ("conv2d", "p_re_lu", "conv2d_2")]
    for ours, theirs in zip(*(kernel_gradients(lambda f=f: f(x), variables) for f in (found, expected)), strict=True):
        assert_close(ours, theirs)


@pytest.mark.any_backend
def test_files_keep_the_gradient_and_its_ties(tmp_path):
    encoder = smooth_network()
    ka.autoencoder(encoder, **ALL).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_close(values(loaded(X, training=False)), gradient(encoder))
    for name in ("conv2d_2", "p_re_lu"):
        for layer in (loaded.get_layer(name), encoder.get_layer(name)):
            layer.set_weights([2 * weight for weight in layer.get_weights()])
    assert_close(values(loaded(X, training=False)), gradient(encoder))


def test_copied_weights_and_quantised_or_adapted_kernels_are_recorded_as_the_encoder_has_them():
    encoder = smooth_network()
    assert_close(values(ka.autoencoder(encoder, tied=False, **ALL)(X, training=False)), gradient(encoder))
    x = keras.Input((5,))
    dense = L.Dense(4, activation="gelu")
    encoder = random_weights(keras.Model(x, L.Dense(3)(dense(x))))
    autoencoder, given = ka.autoencoder(encoder, **ALL), X[:, 0, :5, 0]
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones((2, 4)))
    assert_close(values(autoencoder(given)), gradient(encoder, given))


def test_nested_models_and_unknown_sizes():
    x = keras.Input((None, None, 3))
    inner = keras.Sequential([keras.Input((None, None, 4)), L.ReLU(6.0), L.Conv2D(5, 2, activation="silu")])
    encoder = random_weights(keras.Model(x, L.Conv2D(3, 2, strides=2)(inner(L.Conv2D(4, 3, name="first")(x)))))
    assert_is_gradient(encoder)
    assert_is_gradient(encoder, X[:, 2:, 1:])


def test_integers_are_recorded_as_numbers():
    x = keras.Input((4,), dtype="int32")
    encoder = random_weights(keras.Model(x, L.Dense(3, activation="softsign")(L.Activation("relu6")(x))))
    given = np.array([[1, -2, 7, 3]], "int32")
    in_floats = keras.Model(y := keras.Input((4,)), encoder.layers[2](encoder.layers[1](y)))
    assert_close(values(ka.autoencoder(encoder, **ALL)(given)), gradient(in_floats, given.astype("float32")))


@pytest.mark.parametrize(
    "size",
    [pytest.param(97, marks=pytest.mark.only_on("torch")), pytest.param(225, marks=pytest.mark.exhaustive)],
)
def test_pretrained_mobilenet(size):
    """MobileNetV2 with the weights of ImageNet, ReLU6 and all, on a photograph."""
    guide = runpy.run_path(str(Path(__file__).parents[1] / "guides" / "pretrained_networks.py"))
    model = guide["mobilenet"](size)
    if model is None:
        pytest.skip("needs the packages of requirements/pretrained.txt")
    assert_is_gradient(model, guide["as_imagenet"](guide["photograph"]("chelsea", size)[None]))


def test_a_mask_is_a_part_of_the_activation():
    given = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    given[:, 3:] = 0
    x = keras.Input((5, 4))
    y = L.Softmax(axis=-2)(L.Dense(5)(x), mask=ops.any(x != 0, axis=-1, keepdims=True))
    assert_is_gradient(random_weights(keras.Model(x, L.Dense(3)(y))), given)


# --- where the policies are defined


def test_what_mirror_cannot_record_is_refused():
    for layer in (L.Conv2D(4, 1, activation="gelu"), L.ReLU()):
        with pytest.raises(ValueError, match='To undo an activation by "gradient".*Use `keras_adjoint.autoencoder`'):
            ka.mirror(network(layer), activation="gradient")


RECTIFIERS = {
    "relu": lambda: L.Activation("relu"),
    "relu6": lambda: L.Conv2D(4, 1, activation="relu6"),
    "ReLU": lambda: L.ReLU(),
    "ReLU with a maximum": lambda: L.ReLU(max_value=0.7),
    "ReLU with a threshold": lambda: L.ReLU(threshold=0.3),
    "an operation": lambda: ops.relu,
    "an operation with a maximum": lambda: lambda x: keras.activations.relu(x, max_value=0.7),
    "the operation's function in a layer": lambda: L.Conv2D(4, 1, activation=ops.relu),
}
OTHERS = {
    "LeakyReLU": lambda: L.LeakyReLU(),
    "ReLU with a slope": lambda: L.ReLU(negative_slope=0.1),
    "gelu": lambda: L.Conv2D(4, 1, activation="gelu"),
    "softmax": lambda: L.Softmax(),
    "sigmoid": lambda: L.Activation("sigmoid"),
    "an operation": lambda: ops.silu,
    "an operation with a slope": lambda: lambda x: keras.activations.relu(x, negative_slope=0.1),
}


@pytest.mark.parametrize("name", in_turn(RECTIFIERS))
def test_rectifiers_are_guided_and_made_a_deconvnet_of(name):
    """Guided is the gradient of what is positive, a deconvnet what is positive (Springenberg et al. 2015, figure 1)."""
    rectifier, last = RECTIFIERS[name](), L.Conv2D(5, 3)
    x = keras.Input((13, 11, 4))
    encoder = random_weights(keras.Model(x, last(rectifier(x))))
    given = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 13, 11, 4)).astype("float32"))
    y = ops.relu(ka.adjoint(last)(encoder(given)))
    (guided,) = gradients(lambda x: ops.sum(rectifier(x) * y), [given])
    assert_close(values(ka.autoencoder(encoder, **{**ALL, "activation": "guided"})(given)), guided)
    if not isinstance(rectifier, L.Conv2D):
        assert_close(values(ka.autoencoder(encoder, **{**ALL, "activation": "deconvnet"})(given)), values(y))


@pytest.mark.parametrize("policy", ["guided", "deconvnet"])
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.any_backend
def test_others_are_refused_with_hints_that_work(make, policy):
    encoder = network(make(), L.Activation("relu"))
    with pytest.raises(
        ka.NoRuleError, match=f'At `encoder/.*"{policy}" is defined for rectifiers.*Received: source='
    ) as error:
        ka.autoencoder(encoder, **{**ALL, "activation": policy})
    (hint,) = re.findall(r"activation=(\{.*?\})", str(error.value))
    for choice in (eval(hint), "gradient"):
        ka.autoencoder(encoder, **{**ALL, "activation": choice})
