"""Norms and bounds of operators, against the singular values of their matrices."""

import gc
import logging
import weakref

import extent
import keras
import numpy as np
import pytest
import scipy.linalg
from autodiff import gradients
from helpers import BACKEND, in_turn
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.operators import symbol_blocks
from keras_adjoint.operators.symbol import grids_of
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution, Window

# Kernels at sizes of at least 4 (taps − 1), where the zeros at the edge take little off the norm.
KERNELS = {
    "3x3": (layers.Conv2D, (9, 10, 3), {"filters": 5, "kernel_size": 3, "padding": "same"}),
    "3x3, valid": (layers.Conv2D, (12, 10, 3), {"filters": 5, "kernel_size": 3}),
    "5x4, stride 2": (
        layers.Conv2D,
        (16, 14, 3),
        {"filters": 4, "kernel_size": (5, 4), "strides": 2, "padding": "same"},
    ),
    "7x7, stride 3": (layers.Conv2D, (24, 24, 2), {"filters": 4, "kernel_size": 7, "strides": 3}),
    "2x2, stride 2": (layers.Conv2D, (8, 8, 3), {"filters": 4, "kernel_size": 2, "strides": 2}),
    "1x1": (layers.Conv2D, (4, 4, 3), {"filters": 5, "kernel_size": 1}),
    "1x1, stride 2": (layers.Conv2D, (5, 5, 3), {"filters": 5, "kernel_size": 1, "strides": 2}),
    "dilated": (layers.Conv2D, (24, 24, 2), {"filters": 3, "kernel_size": 3, "dilation_rate": 3, "padding": "same"}),
    "grouped": (layers.Conv2D, (9, 9, 6), {"filters": 9, "kernel_size": 3, "groups": 3, "padding": "same"}),
    "causal": (layers.Conv1D, (20, 3), {"filters": 4, "kernel_size": 5, "padding": "causal"}),
    "causal, dilated": (
        layers.Conv1D,
        (40, 3),
        {"filters": 4, "kernel_size": 5, "padding": "causal", "dilation_rate": 2},
    ),
    "long": (layers.Conv1D, (200, 3), {"filters": 4, "kernel_size": 5, "padding": "same"}),
    "3x3x3": (layers.Conv3D, (8, 8, 8, 1), {"filters": 2, "kernel_size": 3, "padding": "same"}),
    "transposed": (
        layers.Conv2DTranspose,
        (7, 7, 3),
        {"filters": 2, "kernel_size": 4, "strides": 2, "padding": "same"},
    ),
    "transposed, valid": (layers.Conv1DTranspose, (12, 3), {"filters": 2, "kernel_size": 5, "strides": 3}),
    "depthwise": (layers.DepthwiseConv2D, (10, 10, 3), {"kernel_size": 3, "strides": 2, "depth_multiplier": 2}),
    "separable": (layers.SeparableConv2D, (9, 9, 3), {"filters": 4, "kernel_size": 3, "padding": "same"}),
    "dense": (layers.Dense, (30,), {"units": 20}),
    "einsum": (layers.EinsumDense, (3, 5), {"equation": "abc,bcd->abd", "output_shape": (3, 4)}),
    "average pooling": (layers.AveragePooling2D, (8, 9, 2), {"pool_size": 3, "strides": 2, "padding": "same"}),
    "upsampling": (layers.UpSampling2D, (5, 6, 2), {"size": 2, "interpolation": "bilinear"}),
    "normalisation": (layers.BatchNormalization, (4, 3), {}),
}
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (1, 2))]


def layer_of(name, seed=0, *, positive=False):
    layer_class, shape, options = KERNELS[name]
    layer = layer_class(**options)
    layer.build((None, *shape))
    generator = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        value = generator.standard_normal(weight.shape)
        weight.assign(np.abs(value) if positive else value)
    return layer


