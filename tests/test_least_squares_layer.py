"""`LeastSquares` and `pinv` as layers: tied, trained, saved, cloned, compiled, transposed."""

import keras
import numpy as np
import pytest
import torch
from autodiff import compiled, mapped
from keras import layers, ops

import keras_adjoint as ka

BACKEND = keras.backend.backend()


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


@pytest.fixture
def solved():
    """(conv, LeastSquares of it, a model x ↦ conv(x) ↦ x, some x)."""
    x = np.random.default_rng(0).random((2, 6, 5, 2), "float32")
    inputs = keras.Input((6, 5, 2))
    conv = layers.Conv2D(3, 3, strides=2, padding="same")
    code = conv(inputs)
    layer = ka.LeastSquares(conv, ridge=0.1, learn_ridge=True)
    return conv, layer, keras.Model(inputs, layer(code)), x


@pytest.fixture
def of_dense():
    """(a well-conditioned `LeastSquares`, some y)."""
    dense = layers.Dense(5, use_bias=False)
    dense.build((None, 4))
    y = np.random.default_rng(0).random((2, 5), "float32")
    return ka.LeastSquares(dense, ridge=100.0, max_steps=3), ops.convert_to_tensor(y)


def test_kernel_and_ridge_are_trained_together_and_saved_once(solved, tmp_path):
    conv, layer, model, x = solved
    assert [weight.path for weight in layer.trainable_weights][1:] == [weight.path for weight in conv.trainable_weights]
    model.compile("sgd", "mse")
    before, ridge = numpy(conv.kernel), float(numpy(layer.ridge))
    model.fit(x, x, epochs=1, verbose=0)
    assert not np.array_equal(numpy(conv.kernel), before)
    assert 0 < float(numpy(layer.ridge)) != ridge
    expected = numpy(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert ka.is_tied(loaded.layers[1], loaded.layers[2])
    assert len(loaded.weights) == len(model.weights) == 3
    for copy in (loaded, ka.clone_tied(model)):
        np.testing.assert_allclose(numpy(copy(x)), expected, atol=1e-5)


def test_adjoint_solves_the_same_equations_and_its_adjoint_is_the_layer(solved):
    _, layer, model, _ = solved
    adjoint = ka.adjoint(layer)
    assert ka.adjoint(adjoint) is layer
    report = ka.check_adjoint(layer, adjoint)
    assert report, report
    assert report.tolerance < 0.01
    assert ka.check_adjoint(model, trials=1)


def test_adjoint_test_sees_what_is_off_by_more_than_the_tolerance(of_dense):
    layer, _ = of_dense
    adjoint = ka.adjoint(layer)
    assert ka.check_adjoint(layer)
    assert not ka.check_adjoint(layer, lambda g: 1.01 * adjoint(g))


@pytest.mark.parametrize("kind", ["wide", "tall"])
def test_pseudo_inverse_has_the_four_properties_of_penrose(kind):
    dense = layers.Dense(3 if kind == "wide" else 5, use_bias=True, bias_initializer="ones")
    dense.build((None, 4))
    inverse = ka.pinv(dense, tolerance=1e-6)
    units = np.eye(dense.units, dtype="float32")
    matrix, found = numpy(dense.kernel).T, numpy(inverse(units)).T
    np.testing.assert_allclose(found, np.linalg.pinv(matrix), atol=1e-3 * np.abs(found).max())
    transposed = numpy(ka.adjoint(inverse)(np.eye(4, dtype="float32")))
    np.testing.assert_allclose(transposed, found, atol=1e-3 * np.abs(found).max())


def test_model_is_a_source(tmp_path):
    inputs = {"a": keras.Input((6, 2)), "b": keras.Input((3, 2))}
    outputs = layers.Conv1D(2, 2, use_bias=False)(inputs["a"])[:, ::2] + layers.Dense(2, use_bias=False)(inputs["b"])
    source = keras.Model(inputs, outputs)
    layer = ka.LeastSquares(source, ridge=0.01)
    y = np.random.default_rng(0).random((2, 3, 2), "float32")
    x = layer(y)
    assert {name: tuple(each.shape) for name, each in x.items()} == {"a": (2, 6, 2), "b": (2, 3, 2)}
    stacked = ka.vstack([ka.operator(source), 0.1 * ka.identity(ka.operator(source).in_shape)]).to_matrix()
    expected = np.linalg.lstsq(stacked, np.pad(y.reshape(2, -1), ((0, 0), (0, 18))).T, rcond=None)[0].T
    rows = np.concatenate([numpy(x[name]).reshape(2, -1) for name in ("a", "b")], axis=1)
    np.testing.assert_allclose(rows, expected, atol=1e-3)
    whole = keras.Model(inputs, layer(source(inputs)))
    whole.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = {"a": np.ones((1, 6, 2), "float32"), "b": np.ones((1, 3, 2), "float32")}
    np.testing.assert_allclose(numpy(loaded(given)["a"]), numpy(whole(given)["a"]), atol=1e-5)


def test_layer_is_compiled_and_mapped(of_dense):
    layer, y = of_dense
    expected = numpy(layer(y))
    run = torch.compile(layer, backend="eager") if BACKEND == "torch" else compiled(lambda y: layer(y))
    np.testing.assert_allclose(numpy(run(y)), expected, atol=1e-5)  # PyTorch's breaks its graph at the loop
    if BACKEND != "tensorflow":  # whose `vectorized_map` is slow with loops
        each = mapped(lambda y: layer(y[None])[0], (0,))
        np.testing.assert_allclose(numpy(each(y)), expected, atol=1e-5)


def test_exported_layer_takes_its_steps_in_the_file(of_dense, tmp_path):
    layer, y = of_dense
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layer(inputs))
    path = tmp_path / ("model.pt2" if BACKEND == "torch" else "model")
    model.export(path, format="torch" if BACKEND == "torch" else "tf_saved_model", verbose=False)
    found = torch.export.load(path).module()(y[:1]) if BACKEND == "torch" else tensorflow_run(path, y[:1])
    np.testing.assert_allclose(numpy(found), numpy(model(y[:1])), atol=1e-5)


