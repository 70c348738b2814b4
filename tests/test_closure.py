"""What mirrors consist of can be mirrored, copied, saved, untied and transposed again, whatever the policies chose."""

import keras
import numpy as np
import pytest
from encoders import values
from helpers import RARELY_JAX, in_turn
from keras import tree
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint.models.policy_names import NAMES

L = keras.layers
GUIDED = ("activation", "guided")

# Stock layers read nothing recorded, and no policy is about what "guided" puts in place, which is not linear.
NOT_STOCK = {("activation", "gradient"), ("norm", "adjoint"), ("pooling", "switches"), ("gates", "gradient")}
RECORDED = {*NOT_STOCK, GUIDED, ("gates", "recorded")}


def encoder():
    x = keras.Input((9, 8, 3))
    y = L.Rescaling(0.5, offset=0.1)(x)
    y = L.MaxPooling2D(2)(L.BatchNormalization()(L.Conv2D(3, 3, activation="relu")(y)))
    y = L.ReLU()(L.LayerNormalization()(L.Conv2D(3, 2)(y)))
    y = L.Multiply()([y, L.Dense(3, activation="sigmoid")(y)])
    y = L.GlobalMaxPooling2D()(L.Dropout(0.2)(y))
    return random_weights(keras.Model(x, L.Dense(3)(y), name="encoder"))


def random_weights(model):
    for layer in model.layers:
        if layer.weights:
            randomize(layer)
    return model


def outputs(model, x):
    return [values(y) for y in tree.flatten(model(x, training=False))]