def longest(matrix):
    """The norm of a matrix of float64: quicker than by all of its singular values, and as exact."""
    gram = min(matrix @ matrix.T, matrix.T @ matrix, key=len)
    return np.sqrt(scipy.linalg.eigh(gram, eigvals_only=True, subset_by_index=[len(gram) - 1] * 2)[0])


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


@pytest.mark.any_backend
@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_are_above_the_norm_and_close(seed):
    ratios = {}
    for name in KERNELS:
        for positive in (False, True):
            operator = ka.operator(layer_of(name, seed, positive=positive))
            largest = longest(operator.to_matrix().astype("float64"))
            ratios[name, positive] = number(operator.bound()) / largest
    assert min(ratios.values()) >= 1, ratios
    assert max(ratios.values()) <= 1.3 and np.exp(np.mean(np.log(list(ratios.values())))) <= 1.1, ratios


@pytest.mark.any_backend
def test_bounds_hold_for_small_and_odd_geometries():
    generator = np.random.default_rng(0)
    for _ in range(60):
        taps, stride, dilation = (int(one) for one in generator.integers(1, 5, 3))
        padding = str(generator.choice(["valid", "same", "causal"]))
        size = int(generator.integers((taps - 1) * dilation + 1, 14))
        window = Window(taps, stride, dilation, padding)
        axis = window.at(size)
        kernel = generator.standard_normal((taps, 2, 3))
        matrix = np.zeros((axis.outputs, 3, size, 2))
        for j in range(axis.outputs):
            for t in range(taps):
                position = j * stride + t * dilation - axis.pad_before
                if 0 <= position < size:
                    matrix[j, :, position, :] += kernel[t].T
        from keras_adjoint.operators.convolution_bound import convolution_bound

        bound = number(convolution_bound(ops.convert_to_tensor(kernel, "float32"), Convolution((axis,))))
        assert bound >= np.linalg.norm(matrix.reshape(axis.outputs * 3, size * 2), 2), (window, size)


@pytest.mark.any_backend
def test_the_coarse_grid_is_below_its_factor_of_the_finest():
    """The factor of Ehlich and Zeller, on polynomials that peak between the points."""
    grid = grids_of(Convolution((Window(4).at(10**6),)))[0]
    fine = np.exp(1j * np.outer(np.linspace(0, 2 * np.pi, 10**4), np.arange(4)))
    assert 1 < grid.factor() < 1.01
    for seed in range(200):
        kernel = np.random.default_rng(seed).standard_normal(4)
        largest = np.abs(np.exp(1j * grid.values @ grid.steps) @ kernel).max() * np.sqrt(grid.factor())
        assert np.abs(fine @ kernel).max() <= largest


LARGE = {
    "stride": (layers.Conv1D, (300, 3), {"filters": 4, "kernel_size": 5, "strides": 2, "padding": "same"}),
    "more inputs": (layers.Conv1D, (150, 5), {"filters": 3, "kernel_size": 3}),
    "dilated, causal": (
        layers.Conv1D,
        (200, 2),
        {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
    ),
    "stride, grouped": (layers.Conv1D, (300, 4), {"filters": 6, "kernel_size": 6, "strides": 3, "groups": 2}),
    "transposed": (layers.Conv1DTranspose, (150, 3), {"filters": 4, "kernel_size": 5, "strides": 2}),
    "depthwise": (layers.DepthwiseConv1D, (150, 4), {"kernel_size": 3, "depth_multiplier": 2}),
    "separable": (layers.SeparableConv1D, (150, 3), {"filters": 4, "kernel_size": 3, "padding": "same"}),
    "2-D, coarse along one axis": (layers.Conv2D, (50, 12, 2), {"filters": 3, "kernel_size": 2, "padding": "same"}),
}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "positive", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["signed", "positive"]
)
def test_large_convolutions_lengthen_a_plane_wave_nearly_most_and_have_a_close_bound(monkeypatch, positive):
    for name, each in LARGE.items():
        monkeypatch.setitem(KERNELS, name, each)
        operator = ka.operator(layer_of(name, positive=positive))
        matrix = operator.to_matrix().astype("float64")
        largest = longest(matrix)
        for one in (operator, operator.T):
            row, bound = one.near_maximum()
            found = np.linalg.norm(ops.convert_to_numpy(one.apply_to_rows(row / ops.norm(row))))
            assert 0.98 * largest <= found <= 1.00001 * largest, name
            assert 0.99999 <= number(bound) / largest <= 1.02, name
        assert 0.999 <= number(operator.norm()) / largest <= 1.00001, name


