"""`unroll`: networks of steps that find known solutions, with steps that no training makes too long."""

import sys

import keras
import numpy as np
import pytest
from autodiff import kernel_gradients
from helpers import in_turn
from keras import layers, ops
from layer_list import LAYERS
from scipy.optimize import minimize
from sklearn.linear_model import Lasso

import keras_adjoint as ka
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.operator_layers import OperatorLayer
from keras_adjoint.solvers.proximal import PROXIMALS
from keras_adjoint.solvers.step_layers import GradientStep, Momentum, ProximalStep

BACKEND = keras.backend.backend()
METHODS = ("ista", "fista", "primal_dual", "admm")
MOSTLY_TORCH = (*("torch",) * 11, "tensorflow", *("torch",) * 11, "jax")  # others compile every network
TURNS = ("torch", "jax", "torch", "tensorflow")
OTHERS = ("jax", "tensorflow")


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def dictionary(inputs=8, units=20, scale=1.0, **options):
    """A dense layer, and its matrix."""
    dense = layers.Dense(units, use_bias=True, bias_initializer="ones", **options)
    dense.build((None, inputs))
    kernel = scale * np.random.default_rng(0).normal(size=(inputs, units))
    dense.kernel.assign(kernel)
    return dense, kernel.T


def image_layer(dtype="float64"):
    """A strided convolution, and some of what it gives."""
    conv = layers.Conv2D(3, 3, strides=2, padding="same", dtype=dtype)
    conv.build((None, 6, 5, 2))
    return conv, np.random.default_rng(0).random((2, 3, 3, 3)).astype("float32" if "mixed" in dtype else dtype)


def of_type(model, layer_class):
    return [layer for layer in model.layers if isinstance(layer, layer_class)]