def assert_same(model, other, x):
    for found, expected in zip(outputs(other, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * (np.abs(expected).max() or 1.0))


def assert_lives(model, tmp_path, *, stock=True):
    """A clone, a file and a copy in stock layers compute the same."""
    x = np.random.default_rng(1).normal(size=(2, *model.inputs[0].shape[1:])).astype("float32")
    assert any(np.any(y) for y in outputs(model, x))
    assert_same(model, ka.clone_tied(model), x)
    model.save(tmp_path / "m.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "m.keras"), x)
    if stock:
        assert_same(model, ka.untie(model), x)
    else:
        with pytest.raises(ka.NoRuleError, match="cannot be converted into stock layers"):
            ka.untie(model)


def combined(left_out):
    """Policies that together have every choice but those left out; `make test-exhaustive` also has each choice alone."""
    rows = {policy: [each for each in choices if (policy, each) not in left_out] for policy, choices in NAMES.items()}
    rows[
        "gates"
    ].reverse()  # by "gradient" there is an activation other than rectifiers, which "deconvnet" does not take
    together = [
        {policy: choices[number % len(choices)] for policy, choices in rows.items()}
        for number in range(max(map(len, rows.values())))
    ]
    alone = [{policy: choice} for policy, choices in rows.items() for choice in choices]
    return [
        *(pytest.param(policies, id=f"together {number}") for number, policies in enumerate(together)),
        *(pytest.param(policies, id="-".join(*policies.items()), marks=pytest.mark.exhaustive) for policies in alone),
    ]


@pytest.mark.any_backend
@pytest.mark.parametrize("policy, choice", sorted(RECORDED))
def test_a_mirror_has_nothing_recorded(policy, choice):
    with pytest.raises(ValueError, match="Use `keras_adjoint.autoencoder`"):
        ka.mirror(encoder(), **{policy: choice})


@pytest.mark.any_backend
@pytest.mark.parametrize("policies", combined(RECORDED))
def test_the_mirror_of_a_mirror(policies, tmp_path):
    source = encoder()
    twice = ka.mirror(ka.mirror(source, **policies), **policies)
    assert twice.input_shape == source.input_shape and twice.output_shape == source.output_shape
    kernel = source.get_layer("conv2d").kernel
    assert any(weight is kernel for weight in twice.weights)
    assert_lives(twice, tmp_path)


@pytest.mark.any_backend
@pytest.mark.parametrize("policies", combined({GUIDED}))
def test_the_autoencoder_of_an_autoencoder(policies, tmp_path):
    source = encoder()
    once = ka.autoencoder(source, **policies)
    assert once.output_shape == source.input_shape
    assert_lives(ka.autoencoder(once, **policies), tmp_path, stock=NOT_STOCK.isdisjoint(policies.items()))


@pytest.mark.any_backend
def test_what_is_guided_has_no_autoencoder():
    """It has a rectifier and a recorded diagonal at once."""
    policies = dict([GUIDED])
    once = ka.autoencoder(encoder(), **policies)
    with pytest.raises(ka.NoRuleError, match="sets negative cotangents to zero"):
        ka.autoencoder(once, **policies)


LINEAR = {"activation": "linear", "norm": "skip", "pooling": "spread", "bias": "none"}


def matrix(model):
    shape = model.input_shape[1:]
    eye = np.eye(int(np.prod(shape)), dtype="float32").reshape(-1, *shape)
    zero = np.zeros((1, *shape), "float32")
    (columns,), (constant,) = outputs(model, eye), outputs(model, zero)
    return (columns - constant).reshape(len(eye), -1).T


@pytest.mark.parametrize(
    "policies",
    in_turn(
        [
            {},
            {"norm": "inverse"},
            {"norm": "scale"},
            {"pooling": "average"},
            {"bias": "own"},
            {"bias": "subtract"},
            {"preprocessing": "adjoint"},
            {"preprocessing": "skip"},
        ],
        backends=lambda policies: RARELY_JAX,
    ),
    ids=str,
)
def test_the_adjoint_of_a_mirror_that_is_linear(policies):
    mirror = ka.mirror(encoder(), **{**LINEAR, **policies})
    there = matrix(mirror)
    for adjoint in (ka.adjoint(mirror), ka.adjoint(mirror, tied=False)):
        np.testing.assert_allclose(matrix(adjoint), there.T, rtol=0, atol=1e-5 * np.abs(there).max())
        again = ka.adjoint(adjoint)
        np.testing.assert_allclose(matrix(again), there, rtol=0, atol=1e-5 * np.abs(there).max())


def test_the_adjoint_of_gradients_is_the_derivative():
    """What goes back through a recorded activation, norm or product is linear there, and J is the adjoint of Jᵀ.

    By all policies of the gradient it depends on what was recorded, too.
    """
    x = y = keras.Input((4,))
    for layer in (L.Dense(5, activation="log_softmax"), L.LayerNormalization(), L.PReLU(), L.Dense(3)):
        y = layer(y)
    source = random_weights(keras.Model(x, L.Multiply()([y, L.Dense(3, activation="gelu")(x)])))
    exact = {"activation": "gradient", "norm": "adjoint", "gates": "gradient", "bias": "none"}
    once = ka.autoencoder(source, **exact)
    at = np.random.default_rng(0).normal(size=(1, 4)).astype("float32")
    as_recorded = {"default": "linear", L.Dense: "gradient", L.PReLU: "gradient"}
    twice = ka.autoencoder(once, **{**exact, "activation": as_recorded})
    code = keras.Model(source.input, source.output)
    jacobian = np.stack([values(along(code, at, direction)) for direction in np.eye(4, dtype="float32")], axis=-1)
    inner = [values(part) for part in tree.flatten(once(at))][0]
    # J Jᵀ J applied from the left to what the inner autoencoder gives, and what it gives is Jᵀ times the code.
    expected = jacobian[0].T @ (jacobian[0] @ inner[0])
    np.testing.assert_allclose(values(twice(at))[0], expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    jacobian = np.stack([values(along(once, at, direction)) for direction in np.eye(4, dtype="float32")], axis=-1)
    found, expected = values(ka.autoencoder(once, **exact)(at))[0], jacobian[0].T @ inner[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())


def along(model, at, direction, step=1e-2):
    """The derivative of a model along a direction, by central differences."""
    return (model(at + step * direction) - model(at - step * direction)) / (2 * step)