@pytest.mark.parametrize(*("name", in_turn(["5x4, stride 2", "dense", "average pooling", "1x1, stride 2"])))
def test_norms_are_those_of_the_matrix(name):
    operator = ka.operator(layer_of(name))
    largest = np.linalg.norm(operator.to_matrix().astype("float64"), 2)
    assert (1 - 1e-3) * largest <= number(operator.norm()) <= (1 + 1e-6) * largest


def test_a_norm_follows_the_kernel_without_being_compiled_again():
    layer = layer_of("dense")
    operator = ka.operator(layer)
    before = number(operator.norm(tolerance=0.01))
    compiled = dict(operator.T.functions)
    assert compiled
    layer.kernel.assign(3 * layer.kernel)
    assert number(operator.norm(tolerance=0.01)) == pytest.approx(3 * before, rel=1e-5)
    assert operator.T.functions == compiled


@pytest.mark.parametrize("measure", ["norm", "bound"])
def test_derivatives_by_the_kernel_are_the_quotients_of_differences(measure):
    layer = layer_of("causal")
    operator = ka.operator(layer)
    kernel = ops.convert_to_numpy(layer.kernel)
    direction = kernel + np.random.default_rng(1).standard_normal(kernel.shape).astype("float32")

    def at(step):
        layer.kernel.assign(kernel + step * direction)
        return number(getattr(operator, measure)())

    expected = (at(1e-2) - at(-1e-2)) / 2e-2
    layer.kernel.assign(kernel)
    assert np.sum(gradient(layer, getattr(operator, measure)) * direction) == pytest.approx(expected, rel=2e-3)


def gradient(layer, function):
    """The derivative of a function without arguments by the kernel of a layer."""
    if BACKEND == "jax":
        import jax

        def of_kernel(kernel):
            with keras.StatelessScope(state_mapping=[(layer.kernel, kernel)]):
                return function()

        return np.asarray(jax.jit(jax.grad(of_kernel))(layer.kernel.value))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            found = function()
        return tape.gradient(found, layer.kernel.value).numpy()
    layer.kernel.value.grad = None
    function().backward()
    return layer.kernel.value.grad.numpy()


@pytest.mark.any_backend
def test_singular_values_and_vectors_are_those_of_the_matrix(monkeypatch):
    from keras_adjoint.operators import scipy_bridge

    operator = ka.operator(layer_of("3x3"))
    expected = np.linalg.svd(operator.to_matrix().astype("float64"), compute_uv=False)
    np.testing.assert_allclose(operator.singular_values(3), expected[:3], rtol=1e-5)
    np.testing.assert_allclose(operator.singular_values(3, which="smallest"), expected[::-1][:3], rtol=1e-3)
    assert operator.condition() == pytest.approx(expected[0] / expected[-1], rel=1e-3)
    monkeypatch.setattr(scipy_bridge, "DENSE_SIDE", 4)
    left, values, right = operator.singular_values(2, vectors=True)
    np.testing.assert_allclose(values, expected[:2], rtol=1e-5)
    found = ops.convert_to_numpy(operator @ right)
    np.testing.assert_allclose(found, values[:, None, None, None] * left, atol=1e-4 * values[0])
    with pytest.raises(ka.KerasAdjointError, match="do not converge"):
        operator.singular_values(which="smallest")


