"""`untie` of layers with a constant: stock layers with the scaled kernel, equal outputs; and their tied adjoints."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, in_turn
from keras import ops
from untied import assert_same, assert_stock, both_kinds, classes, random_input, randomized

import keras_adjoint as ka

L = keras.layers


def loud(layer, shape):
    """A layer whose kernels are too large for a constant of 0.5."""
    layer.build((None, *shape))
    randomized(layer)
    return layer


def adjoint_of(source, shape, **options):
    source.build((None, *shape))
    return ka.adjoint(randomized(source), **options)


# (what makes a layer, the shape that it takes, the stock layers that it becomes)
CASES = {
    "conv": (lambda: L.Conv2D(4, 3, strides=2, padding="same", activation="gelu"), (9, 8, 3), ["Conv2D"]),
    "transposed": (lambda: L.Conv1DTranspose(4, 3, strides=2), (7, 3), ["Conv1DTranspose"]),
    "separable": (lambda: L.SeparableConv1D(4, 3, depth_multiplier=2), (9, 3), ["SeparableConv1D"]),
    "dense": (lambda: L.Dense(4, activation="tanh"), (7,), ["Dense"]),
    "equation": (lambda: L.EinsumDense("abc,cd->abd", (5, 4), bias_axes="d"), (5, 3), ["EinsumDense"]),
    "no kernel": (lambda: L.UpSampling1D(3), (4, 3), ["Rescaling", "UpSampling1D"]),
    "at every step": (
        lambda: L.TimeDistributed(L.Dense(4, activation="relu")),
        (3, 5),
        ["Rescaling", "TimeDistributed", "Dense"],
    ),
    "adjoint": (lambda: adjoint_of(L.Conv1D(4, 3, strides=2), (9, 2)), (4, 4), None),
    "adjoint, own bias": (lambda: adjoint_of(L.Dense(4), (6,), bias="own"), (4,), None),
    "adjoint, bias subtracted": (lambda: adjoint_of(L.Dense(4), (6,), bias="subtract"), (4,), None),
}


def case_named(name):
    make, shape, expected = CASES[name]
    layer = make()
    if not layer.built:
        layer = loud(layer, shape)
    return ka.Lipschitz(randomized(layer), constant=0.5, name="limited"), shape, expected


@pytest.mark.parametrize("name", CASES)
@pytest.mark.any_backend
def test_the_stock_layer_has_the_scaled_kernel_and_gives_the_same(name):
    limited, shape, expected = case_named(name)
    model = keras.Sequential([keras.Input(shape), limited])
    assert float(ops.convert_to_numpy(limited.factor((None, *shape)))) < 0.9
    x = random_input(shape)
    for to in ("conv_transpose", "conv"):
        untied = ka.untie(model, to=to)
        assert_stock(untied)
        assert expected is None or classes(untied) == expected
        assert_same([(model, untied)], x)
    assert_same([(limited, ka.untie(limited))], x)


@both_kinds
@pytest.mark.parametrize(*("name", in_turn(["conv", "dense", "separable", "adjoint", "no kernel"])))
def test_the_adjoint_has_the_same_factor_and_stays_tied(name, to, tmp_path):
    limited, shape, _ = case_named(name)
    encoder = keras.Sequential([keras.Input(shape), limited])
    A = ka.operator(encoder, linear_part=True)
    matrix = A.to_matrix()
    np.testing.assert_allclose(A.T.to_matrix(), matrix.T, atol=1e-5)
    norm = np.linalg.norm(matrix.astype("float64"), 2) * limited.activation_constant
    assert 0.3 <= norm <= 0.5 * (1 + 1e-6)
    assert norm <= float(ops.convert_to_numpy(A.bound())) * limited.activation_constant <= 0.51

    decoder = ka.mirror(encoder)
    model = keras.Model(encoder.inputs, decoder(encoder.outputs[0]))
    if limited.layer.weights:
        assert ka.is_tied(decoder, getattr(limited.layer, "source", limited.layer))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = random_input(shape)
    untied = ka.untie(model, to=to)
    assert_stock(untied)
    assert_same([(model, untied), (model, loaded), (model, ka.clone_tied(model))], x)


@pytest.mark.any_backend
def test_a_bias_of_the_adjoint_is_trained_scaled_and_no_part_of_its_own_adjoint():
    limited, shape, _ = case_named("dense")
    limited(keras.Input(shape))
    biased = randomized(ka.adjoint(limited, linear_part=True, bias="own"))
    assert len(biased.trainable_weights) == 3
    biased.trainable = False
    assert len(limited.trainable_weights) == 2 and not biased.inner.trainable
    y = random_input((4,))
    assert_same([(biased, ka.untie(biased))], y)
    plain = ka.adjoint(ka.adjoint(biased))
    np.testing.assert_allclose(ops.convert_to_numpy(plain(0 * y)), 0)
    assert np.abs(ops.convert_to_numpy(biased(0 * y))).max() > 0
    copied = ka.adjoint(limited, linear_part=True, tied=False)
    assert not ka.is_tied(copied)
    before = ops.convert_to_numpy(copied(y))
    limited.layer.kernel.assign(2 * limited.layer.kernel + 1)
    np.testing.assert_array_equal(ops.convert_to_numpy(copied(y)), before)


@pytest.mark.any_backend
def test_nested_models_and_mirrors_of_mirrors_are_untied():
    limited, shape, _ = case_named("conv")
    inner = keras.Sequential([keras.Input(shape), limited])
    x = keras.Input(shape)
    encoder = keras.Model(x, L.Dense(3)(L.Flatten()(inner(x))))
    for model in (ka.autoencoder(encoder), ka.mirror(ka.mirror(encoder)), encoder):
        untied = ka.untie(model)
        assert_stock(untied)
        assert_same([(model, untied)], random_input(shape))


@pytest.mark.exhaustive
def test_files_of_other_runtimes_have_the_scaled_kernel(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if BACKEND == "jax":
        pytest.skip("Keras writes ONNX from the other two")
    limited, shape, _ = case_named("conv")
    model = ka.autoencoder(keras.Sequential([keras.Input(shape), limited]))
    x = np.asarray(ops.convert_to_numpy(random_input(shape)))[:1].astype("float32")
    expected = ops.convert_to_numpy(model(x))
    with ka.exporting("onnx"):
        model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, expected, atol=1e-5)
