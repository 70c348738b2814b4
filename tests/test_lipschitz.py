"""Layers with a Lipschitz constant: never exceeded, in training, after loading, at every size."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.operators.activations import CONSTANTS, constant_of


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


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
    with pytest.raises(ka.NoRuleError):
        ka.Lipschitz(layers.MaxPooling1D(2))(np.ones((1, 4, 2), "float32"))