@pytest.mark.any_backend
def test_scipy_takes_the_operator_for_its_matrix():
    operator = ka.operator(layer_of("5x4, stride 2"))
    matrix, linear = operator.to_matrix(), operator.to_scipy()
    x = np.random.default_rng(0).standard_normal((matrix.shape[1], 2))
    np.testing.assert_allclose(linear @ x, matrix @ x, atol=1e-4)
    np.testing.assert_allclose(linear.T @ (matrix @ x), matrix.T @ matrix @ x, atol=1e-3)
    assert linear.shape == operator.shape and linear.dtype == "float32"
    np.testing.assert_allclose(linear @ (x[:, 0] + 1j * x[:, 1]), matrix @ (x[:, 0] + 1j * x[:, 1]), atol=1e-4)
    assert (linear @ x[:, :0]).shape == (matrix.shape[0], 0)


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
@pytest.mark.parametrize("constant", [False, True], ids=["random", "all rounded upwards"])
def test_nothing_is_lengthened_beyond_the_bound_in_half_precision(dtype, constant):
    above = 1 + np.nextafter(np.float32(0.5), 1) * (2**-7 if "bfloat16" in dtype else 2**-10)
    for layer, shape in (
        (layers.Dense(8, dtype=dtype), (8,)),
        (layers.Conv1D(3, 3, dtype=dtype), (9, 2)),
        (layers.SeparableConv1D(3, 3, dtype=dtype), (9, 2)),
    ):
        layer.build((None, *shape))
        for weight in layer.trainable_weights if constant else ():
            weight.assign(ops.full(weight.shape, above))
        operator, wrapped = ka.operator(layer), ka.Lipschitz(layer, constant=0.5)
        right = operator.singular_values(1, vectors=True)[2]
        wrapped(right)
        x = ops.convert_to_tensor(right)
        for y, most in ((operator(x), number(operator.bound())), (wrapped(x) - wrapped(0 * x), 0.5)):
            found = np.linalg.norm(ops.convert_to_numpy(ops.cast(y, "float32")))
            assert found <= most * np.linalg.norm(right), (layer, most)
        assert number(operator.norm()) <= 1.02 * number(operator.bound())


def models():
    """Linear models whose calls are bounded in every way there is."""
    x = keras.Input((8, 3))
    yield keras.Model(x, layers.Multiply()([layers.Dense(2)(x), np.full((1, 8, 2), 3.0, "float32")]))  # constants
    yield keras.Model(x, [2.0 * x[:, ::3], ops.split(x, 2, axis=1)[1] + ops.split(x, 2, axis=1)[0]])  # operations
    yield keras.Model(x, layers.Lambda(lambda x: x[:, 1:] - x[:, :-1])(x))
    row = keras.Input((1, 3))
    yield keras.Model([x, row], x - row)  # which is broadcast
    inner = keras.Sequential([x, layers.Conv1D(4, 3, strides=2), layers.Reshape((12,))])
    steps = keras.Input((2, 8, 3))
    yield keras.Model(steps, layers.TimeDistributed(inner)(steps))
    yield ka.mirror(inner, bias="none")  # adjoints that are called with a size
    yield ka.adjoint(inner)


@pytest.mark.any_backend
def test_bounds_of_models_hold_whatever_they_call():
    activated = keras.Sequential(
        [keras.Input((8, 3)), layers.Conv1D(4, 3, activation="relu"), layers.ReLU(), layers.Dense(2)]
    )
    for operator in [ka.operator(activated, linear_part=True), *map(ka.operator, models())]:
        largest = np.linalg.norm(operator.to_matrix().astype("float64"), 2)
        for each in (operator, operator.T):
            assert largest <= number(each.bound()) <= 4 * largest, operator


@pytest.mark.any_backend
def test_a_call_without_a_rule_whose_matrix_is_large_has_no_bound():
    x = keras.Input((3000,))
    with pytest.raises(ka.NoRuleError, match="too large.*Received: a call of type Lambda"):
        ka.operator(keras.Model(x, layers.Lambda(lambda x: -x)(x))).bound()


