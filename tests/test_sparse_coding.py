"""`SparseCoding`: codes that are optimal, their gradients, dictionaries that are learned, and what goes wrong."""

import warnings
from itertools import product

import keras
import numpy as np
import pytest
from autodiff import derivatives_along
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka

TURNS = {
    True: ("jax", "torch"),
    False: ("tensorflow", "torch"),
}  # second derivatives take others than PyTorch long to compile

LAYERS = {
    "dense": (lambda: layers.Dense(9), (6,)),
    "conv1d, grouped, stride 2": (lambda: layers.Conv1D(6, 3, strides=2, groups=2), (9, 4)),
    "conv2d, stride 2, padded": (lambda: layers.Conv2D(5, 3, strides=2, padding="same"), (6, 5, 2)),
    "conv3d": (lambda: layers.Conv3D(3, 2), (3, 3, 4, 1)),
    "depthwise": (lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 2)),
    "transposed, stride 2": (lambda: layers.Conv1DTranspose(3, 3, strides=2), (4, 2)),
}
# JAX and TensorFlow compile for every layer.
TURNS_OF_LAYERS = ("tensorflow", "torch", "torch", "torch", "jax", "torch", "torch", "torch")
CASES = in_turn(
    [*product(LAYERS, ("adjoint", "layer"))], name=", ".join, backends=lambda case: TURNS_OF_LAYERS, always=["torch"]
)


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def built(name, **options):
    make, size = LAYERS[name]
    layer = make()
    layer.build((None, *size))
    return ka.SparseCoding(layer, size=size, **options)


def signals(coding, count=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *coding.D.out_shape)).astype("float32")


def matrix(coding):
    """D with the atoms that it is computed with."""
    units = np.eye(coding.D.shape[1], dtype="float32").reshape(-1, *coding.D.in_shape)
    return numpy(coding.reconstruct(units)).reshape(len(units), -1).T.astype("float64")


def of_dense(kernel, **options):
    dense = layers.Dense(kernel.shape[1], use_bias=False)
    dense.build((None, kernel.shape[0]))
    dense.kernel.assign(kernel)
    return ka.SparseCoding(dense, **options)


# --- codes