def tensorflow_run(path, y):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return loaded.serve(tf.convert_to_tensor(numpy(y)))


def test_too_many_steps_for_a_file_of_pytorch_are_refused(of_dense, tmp_path):
    if BACKEND != "torch":
        return
    layer = ka.LeastSquares(of_dense[0].source)
    inputs = keras.Input((5,))
    with pytest.raises(RuntimeError, match="max_steps=200"):  # Keras' own, with our words
        keras.Model(inputs, layer(inputs)).export(tmp_path / "model.pt2", format="torch", verbose=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ridge": -1.0}, "not negative"),
        ({"ridge": 0.0, "learn_ridge": True}, "positive number where it is learned"),
        ({"learn_ridge": 1}, "`True` or `False`"),
        ({"method": "qr"}, "one of"),
        ({"max_steps": 0}, "positive integer"),
    ],
)
def test_options_without_sense_are_refused(options, words):
    dense = layers.Dense(3)
    dense.build((None, 4))
    with pytest.raises(ValueError, match=words) as caught:
        ka.LeastSquares(dense, **options)
    assert "Received: " in str(caught.value)


def test_sources_without_a_solution_are_refused():
    relu = layers.Dense(3, activation="relu")
    relu.build((None, 4))
    with pytest.raises(ka.NoRuleError, match="linear_part=True"):
        ka.LeastSquares(relu)
    assert ka.LeastSquares(relu, linear_part=True)(np.ones((1, 3))).shape == (1, 4)
    with pytest.raises(ValueError, match="there is `lstsq`"):
        ka.LeastSquares(ka.identity((3,)))
    with pytest.raises(ValueError, match="has no ridge"):
        ka.pinv(relu, ridge=1.0)


@pytest.mark.any_backend
def test_symbolic_tensors_of_another_shape_are_refused():
    dense = layers.Dense(7, use_bias=False)
    dense.build((None, 4))
    made = [
        (ka.LeastSquares(dense, ridge=0.1), 6),
        (ka.adjoint(ka.LeastSquares(dense, ridge=0.1)), 7),
        (ka.SparseCoding(dense), 7),
    ]
    for layer, size in made:
        with pytest.raises(ka.SizeError, match=f"`{layer.name}` takes batches of"):
            layer(keras.Input((size,)))
        assert layer(keras.Input((layer.expected.sizes[1],))).shape[0] is None
    with pytest.raises(ValueError, match="`tied` must be `True` or `False`. Received: tied='maybe'"):
        ka.LeastSquares(dense, tied="maybe")