@pytest.mark.any_backend
def test_a_strided_convolution_is_bounded_by_the_phases_that_it_reads(monkeypatch):
    sizes = []
    measure = symbol_blocks.largest_eigenvalue_bound
    monkeypatch.setattr(
        symbol_blocks,
        "largest_eigenvalue_bound",
        lambda real, *imaginary: (sizes.append((real.shape, *imaginary)), measure(real, *imaginary))[1],
    )
    layer = layers.Conv2D(7, 1, strides=3)
    layer.build((None, 9, 9, 2))
    kernel = ops.convert_to_numpy(layer.kernel)[0, 0]
    assert number(ka.operator(layer).bound()) == pytest.approx(np.linalg.norm(kernel, 2), rel=5e-3)
    assert sizes == [((1, 1, 2, 2), None)]  # not 18 by 18, and real


@pytest.mark.any_backend
def test_the_grid_of_a_stride_without_limit_is_that_of_one_as_long_as_the_kernel():
    [long], [short] = (grids_of(Convolution((Window(3, stride).at(8),))) for stride in (10**18, 8))
    np.testing.assert_array_equal(long.is_at_phase, short.is_at_phase)
    np.testing.assert_array_equal(long.values, short.values)


@pytest.mark.any_backend
@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_bounds_neither_overflow_nor_vanish(scale):
    for name in ("causal", "dense"):
        layer = layer_of(name)
        operator = ka.operator(layer)
        before = number(operator.bound())
        layer.kernel.assign(scale * layer.kernel)
        assert number(operator.bound()) == pytest.approx(scale * before, rel=1e-5)


@pytest.mark.any_backend
def test_an_adjoint_of_a_class_derived_from_ours_has_the_same_bound():
    from keras_adjoint.layers.conv import AdjointConv

    conv = layer_of("5x4, stride 2")
    derived = type("Derived", (AdjointConv,), {})(conv)
    assert number(ka.operator(derived).bound()) == pytest.approx(number(ka.operator(conv).bound()), rel=1e-6)


@pytest.mark.parametrize(("rows", "columns"), in_turn([(5, 5), (20, 30), (64, 64)], always=["torch"]))
def test_norms_of_low_rank_are_found_from_every_start_and_at_every_scale(rows, columns):
    """What is left of the vectors behind the last one is rounding, and may not count."""
    layer = layers.Dense(columns, use_bias=False)
    layer.build((None, rows))
    operator = ka.operator(layer)
    largest = np.sqrt(rows * columns)
    for scale in (1, 1e-22, 1e20):
        layer.kernel.assign(np.full((rows, columns), scale, "float32"))
        for seed in range(12):
            assert number(operator.norm(seed=seed)) == pytest.approx(scale * largest, rel=1e-5)
        assert 1 <= number(operator.bound()) / (scale * largest) <= 1.01


@pytest.mark.parametrize(("size", "kept"), in_turn([(200, True), (3000, True), (300, False)], always=["torch"]))
def test_an_isolated_singular_value_is_found_from_every_start(size, kept, monkeypatch):
    """Where the others are equal, the vectors end after two steps, and may have missed it."""
    from keras_adjoint.operators import lanczos

    monkeypatch.setattr(lanczos, "MOST_NUMBERS", 2**25 if kept else 0)
    for top in (1.0015, 1.05):
        layer = layers.Rescaling([top] + [1.0] * (size - 1))
        layer.build((None, size))
        operator = ka.operator(layer, size=(size,))
        seeds = range(8 if extent.EXHAUSTIVE else 3)
        assert [number(operator.norm(seed=seed)) for seed in seeds] == pytest.approx([top] * len(seeds), rel=1e-5)


