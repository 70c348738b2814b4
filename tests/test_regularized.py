"""`Regularized`: what it adds to the loss, against the matrix; in training, files, clones and mirrors."""

import keras
import numpy as np
import pytest
from helpers import HALF_PRECISION_POLICIES, in_turn
from keras import layers, ops
from untied import assert_same, assert_stock, classes, random_input, randomized

import keras_adjoint as ka
from keras_adjoint.operators import regularized

WEIGHTS = {"spectral": 0.3, "orthogonality": 0.2}

# (what makes a layer, the shape that it takes)
CASES = {
    "conv": (lambda: layers.Conv2D(4, 3, strides=2, padding="same", activation="gelu"), (7, 6, 3)),
    "tall": (lambda: layers.Dense(9, activation="relu"), (4,)),
    "wide": (lambda: layers.Dense(4), (9,)),
    "separable": (lambda: layers.SeparableConv1D(4, 3), (9, 3)),
    "at every step": (lambda: layers.TimeDistributed(layers.Dense(3, activation="tanh")), (3, 5)),
    "without a rule": (lambda: layers.Lambda(lambda x: x[:, 1:] - x[:, :-1]), (5, 2)),
}


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


def case_named(name, **options):
    make, shape = CASES[name]
    layer = ka.Regularized(make(), **{**WEIGHTS, **options})
    layer(keras.Input(shape))
    return randomized(layer), shape


def expected(layer, shape):
    """(‖A‖, the distance from orthonormal rows or columns) of the matrix of a layer."""
    matrix = ka.operator(layer, size=shape, linear_part=True).to_matrix().astype("float64")
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return np.linalg.norm(matrix, 2), np.sum((gram - np.eye(len(gram))) ** 2) / len(gram)


def loss_of(layer, shape):
    layer(random_input(shape))
    (found,) = layer.losses
    return number(found)


@pytest.mark.parametrize(*("name", in_turn(list(CASES))))
def test_a_small_layer_is_penalised_by_its_matrix(name):
    layer, shape = case_named(name)
    norm, distance = expected(layer, shape)
    assert loss_of(layer, shape) == pytest.approx(0.3 * norm + 0.2 * distance, rel=1e-5)
    assert layer.how == {"spectral": "exact", "orthogonality": "exact"}
    assert "spectral=0.3 (exact), orthogonality=0.2 (exact)" in repr(layer)
    np.testing.assert_allclose(*(ops.convert_to_numpy(f(random_input(shape))) for f in (layer, layer.layer)), rtol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["conv", "tall", "wide"])
def test_probes_have_the_expectation_of_the_whole_and_its_derivative(name, monkeypatch):
    monkeypatch.setattr(regularized, "EXACT_SIDE", 0)
    layer, shape = case_named(name, spectral=0.0, orthogonality=1.0, probes=64, seed=1)
    assert layer.how == {"orthogonality": "probes"} and "(probes)" in repr(layer)
    _, distance = expected(layer, shape)
    found = np.array([loss_of(layer, shape) for _ in range(60)])
    assert len(set(found)) > 50  # new ones in every call
    assert abs(found.mean() - distance) <= 4 * found.std() / np.sqrt(len(found)) <= 0.1 * distance
    assert found.std() > 0

    kernel = layer.layer.kernel
    by_probes = np.mean([gradient(layer, shape, kernel) for _ in range(60)], axis=0)
    monkeypatch.setattr(regularized, "EXACT_SIDE", 1000)
    exact = gradient(layer, shape, kernel)
    assert np.linalg.norm(by_probes - exact) <= 0.1 * np.linalg.norm(exact)


def gradient(layer, shape, kernel):
    """The derivative of the loss by the kernel, on PyTorch."""
    kernel.value.grad = None
    layer.penalty((None, *shape)).backward()
    return kernel.value.grad.numpy().copy()


@pytest.mark.any_backend
def test_a_large_layer_is_penalised_by_its_bound():
    layer = ka.Regularized(layers.Conv2D(8, 3, padding="same"), spectral=2.0, orthogonality=0.1)
    layer(keras.Input((12, 12, 4)))
    assert layer.how == {"spectral": "bound", "orthogonality": "probes"}
    norm, distance = expected(layer, (12, 12, 4))
    layer.orthogonality = 0.0
    assert 2 * norm <= loss_of(layer, (12, 12, 4)) <= 2.1 * norm