@pytest.mark.parametrize(("name", "dictionary"), CASES)
def test_codes_are_optimal_and_atoms_of_unit_norm(name, dictionary):
    coding = built(name, dictionary=dictionary, unit_atoms=True, tolerance=1e-6)
    y = signals(coding)
    found = coding.solution(y)
    assert numpy(found.converged).all() and found.codes.shape == (3, *coding.D.in_shape)
    dictionary_matrix, codes = matrix(coding), numpy(found.codes).reshape(3, -1)
    weight = 0.1 * np.abs(y.reshape(3, -1) @ dictionary_matrix).max(axis=1)
    np.testing.assert_allclose(numpy(found.weight), weight, rtol=1e-5)
    slope = (y.reshape(3, -1) - codes @ dictionary_matrix.T) @ dictionary_matrix / weight[:, None]
    assert np.abs(slope).max() <= 1 + 1e-3
    np.testing.assert_allclose(slope[codes != 0], np.sign(codes)[codes != 0], atol=1e-3)
    assert 0 < (codes != 0).mean() < 1
    channels = coding.D.in_shape[-1]
    norms = np.linalg.norm(dictionary_matrix, axis=0).reshape(-1, channels)
    np.testing.assert_allclose(norms.max(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "nonnegative", in_turn([False, True], backends=lambda case: ("tensorflow", "jax"), always=["torch"])
)
def test_codes_are_those_of_scikit_learn(nonnegative):
    from sklearn.linear_model import Lasso

    generator = np.random.default_rng(1)
    coding = of_dense(generator.standard_normal((12, 7)), weight=2.0, nonnegative=nonnegative, tolerance=1e-7)
    y = generator.standard_normal((4, 12)).astype("float32")
    lasso = Lasso(alpha=2.0 / 12, fit_intercept=False, positive=nonnegative, tol=1e-12, max_iter=10**5)
    expected = [lasso.fit(numpy(coding.source.kernel).astype("float64"), one).coef_ for one in y.astype("float64")]
    np.testing.assert_allclose(numpy(coding(y)), expected, atol=1e-5)
    assert nonnegative == bool((numpy(coding(y)) >= 0).all()) and (numpy(coding(y)) == 0).any()


@pytest.mark.parametrize(
    "nonnegative", in_turn([False, True], backends=lambda case: ("jax", "tensorflow"), always=["torch"])
)
def test_codes_are_zero_from_the_largest_weight_on(nonnegative):
    kernel = np.random.default_rng(2).standard_normal((20, 30))
    y = np.random.default_rng(3).standard_normal((1, 20)).astype("float32")
    (largest,) = numpy(of_dense(kernel, nonnegative=nonnegative).lambda_max(y))
    at, below = (
        numpy(of_dense(kernel, weight=float(weight), nonnegative=nonnegative)(y))
        for weight in (largest, 0.99 * largest)
    )
    assert not at.any() and np.count_nonzero(below) == 1
    assert not numpy(of_dense(kernel, weight=largest * 5, nonnegative=nonnegative)(y)).any()


@pytest.mark.in_turn("torch")
def test_units_of_measure_make_no_difference():
    kernel = np.random.default_rng(0).standard_normal((12, 7))
    y = np.random.default_rng(1).standard_normal((2, 12)).astype("float32")
    expected = numpy(of_dense(kernel)(y))
    for unit in (1e-25, 1e25):
        np.testing.assert_allclose(numpy(of_dense(kernel)(y * np.float32(unit))) / unit, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            numpy(of_dense(kernel * unit)(y)) * unit, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
        )
        np.testing.assert_allclose(
            numpy(of_dense(kernel * unit, unit_atoms=True)(y)), numpy(of_dense(kernel, unit_atoms=True)(y)), atol=1e-4
        )


# --- gradients


@pytest.mark.parametrize("unit_atoms", in_turn([True, False], backends=lambda case: TURNS[case], always=["torch"]))
def test_derivatives_are_those_of_the_equations_of_the_codes_in_use(unit_atoms):
    conv = layers.Conv1D(4, 3, strides=2, use_bias=False, dtype="float64")
    conv.build((None, 9, 2))
    coding = ka.SparseCoding(conv, size=(9, 2), unit_atoms=unit_atoms, relative_weight=0.2, tolerance=1e-12)
    generator = np.random.default_rng(0)
    kernel, change, y, dy = (generator.standard_normal(shape) for shape in 2 * (conv.kernel.shape,) + 2 * ((2, 9, 2),))
    cotangent = generator.standard_normal((2, *coding.D.in_shape))

    def along(t, point, slope):
        return ops.convert_to_tensor(point) + t * ops.convert_to_tensor(slope)

    def value(t):
        with keras.StatelessScope(state_mapping=[(conv.kernel, along(t, kernel, change))]):
            return ops.sum(coding(along(t, y, dy)) * ops.convert_to_tensor(cotangent))

    conv.kernel.assign(kernel)
    signs = np.sign(numpy(coding(y))).reshape(2, -1)
    assert 0.2 < (signs != 0).mean() < 0.9

    def expected(t):
        conv.kernel.assign(kernel + t * change)
        dictionary, total = coding.D.to_matrix(), 0.0
        dictionary = dictionary / np.linalg.norm(dictionary, axis=0) if unit_atoms else dictionary
        for row, sign, weights in zip((y + t * dy).reshape(2, -1), signs, cotangent.reshape(2, -1), strict=True):
            used, correlation = dictionary[:, sign != 0], dictionary.T @ row
            right = used.T @ row - 0.2 * np.abs(correlation).max() * sign[sign != 0]
            total += np.linalg.solve(used.T @ used, right) @ weights[sign != 0]
        return total

    step = 1e-4
    below, middle, above = (expected(t) for t in (-step, 0.0, step))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1e-12 may be missed by a hair
        found = derivatives_along(value, 0.0)
    np.testing.assert_allclose(found[0], middle, rtol=1e-7)
    np.testing.assert_allclose(found[1], (above - below) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(found[2], (above - 2 * middle + below) / step**2, rtol=1e-3)


# --- learning


def planted(count, seed=0):
    """(signals of few atoms, the atoms)."""
    generator = np.random.default_rng(seed)
    atoms = generator.standard_normal((10, 6))
    atoms /= np.linalg.norm(atoms, axis=0)
    codes = generator.standard_normal((count, 6)) * (generator.random((count, 6)) < 0.25)
    return (codes @ atoms.T).astype("float32"), atoms


def test_fit_finds_the_dictionary_that_signals_were_made_of_from_near_it(tmp_path):
    y, atoms = planted(256)
    dense = layers.Dense(6, bias_initializer="ones")
    dense.build((None, 10))
    dense.kernel.assign(atoms + 0.25 * np.random.default_rng(9).standard_normal(atoms.shape))
    coding = ka.SparseCoding(dense, unit_atoms=True, weight=0.1, tolerance=1e-3)
    assert np.abs(numpy(coding.atoms()).T @ atoms).max(axis=0).min() < 0.8
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 * 0.8**epoch)
    last = keras.callbacks.ModelCheckpoint(tmp_path / "last.keras")
    options = {"batch_size": 64, "callbacks": [rate, last], "validation_data": planted(32)[0], "verbose": 0}
    history = coding.fit(y, epochs=12, **options).history
    assert history["loss"][-1] < 0.6 * history["loss"][0] and history["converged"] == [1.0] * 12
    assert history["val_loss"][-1] < history["val_loss"][0] and 0 < history["used"][-1] < 0.4
    learned = numpy(dense.kernel)
    np.testing.assert_allclose(np.linalg.norm(learned, axis=0), 1, rtol=1e-5)
    assert np.abs(learned.T @ atoms).max(axis=0).min() > 0.97
    np.testing.assert_array_equal(numpy(dense.bias), 1)
    loaded = keras.saving.load_model(tmp_path / "last.keras")
    np.testing.assert_allclose(numpy(loaded.coding.atoms()), learned, atol=1e-5)


@pytest.mark.in_turn("torch")
def test_loss_is_the_objective_and_weights_of_samples_count():
    coding = built("conv1d, grouped, stride 2", unit_atoms=True)
    y = signals(coding)
    learner = coding.learner("sgd")
    expected = numpy(coding.solution(y).objective)
    assert learner.evaluate(y, verbose=0, return_dict=True)["loss"] == pytest.approx(expected.mean(), rel=1e-4)
    weighted = learner.evaluate(y, y, sample_weight=np.array([2.0, 0.0, 1.0]), verbose=0, return_dict=True)["loss"]
    assert weighted == pytest.approx((2 * expected[0] + expected[2]) / 3, rel=1e-4)
    assert [variable.path for variable in learner.trainable_variables] == [coding.source.kernel.path]


@pytest.mark.any_backend
def test_what_cannot_be_learned_is_refused():
    coding = built("dense")
    with pytest.raises(ValueError, match=r"`unit_atoms=True`: otherwise its atoms would grow"):
        coding.fit(signals(coding))
    coding = built("dense", unit_atoms=True)
    for nothing in (None, signals(coding)[:0]):
        with pytest.raises(ValueError, match="`fit` learns from signals"):
            coding.fit(nothing)
    with pytest.raises(ValueError, match=r"The loss is the objective.*Received: loss='mse'"):
        coding.learner(loss="mse")
    coding.source.trainable = False
    with pytest.raises(ValueError, match="is frozen, so there is nothing to learn"):
        coding.fit(signals(coding))


# --- faults


@pytest.mark.in_turn("torch", "jax")
def test_a_sample_that_is_not_finite_leaves_the_others():
    coding = built("conv2d, stride 2, padded", unit_atoms=True)
    y = signals(coding)
    expected = numpy(coding(y))
    y[1, 0, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="not finite in sample 1, which has no codes"):
        found = coding.solution(y)
    assert numpy(found.converged).tolist() == [True, False, True]
    assert np.isnan(numpy(found.codes)[1]).all()
    np.testing.assert_allclose(numpy(found.codes)[::2], expected[::2], atol=1e-5)
    y[1, 0, 0, 0] = np.inf  # which makes the weight infinite, too
    with pytest.warns(UserWarning, match="not finite in sample 1, which has no codes"):
        assert numpy(coding.solution(y).converged).tolist() == [True, False, True]


def test_signals_that_are_not_finite_are_left_out_of_learning():
    coding, others = (built("dense", unit_atoms=True) for _ in range(2))
    others.source.kernel.assign(numpy(coding.source.kernel))
    y = signals(coding)
    expected = others.fit(y[::2], optimizer=keras.optimizers.SGD(0.1), verbose=0).history
    y[1, 0] = np.nan
    with pytest.warns(UserWarning, match="sample 1 is not finite, so it has no codes, and nothing is learned from it"):
        history = coding.fit(y, optimizer=keras.optimizers.SGD(0.1), verbose=0).history
    np.testing.assert_allclose(numpy(coding.source.kernel), numpy(others.source.kernel), atol=1e-5)
    for name in ("loss", "error", "used"):
        assert history[name] == pytest.approx(expected[name], rel=1e-4)
    assert history["converged"] == pytest.approx([2 / 3])


def test_the_loss_in_the_history_does_not_depend_on_the_batches_that_signals_without_codes_fall_in():
    y = signals(built("dense"), 6)
    y[2:, 0] = np.nan

    def loss(y, size):
        coding = built("dense", unit_atoms=True)
        coding.source.kernel.assign(np.random.default_rng(1).normal(size=(6, 9)))
        options = {"optimizer": keras.optimizers.SGD(0.0), "batch_size": size, "shuffle": False, "verbose": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = coding.fit(y, validation_data=(y,), **options).history
        assert history["val_loss"] == pytest.approx(history["loss"], nan_ok=True)
        return history["loss"][0]

    expected = loss(y[:2], 2)
    assert [loss(y, size) for size in (1, 6)] == pytest.approx([expected] * 2, rel=1e-4)
    assert np.isnan(loss(y[2:], 2))


@pytest.mark.every_backend
def test_signals_of_another_size_are_refused_and_the_kernel_keeps_its_numbers():
    coding = built("dense", unit_atoms=True)
    y, before = signals(coding, 4), numpy(coding.source.kernel)
    with pytest.raises(ka.SizeError, match=r"takes batches of \(6,\)"):
        coding.fit(y[:, :5], verbose=0)

    def batches():
        yield (y[:, :5],)

    with pytest.raises(Exception, match="takes batches of"):  # Keras may make another error of ours
        coding.fit(batches(), verbose=0)
    np.testing.assert_array_equal(numpy(coding.source.kernel), before)
    coding.fit(y, verbose=0)
    assert coding.lambda_max(y[:0]).shape == (0,)


@pytest.mark.in_turn("torch", "tensorflow")
def test_zero_signals_and_a_zero_kernel_have_zero_codes():
    coding = built("dense", unit_atoms=True)
    y = signals(coding)
    y[0] = 0
    found = coding.solution(y)
    assert not numpy(found.codes)[0].any() and numpy(found.converged).all()
    assert coding(y[:0]).shape == (0, 9)
    coding.source.kernel.assign(np.zeros((6, 9)))
    found = coding.solution(y)
    assert not numpy(found.codes).any() and numpy(found.converged).all() and np.isfinite(numpy(found.objective)).all()
    kernel = np.eye(6, 9)
    coding.source.kernel.assign(kernel)
    np.testing.assert_array_equal(numpy(coding.atoms()), kernel)


@pytest.mark.in_turn("torch", "jax")
def test_steps_are_bounded_and_the_warning_names_the_sample():
    coding = built("dense", max_steps=2)
    y = signals(coding)
    y[1] = 0
    with pytest.warns(UserWarning, match=r"the codes of sample 0, 2 did not reach the tolerance of 1e-05 in 2 steps"):
        found = coding.solution(y)
    assert numpy(found.steps).max() == 2 and numpy(found.converged).tolist() == [False, True, False]


@pytest.mark.in_turn("torch")
def test_half_precision_is_computed_in_single():
    make, size = LAYERS["conv1d, grouped, stride 2"]
    wide, half = make(), layers.Conv1D(6, 3, strides=2, groups=2, dtype="mixed_bfloat16")
    for layer in (wide, half):
        layer.build((None, *size))
    half.kernel.assign(wide.kernel)
    found, expected = (ka.SparseCoding(layer, size=size, unit_atoms=True) for layer in (half, wide))
    y = signals(expected)
    assert numpy(found.solution(y).converged).all() and keras.backend.standardize_dtype(found(y).dtype) == "float32"
    np.testing.assert_allclose(numpy(found(y)), numpy(expected(y)), rtol=1e-5, atol=1e-6)


# --- ties and options


@pytest.mark.in_turn("torch", "jax")
def test_it_is_saved_loaded_and_cloned_with_the_layer(tmp_path):
    inputs = keras.Input((8, 2))
    conv = layers.Conv1D(4, 3, strides=2)
    features = conv(inputs)
    coding = ka.SparseCoding(conv, size=(8, 2), unit_atoms=True, nonnegative=True, relative_weight=0.3)
    model = keras.Model(inputs, [features, coding(inputs)])
    assert model.output_shape == [(None, 3, 4), (None, 3, 4)]
    y = np.random.default_rng(0).standard_normal((2, 8, 2)).astype("float32")
    expected = numpy(model(y)[1])
    model.save(tmp_path / "model.keras")
    for copy in (keras.saving.load_model(tmp_path / "model.keras"), ka.clone_tied(model)):
        assert ka.is_tied(copy.layers[1], copy.layers[2]) and len(copy.weights) == 2
        np.testing.assert_allclose(numpy(copy(y)[1]), expected, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0}, r"`weight` is a positive number\. Received: weight=0"),
        ({"relative_weight": 1.5}, "between 0 and 1. Received: relative_weight=1.5"),
        ({"weight": 1, "relative_weight": 0.1}, "not both"),
        ({"dictionary": "adjiont"}, 'Did you mean "adjoint"'),
        ({"unit_atoms": 1}, "unit_atoms"),
    ],
    ids=["weight", "relative weight", "both", "dictionary", "unit atoms"],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        built("dense", **options)


@pytest.mark.any_backend
def test_atoms_of_other_layers_cannot_be_made_of_unit_norm():
    separable = layers.SeparableConv1D(3, 2)
    separable.build((None, 5, 2))
    with pytest.raises(ka.NoRuleError, match="Atoms of unit norm are known for layers with one kernel"):
        ka.SparseCoding(separable, size=(5, 2), unit_atoms=True)
    assert ka.SparseCoding(separable, size=(5, 2))(np.ones((1, 5, 2), "float32")).shape == (1, 4, 3)
    with pytest.raises(ValueError, match="has a layer or model for a dictionary"):
        ka.SparseCoding(ka.identity((3,)))
    with pytest.raises(ka.SizeError, match="takes batches of"):
        built("dense")(np.ones((2, 5), "float32"))
    coding = built("dense")
    for method in (coding.solution, coding.lambda_max, coding.reconstruct):
        with pytest.raises(ValueError, match=r"compute at once, so that `\w+` has numbers"):
            method(keras.Input((6,)))