@pytest.mark.parametrize("method", in_turn(METHODS, backends=lambda method: TURNS))
def test_every_method_finds_the_lasso_of_scikit_learn_also_beside_a_sample_that_is_not_finite(method):
    layer, matrix = dictionary()
    y = np.random.default_rng(1).normal(size=(3, 20))
    y[1, 0] = np.nan
    network = ka.unroll(layer, method=method, weight=2.0, fixed_point=True)
    with pytest.warns(UserWarning, match="y is not finite in sample 1,"):
        found = numpy(network(y.astype("float32")))
    assert np.isnan(found[1]).all()
    for sample in (0, 2):
        lasso = Lasso(alpha=2.0 / 20, fit_intercept=False, tol=1e-10, max_iter=10**5).fit(matrix, y[sample])
        np.testing.assert_allclose(found[sample], lasso.coef_, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("prox", ["soft", "tv", "box"])
@pytest.mark.parametrize("method", ["ista", "primal_dual", "admm"])
def test_a_network_of_some_steps_is_where_the_fixed_point_is_after_them(method, prox):
    layer, y = image_layer("float32")
    options = {"method": method, "prox": prox, "weight": 0.05 if PROXIMALS[prox].is_scaled else None}
    unrolled = ka.unroll(layer, 4, learn=(), **options)
    with pytest.warns(UserWarning, match="max_steps"):
        stopped = numpy(ka.unroll(layer, fixed_point=True, max_steps=4, **options)(y))
    np.testing.assert_allclose(numpy(unrolled(y)), stopped, atol=1e-6)
    assert np.abs(stopped).max() > 0.01


@pytest.mark.any_backend
def test_methods_that_split_total_variation_off_find_the_least_of_a_reference():
    layer, matrix = dictionary(5)
    y = np.random.default_rng(1).normal(size=(2, 20))
    expected = [least_variation(matrix, each, 2.0) for each in y]
    assert np.isclose(np.diff(expected), 0, atol=1e-6).any() and not np.allclose(np.diff(expected), 0, atol=1e-2)
    for method in ("primal_dual", "admm"):
        x = ka.unroll(layer, method=method, prox="tv", weight=2.0, fixed_point=True)(y.astype("float32"))
        np.testing.assert_allclose(numpy(x), expected, atol=1e-5)


def least_variation(matrix, y, weight):
    """argmin ½‖A x − y‖² + weight·Σ|x[i + 1] − x[i]|, by SciPy, for the parts of the differences above and below zero."""
    inputs = matrix.shape[1]
    sums = np.tril(np.ones((inputs, inputs)))
    split = np.hstack([sums, -sums[:, 1:]])  # of the first number, of rises and of falls

    def objective(z):
        left = matrix @ split @ z - y
        penalty = weight * (np.arange(len(z)) > 0)
        return left @ left / 2 + penalty @ z, split.T @ matrix.T @ left + penalty

    limits = [(None, None)] + [(0, None)] * (2 * inputs - 2)
    options = {"ftol": 1e-16, "gtol": 1e-11, "maxiter": 5000}
    return (
        split
        @ minimize(objective, np.zeros(len(limits)), jac=True, method="L-BFGS-B", bounds=limits, options=options).x
    )


@pytest.mark.in_turn("torch", "jax")  # TensorFlow traces each of its loops
def test_gradient_of_a_fixed_point_is_that_of_the_solution():
    conv = layers.Conv2D(6, 2, strides=2, use_bias=False, dtype="float64")
    conv.build((None, 4, 4, 1))
    y = np.random.default_rng(0).random((1, 2, 2, 6))
    network = ka.unroll(conv, method="fista", weight=0.01, fixed_point=True, tolerance=1e-8)
    (found,) = kernel_gradients(lambda: ops.sum(ops.square(network(y))), [conv.kernel])
    check_gradient(conv, lambda: float(np.square(numpy(network(y))).sum()), found)


def check_gradient(layer, function, found):
    """Compare a gradient by the kernel with differences: PyTorch rounds some products to float32, so large ones."""
    kernel = numpy(layer.kernel)
    direction = np.random.default_rng(0).normal(size=kernel.shape)
    values = []
    for step in (1e-3, -1e-3):
        layer.kernel.assign(kernel + step * direction)
        values.append(function())
    assert np.vdot(found, direction) == pytest.approx((values[0] - values[1]) / 2e-3, rel=2e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("prox", ["soft", "nonnegative", "soft_nonnegative", "box", "tv"])
def test_no_step_of_ista_raises_the_objective(prox):
    layer, y = image_layer()
    options = {"weight": 0.05, "upper": 0.1, "inner_steps": 40}
    network = ka.unroll(
        layer, 5, prox=prox, **{name: options[name] for name in options if name in PROXIMALS[prox].takes}
    )
    steps = keras.Model(network.inputs, [each.output for each in of_type(network, ProximalStep)])
    A = ka.operator(layer)
    details = of_type(network, ProximalStep)[0].details

    def objective(x):
        fit = ops.sum(ops.square(A @ x - ops.convert_to_tensor(y)), axis=(1, 2, 3)) / 2
        return numpy(fit + options["weight"] * PROXIMALS[prox].penalty(x, details))

    values = [objective(x) for x in (ops.zeros((2, 6, 5, 2), "float64"), *steps(y))]
    assert (np.diff(values, axis=0) <= 1e-9).all()
    assert (values[-1] < 0.95 * values[0]).all()


@pytest.mark.parametrize(
    "case", in_turn([case for case in LAYERS if case.runs_itself], backends=lambda case: MOSTLY_TORCH)
)
def test_two_steps_are_what_the_matrix_gives(case):
    if not case.title.startswith("max"):  # which is not linear
        check_two_steps(case.build("float32"))


@pytest.mark.in_turn("torch", "tensorflow")
def test_model_of_several_tensors_is_a_source():
    inputs = {"a": keras.Input((6, 2), name="a"), "b": keras.Input((3, 2), name="b")}
    outputs = layers.Conv1D(2, 2, use_bias=False)(inputs["a"])[:, ::2] + layers.Dense(2, use_bias=False)(inputs["b"])
    found = check_two_steps(keras.Model(inputs, outputs))
    assert {name: tuple(each.shape) for name, each in found.items()} == {"a": (2, 6, 2), "b": (2, 3, 2)}


def check_two_steps(layer):
    A = ka.operator(layer)
    network = ka.unroll(layer, 2, weight=0.1, learn=())
    rows = np.random.default_rng(0).normal(size=(2, A.shape[0])).astype("float32")
    x = network(A.out_space.pack(A.out_space.split(ops.convert_to_tensor(rows))))
    found = numpy(A.in_space.join(keras.tree.flatten(x)))
    matrix, length = A.to_matrix(), 1 / float(numpy(A.bound())) ** 2
    expected = np.zeros_like(found)
    for _ in range(2):
        moved = expected - length * (expected @ matrix.T - rows) @ matrix
        expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.1 * length, 0)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    return x


def test_what_is_trained_is_tied_saved_and_cloned(tmp_path):
    layer, _ = dictionary()
    x = np.random.default_rng(0).random((4, 8), "float32")
    inputs = keras.Input((8,))
    network = ka.unroll(layer, 3, method="fista", weight=0.5, learn=("step", "threshold", "momentum"))
    assert [weight.name for weight in network.trainable_weights if not len(weight.shape)] == [
        *("step", "threshold") * 2,
        *("momentum", "step", "threshold"),
    ]
    model = keras.Model(inputs, network(layer(inputs)))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = [numpy(weight) for weight in model.trainable_weights]
    model.fit(x, x, epochs=1, verbose=0)
    assert len(before) == 2 + 7
    assert not any(np.array_equal(old, numpy(new)) for old, new in zip(before, model.trainable_weights, strict=True))
    expected = numpy(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for copy in (loaded, ka.clone_tied(model)):
        assert len(copy.weights) == len(model.weights)
        np.testing.assert_allclose(numpy(copy(x)), expected, atol=1e-6)
    loaded.layers[1].kernel.assign(0 * loaded.layers[1].kernel)
    assert not numpy(loaded(x)).any()


@pytest.mark.parametrize("tied", in_turn(["forward", False], always=["torch"]))
def test_untied_steps_begin_with_the_kernel_and_go_ways_of_their_own(tied, tmp_path):
    layer, _ = dictionary()
    y = np.random.default_rng(0).random((4, 20), "float32")
    network = ka.unroll(layer, 2, weight=0.5, tied=tied, learn=())
    expected = numpy(ka.unroll(layer, 2, weight=0.5, learn=())(y))
    np.testing.assert_allclose(numpy(network(y)), expected, atol=1e-5)
    kernels = [weight for weight in network.trainable_weights if weight.name == "kernel"]
    assert len(kernels) == {"forward": 3, False: 4}[tied]
    assert any(kernel is layer.kernel for kernel in kernels) == (tied == "forward")
    network.compile("sgd", "mse")
    network.fit(y, np.ones((4, 8)), verbose=0)
    assert len({numpy(kernel).tobytes() for kernel in kernels}) == len(kernels)
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(network.weights)
    np.testing.assert_allclose(numpy(loaded(y)), numpy(network(y)), atol=1e-6)


@pytest.mark.parametrize("method", in_turn(["fista", "primal_dual", "admm"], always=["torch"]))
def test_no_kernel_makes_a_step_too_long(method):
    layer, _ = dictionary()
    y = np.random.default_rng(0).random((4, 20), "float32")
    learn = ("step", "momentum") if method == "fista" else ("step",)
    network = ka.unroll(layer, 6, method=method, weight=1e-9, learn=learn)
    run = current().compiled(lambda y, *values: with_values(network, values, y))
    for scale in (0.0, 1e-3, 1e3):
        for weight in network.trainable_weights:
            size = scale if len(weight.shape) else 3.0
            weight.assign(np.random.default_rng(1).normal(size=weight.shape) * size)
        x = numpy(run(y, *(numpy(weight) for weight in network.trainable_weights)))
        left = np.square(x @ numpy(layer.kernel) - y).sum(1) / np.square(y).sum(1)
        assert (left <= (1 + 1e-5 if method == "fista" else 4)).all()


def with_values(network, values, y):
    with keras.StatelessScope(state_mapping=list(zip(network.trainable_variables, values, strict=True))):
        return network(y)


@pytest.mark.parametrize("method", in_turn(METHODS, backends=lambda method: OTHERS, always=["torch"]))
def test_a_kernel_of_zeros_has_finite_gradients(method):
    layer, _ = dictionary(scale=0.0)
    y = np.random.default_rng(0).random((4, 20), "float32")
    network = ka.unroll(layer, 2, method=method, weight=1e-9)
    assert not numpy(network(y)).any()
    (found,) = kernel_gradients(lambda: ops.sum(network(y)), [layer.kernel])
    assert np.isfinite(found).all()


def test_gradient_by_the_kernel_includes_that_of_the_bound():
    conv = layers.Conv2D(3, 2, strides=2, use_bias=False, dtype="float64")  # whose bound is smooth
    conv.build((None, 6, 6, 2))
    y = np.random.default_rng(0).random((2, 3, 3, 3))
    network = ka.unroll(conv, 3, method="fista", weight=0.01)
    (found,) = kernel_gradients(lambda: ops.sum(ops.square(network(y))), [conv.kernel])
    check_gradient(conv, lambda: float(np.square(numpy(network(y))).sum()), found)


def test_half_precision_is_summed_in_single():
    layer, y = image_layer("mixed_bfloat16")
    network = ka.unroll(layer, 6, method="fista", weight=0.01, learn=())
    found = network(y)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    single, _ = image_layer("float32")
    single.kernel.assign(layer.kernel)
    expected = numpy(ka.unroll(single, 6, method="fista", weight=0.01, learn=())(numpy(y.astype("float32"))))
    np.testing.assert_allclose(numpy(ops.cast(found, "float32")), expected, atol=2**-7 * np.abs(expected).max())


@keras.saving.register_keras_serializable(package="tests")
def halved(x, t):
    return x / (1 + t)


def test_models_and_functions_take_the_place_of_the_penalty(tmp_path):
    layer, y = image_layer("float32")
    denoisers = [keras.Sequential([keras.Input((6, 5, 2)), layers.Conv2D(2, 3, padding="same")]) for _ in range(2)]
    one = ka.unroll(layer, 2, prox=denoisers[0])
    each = ka.unroll(layer, 2, prox=denoisers)
    assert len(each.trainable_weights) == len(one.trainable_weights) + 2
    function = ka.unroll(layer, 2, prox=halved, weight=3.0)
    solved = ka.unroll(layer, prox="soft", weight=1.0, fixed_point=True, tolerance=0.01)
    assert len(solved.trainable_weights) == 3  # the kernel, the bias, and a threshold
    for network in (one, each, function, solved):
        network.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert len(loaded.weights) == len(network.weights)
        np.testing.assert_allclose(numpy(loaded(y)), numpy(network(y)), atol=1e-6)
    factor = (
        1
        + 3.0
        * numpy(of_type(function, GradientStep)[0].relative_length)
        / float(numpy(ka.operator(layer).bound())) ** 2
    )
    first = keras.Model(function.inputs, of_type(function, ProximalStep)[0].output)(y)
    moved = keras.Model(function.inputs, of_type(function, GradientStep)[0].output[0])(y)
    np.testing.assert_allclose(numpy(first), numpy(moved) / factor, rtol=1e-5)


@pytest.mark.any_backend
def test_summary_names_the_steps():
    layer, _ = dictionary()
    network = ka.unroll(layer, 3, method="fista", weight=1.0, learn=("momentum",))
    assert [len(of_type(network, each)) for each in (OperatorLayer, GradientStep, ProximalStep, Momentum)] == [
        1,
        3,
        3,
        1,
    ]
    assert {f"{layer.name}_step_3", f"{layer.name}_prox_3", f"{layer.name}_momentum_2"} <= {
        each.name for each in network.layers
    }


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "positive integer"),
        ({}, "needs a `weight`"),
        ({"weight": -1.0}, "not negative"),
        ({"weight": 1.0, "method": "ista", "learn": ("momentum",)}, '"fista" does'),
        ({"weight": 1.0, "learn": 3}, "tuple of names"),
        ({"prox": "box", "lower": 2.0}, "not above"),
        ({"weight": 1.0, "prox": "tv", "inner_steps": 0}, "positive integer"),
        ({"weight": 1.0, "inner_steps": 30}, '`inner_steps` goes with `prox="tv"` and `method="ista"` or "fista"'),
        ({"weight": 1.0, "prox": "tv", "method": "admm", "inner_steps": 30}, "goes with"),
        ({"weight": 1.0, "lower": -1.0}, '`lower` goes with `prox="box"`'),
        ({"weight": 1.0, "prox": "nonnegative"}, '`weight` goes with `prox="soft" or "soft_nonnegative" or "tv"`'),
        ({"weight": 1.0, "prox": layers.ReLU()}, "`prox` as models"),
        ({"weight": 1.0, "upper": 2.0, "prox": lambda x, t: x}, "`prox` as a function"),
        ({"weight": 1.0, "fixed_point": True, "steps": 20}, "at most `max_steps`"),
        ({"weight": 1.0, "fixed_point": True, "tied": False}, "with one kernel"),
        ({"weight": 1.0, "max_steps": 100}, "go with `fixed_point=True`"),
        ({"prox": [layers.ReLU()]}, "one for each of the 16 steps"),
    ],
)
def test_options_without_sense_are_refused(options, words):
    layer, _ = dictionary()
    with pytest.raises(ValueError, match=words) as caught:
        ka.unroll(layer, **options)
    assert "Received: " in str(caught.value)


def test_sources_that_are_not_linear_are_refused():
    relu = layers.Dense(3, activation="relu")
    relu.build((None, 4))
    with pytest.raises(ka.NoRuleError, match="linear_part=True"):
        ka.unroll(relu, weight=1.0)
    assert ka.unroll(relu, 1, weight=1.0, linear_part=True)(np.ones((1, 3))).shape == (1, 4)


@pytest.mark.any_backend
def test_many_steps_are_a_deep_graph():
    layer, _ = dictionary(2, 3)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)  # where Keras itself walks some 150 steps
    try:
        assert ka.unroll(layer, 200, weight=0.1, learn=()).output_shape == (None, 2)
    finally:
        sys.setrecursionlimit(limit)