@pytest.mark.parametrize(
    *("side", in_turn([1000, 0], name=lambda side: "probes" if side == 0 else "exact", always=["jax"]))
)
def test_training_makes_the_rows_orthonormal_and_the_norm_small(side, tmp_path, monkeypatch):
    monkeypatch.setattr(regularized, "EXACT_SIDE", side)
    shape = (6, 2)
    shared = ka.Regularized(layers.Conv1D(4, 2, strides=2, use_bias=False), orthogonality=1.0, seed=0)
    x = keras.Input(shape)
    model = keras.Model(x, layers.Dense(1)(layers.Flatten()(shared(x) + shared(-x))))
    _, before = expected(shared, shape)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(np.zeros((8, *shape)), np.zeros((8, 1)), epochs=40, batch_size=8, verbose=0)
    _, after = expected(shared, shape)
    assert after < 1e-3 * before or after < 1e-4
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = random_input(shape)
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(given)), ops.convert_to_numpy(model(given)), atol=1e-6)
    assert len(loaded.losses) == len(model.losses) == 2  # one for each call
    clone = keras.models.clone_model(model)
    assert next(each for each in clone.layers if isinstance(each, ka.Regularized)).get_config() == shared.get_config()


@pytest.mark.parametrize("policy", HALF_PRECISION_POLICIES)
def test_in_half_precision_the_loss_is_computed_in_single(policy):
    layer = ka.Regularized(layers.Dense(4, dtype=policy), **WEIGHTS)
    x = random_input((9,))
    layer(x)
    randomized(layer)
    assert layer(x).dtype == layer.layer(x).dtype
    kernel = ops.convert_to_numpy(layer.layer.kernel).astype("float64")
    norm, gram = np.linalg.norm(kernel, 2), kernel.T @ kernel
    wanted = 0.3 * norm + 0.2 * np.sum((gram - np.eye(4)) ** 2) / 4
    assert loss_of(layer, (9,)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("scale", [1e-17, 1e20])
def test_the_norm_of_a_small_layer_neither_overflows_nor_vanishes(scale):
    layer, shape = case_named("tall", orthogonality=0.0)
    layer.layer.kernel.assign(scale * layer.layer.kernel)
    norm = np.linalg.norm(ops.convert_to_numpy(layer.layer.kernel).astype("float64"), 2)
    assert loss_of(layer, shape) == pytest.approx(0.3 * norm, rel=1e-5)


@pytest.mark.any_backend
def test_a_layer_that_diverged_has_a_loss_that_is_no_number():
    layer, shape = case_named("tall", orthogonality=0.0)
    layer.layer.kernel.assign(np.nan * layer.layer.kernel)
    assert np.isnan(loss_of(layer, shape))


def test_a_call_with_given_weights_adds_the_loss_of_those():
    layer, shape = case_named("wide")
    trained, others = (
        [variable.value for variable in each] for each in (layer.trainable_variables, layer.non_trainable_variables)
    )
    *_, (loss,) = layer.stateless_call(trained, others, random_input(shape), return_losses=True)
    assert number(loss) == pytest.approx(loss_of(layer, shape), rel=1e-5)


@pytest.mark.any_backend
def test_adjoints_mirrors_and_stock_layers_are_those_of_the_layer_inside(tmp_path):
    conv = layers.Conv1D(4, 3, strides=2, activation="relu", name="plain")
    layer = ka.Regularized(conv, **WEIGHTS)
    encoder = keras.Sequential([keras.Input((9, 2)), layer])
    randomized(encoder)
    assert ka.adjoint(layer, linear_part=True).source is conv
    model = ka.autoencoder(encoder)
    assert ka.is_tied(model)
    untied = ka.untie(model)
    assert_stock(untied)
    assert classes(ka.untie(encoder)) == ["Conv1D"]
    assert_same([(model, untied), (model, ka.clone_tied(model))], random_input((9, 2)))
    backward = ka.Regularized(ka.adjoint(layer, linear_part=True), **WEIGHTS)
    assert loss_of(backward, (4, 4)) == pytest.approx(loss_of(layer, (9, 2)), rel=1e-5)
    assert ka.is_tied(backward.layer, conv)


@pytest.mark.any_backend
def test_what_it_cannot_measure_is_refused():
    for options in ({"spectral": -1}, {"orthogonality": float("nan")}, {"spectral": True}, {"probes": 0}):
        with pytest.raises(ValueError, match="Received"):
            ka.Regularized(layers.Dense(2), **options)
    with pytest.raises(ka.NoRuleError, match="single layer"):
        ka.Regularized(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(ka.NoRuleError, match=r"Regularized\(TimeDistributed"):
        layers.TimeDistributed(ka.Regularized(layers.Dense(2), **WEIGHTS))(np.ones((1, 3, 4), "float32"))
    with pytest.raises(ka.NoRuleError):
        ka.Regularized(layers.MaxPooling1D(2), **WEIGHTS)(np.ones((1, 4, 2), "float32"))
    layer = ka.Regularized(layers.Conv1D(2, 3), **WEIGHTS)
    layer(keras.Input((None, 3)))
    assert layer.how == {}
    with pytest.raises(ka.SizeError, match="fixed input size"):
        layer.penalty((None, None, 3))
