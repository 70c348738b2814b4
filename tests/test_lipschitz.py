"""Layers with a Lipschitz constant: never exceeded, in training, after loading, at every size."""

import time

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.operators.activations import CONSTANTS, constant_of


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


def network():
    """A small network of layers with a constant, and these layers with their sizes."""
    limited = {
        ka.Lipschitz(layers.Conv2D(4, 3, strides=2, padding="same", activation="gelu"), 0.9): (6, 6, 2),
        ka.Lipschitz(layers.SeparableConv2D(5, 3, activation="elu")): (3, 3, 4),
        ka.Lipschitz(layers.Dense(6, activation="tanh"), 1.5): (5,),
        ka.Lipschitz(layers.Dense(1), 0.5): (6,),
    }
    first, second, *rest = limited
    model = keras.Sequential([keras.Input((6, 6, 2)), first, second, layers.Flatten(), *rest])
    return model, limited


def excess(limited):
    """The largest singular value, of the layers of a network, over what their constants allow."""
    found = []
    for layer, shape in limited.items():
        matrix = ka.operator(layer, size=shape, linear_part=True).to_matrix().astype("float64")
        found.append(np.linalg.norm(matrix, 2) * layer.activation_constant / layer.constant)
    return max(found)


def train(model, limited, steps, *, seconds=float("inf")):
    """Train on targets far out of reach, by several optimizers in turn, and look after every step at `excess`."""
    generator, started, seen = np.random.default_rng(0), time.monotonic(), []
    while len(seen) < steps and time.monotonic() < started + seconds:
        optimizer = (keras.optimizers.SGD(0.3, momentum=0.9), keras.optimizers.Adam(0.05))[len(seen) // 50 % 2]
        model.compile(optimizer, "mse")
        for _ in range(min(50, steps - len(seen))):
            x, y = generator.standard_normal((8, 6, 6, 2)), 30 * generator.standard_normal((8, 1))
            model.train_on_batch(x, y)
            seen.append(excess(limited))
    return seen


def norm_at(wrapped, shape):
    """The largest singular value of what a wrapped layer does, before its activation."""
    wrapped(ops.zeros((1, *shape)))
    return number(wrapped.factor((None, *shape))) * np.linalg.norm(wrapped.operator_at((None, *shape)).to_matrix(), 2)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", CONSTANTS)
def test_the_constant_of_an_activation_is_its_steepest_slope(name):
    if not hasattr(keras.activations, name):
        pytest.skip("this Keras does not have it")
    activation = getattr(keras.activations, name)
    x = np.linspace(-6, 6, 12001)
    if name == "softmax":
        pairs = np.random.default_rng(0).standard_normal((2, 1000, 3))
        y = [ops.convert_to_numpy(activation(ops.convert_to_tensor(pair, "float32"))) for pair in pairs]
        slopes = np.linalg.norm(y[1] - y[0], axis=1) / np.linalg.norm(pairs[1] - pairs[0], axis=1)
        assert slopes.max() <= constant_of(activation)
        return
    y = ops.convert_to_numpy(activation(ops.convert_to_tensor(x[None], "float64")))[0]
    steepest = np.abs(np.diff(y) / np.diff(x)).max()
    assert 0.98 * constant_of(activation) <= steepest * (1 + 1e-2) and steepest <= constant_of(activation) * (1 + 1e-6)


@pytest.mark.parametrize(
    *(
        "make, shape",
        in_turn(
            [
                (lambda: layers.Conv2D(6, 3, strides=2, padding="same", activation="gelu"), (9, 8, 3)),
                (lambda: layers.Dense(4, activation="relu"), (7,)),
                (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (9, 2)),
            ],
            name=lambda case: "",
        ),
    )
)
def test_a_trained_layer_keeps_its_constant(make, shape, tmp_path):
    model = keras.Sequential(
        [keras.Input(shape), ka.Lipschitz(make(), constant=0.7), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((8, *shape)), 100 * generator.standard_normal((8, 1))
    wrapped = model.layers[0]
    for _ in range(3):
        model.fit(x, y, verbose=0)
        wrapped.layer.trainable_weights[0].assign(wrapped.layer.trainable_weights[0] * 3)
        assert 0.5 <= norm_at(wrapped, shape) * wrapped.activation_constant <= 0.7 * (1 + 1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("steps", [10, pytest.param(5000, marks=pytest.mark.exhaustive)])
@pytest.mark.any_backend
def test_no_step_of_a_training_exceeds_the_constants(steps):
    model, limited = network()
    seen = train(model, limited, steps)
    assert len(seen) == steps
    assert 0.9 <= max(seen) <= 1 + 1e-6
    assert all(number(layer.factor((None, *shape))) < 1 for layer, shape in limited.items())


@pytest.mark.any_backend
def test_what_computes_something_else_in_training_or_between_its_layers_is_refused():
    for layer in (layers.BatchNormalization(), layers.Dropout(0.5), layers.SpectralNormalization(layers.Dense(2))):
        with pytest.raises(ka.NoRuleError, match="computes something else in training"):
            ka.Lipschitz(layer)
    with pytest.raises(ka.NoRuleError, match="single layer"):
        ka.Lipschitz(keras.Sequential([layers.Dense(2, activation="relu"), layers.Dense(2)]))
    ka.Lipschitz(layers.Lambda(lambda x: 2 * x))


NOT_LINEAR = {
    "an activation": (lambda: layers.Activation("relu"), "Leave it unwrapped"),
    "an activation with weights": (layers.PReLU, "Leave it unwrapped"),
    "an activation at every step": (lambda: layers.TimeDistributed(layers.ReLU()), "Leave it unwrapped"),
    "max pooling": (lambda: layers.MaxPooling1D(2), "Leave it unwrapped"),
    "a normalisation": (layers.LayerNormalization, "statistic"),
    "a recurrent layer": (lambda: layers.LSTM(2), "a recurrent layer"),
    "attention": (lambda: layers.MultiHeadAttention(1, 2), "attention"),
    "a lookup": (lambda: layers.Embedding(3, 2), "one-hot"),
}


@pytest.mark.parametrize("wrap", [ka.Lipschitz, ka.Regularized], ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("name", NOT_LINEAR)
@pytest.mark.any_backend
def test_what_is_not_linear_is_refused_at_once_with_what_it_is(wrap, name):
    make, what = NOT_LINEAR[name]
    with pytest.raises(ka.NoRuleError, match=f"`{wrap.__name__}` takes a layer that is linear.*{what}"):
        wrap(make())


@pytest.mark.in_turn("tensorflow", "torch")
def test_a_model_of_unknown_size_computes_the_same_at_every_size_and_however_it_is_called():
    x = keras.Input((None, 3))
    wrapped = ka.Lipschitz(layers.Conv1D(4, 3, strides=2, padding="same"), constant=0.2)
    model = keras.Model(x, wrapped(x))
    given = np.random.default_rng(0).standard_normal((2, 7, 3)).astype("float32")
    expected = ops.convert_to_numpy(model(given))
    np.testing.assert_allclose(model.predict(given, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert number(wrapped.factor((None, 7, 3))) == number(wrapped.factor((None, None, 3)))
    backward = ka.Lipschitz(ka.adjoint(wrapped.layer), constant=0.2)
    backward(wrapped.layer(x))
    assert number(backward.factor((None, None, 4))) == pytest.approx(number(wrapped.factor((None, None, 3))), rel=1e-6)
    for layer in (layers.AveragePooling1D(2), layers.GlobalAveragePooling1D()):  # smaller tensors have larger norms
        wrapped = ka.Lipschitz(layer)
        wrapped(x)
        with pytest.raises(ka.SizeError, match="at every size is not known"):
            wrapped.factor((None, 8, 3))


def test_a_small_kernel_stays_as_it_is_and_an_adjoint_stays_tied():
    conv = layers.Conv1D(3, 3, padding="same", use_bias=False)
    conv.build((None, 12, 2))
    conv.kernel.assign(conv.kernel * 0.01)
    x = np.random.default_rng(0).standard_normal((2, 12, 2)).astype("float32")
    wrapped, backward = ka.Lipschitz(conv), ka.Lipschitz(ka.adjoint(conv))
    y = conv(x)
    np.testing.assert_allclose(ops.convert_to_numpy(wrapped(x)), ops.convert_to_numpy(y), rtol=1e-6)
    conv.kernel.assign(conv.kernel * 1000)
    assert norm_at(backward, (12, 3)) <= 1 + 1e-5 and ka.is_tied(backward.layer, conv)


@pytest.mark.any_backend
def test_at_an_unknown_size_the_constant_holds_at_every_size():
    wrapped = ka.Lipschitz(layers.Conv1D(3, 5, padding="same"))
    wrapped(keras.Input((None, 2)))
    factor = number(wrapped.factor((None, None, 2)))
    for size in (4, 9, 40):
        operator = ka.operator(wrapped.layer, size=size)
        assert factor * np.linalg.norm(operator.to_matrix(), 2) <= 1


@pytest.mark.any_backend
def test_what_has_no_constant_is_refused():
    with pytest.raises(ka.NoRuleError, match="activation='exponential'"):
        ka.Lipschitz(layers.Dense(2, activation="exponential"))
    for constant in (0, -1, True, "1", float("inf"), float("nan")):
        with pytest.raises(ValueError, match="positive number"):
            ka.Lipschitz(layers.Dense(2), constant=constant)


@pytest.mark.parametrize(
    "layer", in_turn([layers.AveragePooling1D(2), layers.UpSampling1D(2)], name=lambda one: one.name)
)
def test_around_pools_and_upsampling_it_is_compiled(layer):
    x = keras.Input((6, 2))
    model = keras.Model(x, ka.Lipschitz(layer, constant=0.5)(x))
    ones = np.ones((1, 6, 2), "float32")
    assert np.linalg.norm(model.predict(ones, verbose=0)) == pytest.approx(0.5 * np.linalg.norm(ones), rel=1e-5)


class Product(layers.Layer):
    """A linear layer that says nothing of shapes."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)


@pytest.mark.any_backend
@pytest.mark.parametrize("wrapper", [ka.Lipschitz, lambda layer: ka.Regularized(layer, spectral=0.1)])
def test_around_a_layer_without_a_method_for_shapes(wrapper):
    assert wrapper(Product()).compute_output_shape((None, 5)) == (None, 3)
    layer = wrapper(Product())
    x = keras.Input((5,))
    y = layer(x)
    model = keras.Model(x, ka.adjoint(layer)(y))
    assert y.shape == (None, 3) and model.output.shape == (None, 5)
    assert ka.check_adjoint(layer)
    assert layers.TimeDistributed(wrapper(Product()))(keras.Input((4, 5))).shape == (None, 4, 3)
