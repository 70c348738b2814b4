"""`LeastSquares` and `pinv` as layers: tied, trained, saved, cloned, compiled, transposed."""

import warnings

import keras
import numpy as np
import pytest
import torch
from autodiff import compiled, mapped
from command_line import run_in_new_process
from helpers import in_turn
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


@pytest.mark.parametrize(*("kind", in_turn(["layer", "activated", "wrapped", "model"], always=["torch"])))
def test_what_the_source_adds_is_subtracted(kind, tmp_path):
    conv = layers.Conv2D(
        8, 3, padding="same", bias_initializer="normal", activation="tanh" if kind == "activated" else None
    )
    normed = layers.BatchNormalization(beta_initializer="normal", moving_mean_initializer="normal")
    inputs = keras.Input((2, 6, 5, 2) if kind == "wrapped" else (6, 5, 2))
    source = layers.TimeDistributed(conv) if kind == "wrapped" else conv
    outputs = source(inputs)
    if kind == "model":
        source = keras.Model(inputs, normed(outputs))
    x = np.random.default_rng(0).random((2, *inputs.shape[1:]), "float32")
    y = source(x, training=False)
    given = numpy(y)
    if kind == "activated":
        given = np.arctanh(given)
    options = {"linear_part": kind == "activated", "tolerance": 1e-6}
    solve = ka.pinv(source, bias="subtract", **options)
    np.testing.assert_allclose(numpy(solve(given)), x, atol=2e-3)
    assert np.abs(numpy(ka.pinv(source, **options)(given)) - x).max() > 0.05
    adjoint = ka.adjoint(solve)
    assert ka.check_adjoint(solve, adjoint, trials=1)
    assert not numpy(ka.adjoint(adjoint)(np.zeros_like(given))).any()  # the linear part, which the layer itself is not
    y = keras.Input(given.shape[1:])
    keras.Model([inputs, y], [source(inputs), solve(y)]).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded([x, given])[1]), x, atol=2e-3)


def test_weights_leave_out_what_is_masked(tmp_path):
    conv = layers.Conv2D(8, 3, padding="same", use_bias=False)
    y, mask = keras.Input((6, 5, 8)), keras.Input((6, 5, 1))
    conv.build((None, 6, 5, 2))
    solve = ka.LeastSquares(conv, ridge=1e-6)
    model = keras.Model([y, mask], solve(y, weights=mask))
    x = np.random.default_rng(0).random((3, 6, 5, 2), "float32")
    shown = (np.random.default_rng(1).random((3, 6, 5, 1)) < 0.85).astype("float32")  # a mask for each sample
    given = numpy(conv(x)) * shown + 9 * (1 - shown)
    np.testing.assert_allclose(numpy(model([given, shown])), x, atol=0.02)
    np.testing.assert_allclose(numpy(solve(given, weights=shown > 0)), numpy(model([given, shown])), atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded([given, shown])), numpy(model([given, shown])), atol=1e-6)
    with pytest.raises(ka.KerasAdjointError):  # what it gives depends on another input
        ka.adjoint(model)


@pytest.mark.in_turn("torch")
def test_adjoint_test_knows_the_shapes_of_several_tensors():
    one, two = keras.Input((4,)), keras.Input((3,))
    summed = layers.Dense(2, use_bias=False)(one) + layers.Dense(2, use_bias=False)(two)
    split = [layers.Dense(2, use_bias=False)(one), layers.Dense(5, use_bias=False)(one)]
    named = keras.Model(one, dict(zip("ab", split, strict=True)))
    for source in (keras.Model([one, two], summed), keras.Model(one, split), named):
        layer = ka.LeastSquares(source, ridge=0.1)
        assert ka.check_adjoint(layer)
        assert ka.check_adjoint(ka.adjoint(layer))


@pytest.mark.in_turn("jax")
def test_training_through_several_solutions_goes_on_in_a_new_process(tmp_path):
    file = tmp_path / "model.keras"
    camera = layers.Conv2D(1, 4, strides=2, padding="same", use_bias=False, trainable=False)
    camera.build((None, 8, 8, 1))
    y = keras.Input((4, 4, 1))
    solve = ka.LeastSquares(camera, ridge=0.05, learn_ridge=True, tolerance=1e-3)
    first = layers.Conv2D(1, 3, padding="same")(solve(y))
    model = keras.Model(y, first + solve(y - camera(first)))
    model.compile("adam", "mse")
    given, wanted = np.random.default_rng(0).random((4, 4, 4, 1)), np.ones((4, 8, 8, 1))
    before = model.fit(given, wanted, epochs=2, verbose=0).history["loss"]
    model.save(file)
    np.save(tmp_path / "given.npy", given)
    script = f"""
import keras_adjoint, keras, numpy as np
model = keras.saving.load_model({str(file)!r})
given = np.load({str(tmp_path / "given.npy")!r})
print(model.evaluate(given, np.ones((4, 8, 8, 1)), verbose=0))
model.fit(given, np.ones((4, 8, 8, 1)), verbose=0)
"""
    found = run_in_new_process("-c", script, KERAS_BACKEND=BACKEND)
    assert before[1] < before[0]
    np.testing.assert_allclose(float(found.stdout.split()[-1]), model.evaluate(given, wanted, verbose=0), rtol=1e-4)


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
        ({"bias": "own"}, "one of"),
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
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="ends before its activation"):
        ka.pinv(keras.Model(inputs, relu(inputs)), bias="subtract", linear_part=True)
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


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_the_adjoint_of_what_is_not_finite_is_nan_also_compiled(of_dense, number):
    layer, _ = of_dense
    adjoint = ka.adjoint(layer)
    good = np.random.default_rng(0).random((3, 4), "float32")
    bad = good.copy()
    bad[1, 2] = number
    expected = numpy(adjoint(good))
    with pytest.warns(UserWarning, match="The adjoint of `LeastSquares`: what it takes is not finite in sample 1,"):
        found = numpy(adjoint(bad))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = keras.Sequential([keras.Input((4,)), adjoint]).predict(bad, verbose=0)
    for each in (found, predicted):
        assert np.isnan(each[1]).all()
        np.testing.assert_allclose(each[[0, 2]], expected[[0, 2]], rtol=1e-5)


@pytest.mark.only_on("torch")
def test_autocast_leaves_solutions_and_gradients_in_full_precision():
    conv = layers.Conv1D(4, 3, padding="same")
    conv.build((None, 6, 2))
    solve = ka.LeastSquares(conv, ridge=0.1, size=(6, 2))
    coding = ka.SparseCoding(conv, dictionary="layer", weight=0.1, size=(6, 2))
    fixed = ka.unroll(conv, weight=0.1, fixed_point=True, size=(6, 2))
    generator = np.random.default_rng(0)
    y, x = (generator.normal(size=(2, 6, channels)).astype("float32") for channels in (4, 2))
    for solver, given in ((solve, y), (ka.adjoint(solve), x), (coding, y), (fixed, y)):
        found = []
        for enabled in (False, True):
            tensor = torch.tensor(given, requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                made = solver(tensor)
                (gradient,) = torch.autograd.grad((made**2).sum(), tensor)
            found.append((numpy(made), numpy(gradient)))
        for plain, cast in zip(*found, strict=True):
            np.testing.assert_allclose(cast, plain, rtol=1e-4, atol=1e-4)