@pytest.mark.parametrize("floatx", in_turn(["float64", "float32", "bfloat16"], always=["torch"]))
def test_operators_whose_vectors_end_early_have_the_norm_also_where_they_are_not_kept(floatx, monkeypatch):
    """As of large identities and of up-sampling, of which every vector is a singular one; whatever `floatx` is."""
    from keras_adjoint.operators import lanczos

    monkeypatch.setattr(lanczos, "MOST_NUMBERS", 0)
    keras.config.set_floatx(floatx)
    upsampling = ka.operator(layers.UpSampling1D(4, dtype="float32"), size=(50, 3))
    for operator, norm in ((ka.identity((40, 30)), 1), (upsampling, 2)):
        assert [number(operator.norm(seed=seed)) for seed in range(3)] == pytest.approx([norm] * 3, rel=1e-5)


@pytest.mark.any_backend
def test_vectors_that_are_computed_twice_give_the_same_norm(monkeypatch):
    from keras_adjoint.operators import lanczos

    monkeypatch.setattr(lanczos, "MOST_NUMBERS", 0)
    operator = ka.operator(layer_of("3x3"))
    largest = np.linalg.norm(operator.to_matrix().astype("float64"), 2)
    for seed in range(5):
        assert (1 - 1e-3) * largest <= number(operator.norm(seed=seed)) <= (1 + 1e-6) * largest


def test_a_norm_is_not_above_the_bound_by_rounding():
    layer = layers.Permute((3, 1, 2))
    layer.build((None, 7, 5, 2))
    operator = ka.operator(layer, size=(7, 5, 2))
    norms = [number(operator.norm(seed=seed)) for seed in range(8)]
    assert 1 - 1e-5 < min(norms) <= max(norms) <= 1.0 <= number(operator.bound())


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["dense", "causal", "depthwise", "einsum"])
def test_an_infinite_kernel_has_an_infinite_bound_and_no_norm(name):
    layer = layer_of(name)
    kernel = ops.convert_to_numpy(layer.weights[0]).copy()
    kernel.flat[1] = np.inf
    layer.weights[0].assign(kernel)
    operator = ka.operator(layer)
    assert np.isinf(number(operator.bound())) and np.isnan(number(operator.norm()))


class Adding:
    """A number that is added, whose methods TensorFlow compiles."""

    def __init__(self, number):
        self.number = number

    def apply(self, x):
        return x + self.number


@pytest.mark.only_on("tensorflow")
def test_compiling_a_method_of_many_objects_does_not_warn_of_retracing(monkeypatch):
    warnings = []
    monkeypatch.setattr(logging.getLogger("tensorflow"), "warning", lambda *args, **_: warnings.append(args))
    for each in range(9):
        current().compiled(Adding(each).apply)(ops.ones((2,)))
    assert not [each for each in warnings if "retracing" in str(each)]


@pytest.mark.any_backend
def test_what_is_no_number_has_no_norm():
    layer = layer_of("dense")
    operator = ka.operator(layer)
    layer.kernel.assign(0 * layer.kernel)
    assert number(operator.norm()) == 0
    layer.kernel.assign(np.full(layer.kernel.shape, np.nan))
    assert np.isnan(number(operator.norm())) and np.isnan(number(operator.bound()))
    with pytest.raises(ka.KerasAdjointError, match="no singular values"):
        operator.condition()


def test_norm_of_a_multiple_is_differentiable_by_the_scalar():
    dense = layers.Dense(3)
    dense.build((None, 4))
    operator = ka.operator(dense)
    (slope,) = gradients(lambda c: (c * operator).norm(), [ops.convert_to_tensor(2.0)])
    np.testing.assert_allclose(slope, ops.convert_to_numpy(operator.norm()), rtol=1e-3)


@pytest.mark.in_turn("torch", "jax")  # TensorFlow keeps what it traced a method for
def test_operator_is_freed_with_what_was_compiled_for_it():
    dense = layers.Dense(3)
    dense.build((None, 4))
    operator = ka.operator(dense)
    operator.norm()
    freed = weakref.ref(operator)
    del operator
    gc.collect()
    assert freed() is None
