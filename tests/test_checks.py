"""The adjoint test: what passes, what fails, and the diagnosis of every known mistake."""

import re

import keras
import numpy as np
import pytest
from keras import ops
from layer_list import HALF, LAYERS, ONE_OF_EACH_FAMILY, for_each

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint as adjoint_of_linear_part
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.dot_test import derived_tolerance

L = keras.layers
SHAPE = (1, 12, 12, 4)


def convolution(**options):
    conv = L.Conv2D(4, 3, padding="same", use_bias=False, **options)
    conv.build(SHAPE)
    return conv


def transposed(conv, kernel=None, **options):
    layer = L.Conv2DTranspose(4, 3, padding="same", use_bias=options.pop("use_bias", False), **options)
    layer.build(SHAPE)
    layer.kernel.assign(conv.kernel if kernel is None else kernel)
    return layer


@for_each([case for case in LAYERS if case.runs_itself], quick=HALF)
def test_every_layer_passes_against_its_own_adjoint(case):
    layer = case.build("float32")
    report = ka.check_adjoint(layer)
    assert report, report
    shapes = [shape[1:] for shape in report.input_shape] if case.merges else report.input_shape[1:]
    assert shapes == (case.shape if case.merges else case.input_shape) and report.dtype == "float32"


@for_each([case for case in ONE_OF_EACH_FAMILY if case.runs_itself])
def test_every_adjoint_passes_against_its_own_source(case):
    layer = case.build("float32")
    adjoint = case.adjoint(layer)
    known = (
        {} if isinstance(adjoint, Tied) else {"input_shape": (2, *layer.output.shape[1:])}
    )  # stock layers record none
    report = ka.check_adjoint(adjoint, **known)
    assert report, report


def kernel_of(conv):
    return ops.convert_to_numpy(conv.kernel)


WRONG_LAYERS = {
    "H and W swapped": lambda conv: transposed(conv, kernel_of(conv).swapaxes(0, 1)),
    "kernel flipped": lambda conv: transposed(conv, kernel_of(conv)[::-1, ::-1]),
    "channels swapped": lambda conv: transposed(conv, kernel_of(conv).swapaxes(2, 3)),
    "kernel flipped and channels swapped": lambda conv: transposed(conv, kernel_of(conv)[::-1, ::-1].swapaxes(2, 3)),
    "stale kernel": lambda conv: transposed(conv, kernel_of(conv) * np.random.default_rng(0).normal(size=(3, 3, 4, 4))),
    "scaled by a constant: B is 2 times": lambda conv: transposed(conv, 2 * kernel_of(conv)),
    "wrong size: B returns .1, 24, 24, 4. where x has .1, 12, 12, 4.": lambda conv: transposed(conv, strides=2),
    "bias left in: B": lambda conv: transposed(conv, use_bias=True, bias_initializer="ones"),
    "activation left in, .*: B": lambda conv: transposed(conv, activation="relu"),
}


def assign_bias(layer):
    if getattr(layer, "bias", None) is not None:
        layer.bias.assign(ops.ones(layer.bias.shape))
    return layer


@pytest.mark.parametrize("diagnosis", WRONG_LAYERS)
def test_wrong_layer_fails_and_the_mistake_is_named(diagnosis):
    conv = convolution()
    report = ka.check_adjoint(conv, assign_bias(WRONG_LAYERS[diagnosis](conv)))
    assert not report
    assert re.search(diagnosis, report.diagnosis), report.diagnosis


def test_raw_kernel_in_another_convolution_is_named():
    """The question this library started from: the same kernel in another `Conv2D` is not its transpose."""
    conv, other = convolution(), convolution()
    other.kernel.assign(conv.kernel)
    assert "kernel flipped and channels swapped" in ka.check_adjoint(conv, other).diagnosis
    other.kernel.assign(ka.transpose_kernel(kernel_of(conv), "conv"))
    assert ka.check_adjoint(conv, other)


def test_a_diagnosis_says_what_to_do():
    conv, other = convolution(), convolution()
    other.kernel.assign(conv.kernel)
    assert "In B's kernel flip the spatial axes and swap the channels" in ka.check_adjoint(conv, other).diagnosis
    dense, copy = L.Dense(6, use_bias=False), L.Dense(6, use_bias=False)
    for layer in (dense, copy):
        layer.build((None, 6))
    copy.kernel.assign(dense.kernel)
    assert ka.check_adjoint(dense, copy).diagnosis.startswith("not transposed")
    matrix = dense.get_weights()[0]
    report = ka.check_adjoint(lambda x: np.asarray(x) @ matrix, lambda y: np.asarray(y) @ matrix, input_shape=(2, 6))
    assert report.diagnosis.startswith("not transposed")


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_numpy_arrays_are_operators(dtype):
    matrix = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)

    def forward(x):
        return np.asarray(x) @ matrix

    def backward(y):
        return np.asarray(y) @ matrix.T

    assert ka.check_adjoint(forward, backward, input_shape=(2, 5))
    assert (
        "scaled by a constant: B is 3"
        in ka.check_adjoint(forward, lambda y: 3 * backward(y), input_shape=(2, 5)).diagnosis
    )

    other = ka.check_adjoint(forward, lambda y: backward(y)[:, ::-1], input_shape=(2, 5))
    assert not other and "kernel" not in other.diagnosis

    def both(x):
        return [forward(x), -forward(x)]

    assert ka.check_adjoint(both, lambda ys: backward(ys[0]) - backward(ys[1]), input_shape=(2, 5))


def as_functions(conv, kernel):
    """The same two operators, but as functions, whose kernels cannot be read."""
    layer = transposed(conv, kernel)
    return (lambda x: conv(x)), (lambda y: layer(y))


WRONG_FUNCTIONS = {
    "H and W swapped": lambda k: k.swapaxes(0, 1),
    "kernel flipped": lambda k: k[::-1, ::-1],
    "channels swapped": lambda k: k.swapaxes(2, 3),
    "scaled by a constant: B is -0.5 times": lambda k: -0.5 * k,
}


@pytest.mark.parametrize("diagnosis", WRONG_FUNCTIONS)
def test_wrong_function_fails_and_the_mistake_is_named(diagnosis):
    conv = convolution()
    forward, backward = as_functions(conv, WRONG_FUNCTIONS[diagnosis](kernel_of(conv)))
    report = ka.check_adjoint(forward, backward, input_shape=SHAPE)
    assert not report and diagnosis in report.diagnosis, report.diagnosis


@pytest.mark.parametrize(
    "shift, named", [((1, 0), r"\+1 along axis 1"), ((-2, 1), r"-2 along axis 1, \+1 along axis 2")]
)
def test_shift_is_named_with_its_pixels_and_axis(shift, named):
    conv = convolution()
    layer = ka.adjoint(conv)

    def shifted(y):
        return ops.roll(layer(y), shift, axis=(1, 2))

    report = ka.check_adjoint(conv, shifted)
    assert not report
    assert re.search("shifted by pixels: " + named, report.diagnosis), report.diagnosis


def test_bias_or_activation_left_in_the_forward_function_is_named():
    conv = convolution()
    layer = ka.adjoint(conv)
    biased = ka.check_adjoint(lambda x: conv(x) + 1.0, layer, input_shape=SHAPE)
    bent = ka.check_adjoint(lambda x: ops.relu(conv(x)), layer, input_shape=SHAPE)
    assert (
        "bias left in: A" in biased.diagnosis
        and "activation left in, or another function that is not linear: A" in bent.diagnosis
    )


ROUNDED = {
    "cast": (lambda x: ops.cast(x, "int32"), "rounded to integers: A"),
    "rounding": (lambda x: ops.round(x), "rounded to integers: A"),
    "rounding to tenths": (lambda x: ops.round(10.0 * x) / 10.0, "not linear: A"),
    "cube": (lambda x: x**3, "not linear: A"),
    "tanh": (lambda x: ops.tanh(x), "not linear: A"),
    "sorting": (lambda x: ops.sort(x, axis=-1), "not linear: A"),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 4)])
@pytest.mark.parametrize("name", ROUNDED)
def test_what_is_not_linear_is_called_that_and_no_kernel_is_blamed(name, shape):
    function, diagnosis = ROUNDED[name]
    report = ka.check_adjoint(function, lambda y: y, input_shape=shape)
    assert not report and diagnosis in report.diagnosis, report.diagnosis
    report = ka.check_adjoint(lambda x: x, function, input_shape=shape)
    assert not report and diagnosis.replace(": A", ": B") in report.diagnosis, report.diagnosis


def test_quantised_layer_is_said_to_be_linear_up_to_its_rounding():
    dense = L.Dense(4)
    dense.build((3, 6))
    dense.quantize("int8")
    assert "quantised: `dense" in ka.check_adjoint(dense, input_shape=(3, 6)).diagnosis


def test_unknown_mistake_is_called_that():
    conv = convolution()
    report = ka.check_adjoint(lambda x: conv(x), lambda y: ops.flip(y, axis=-1), input_shape=SHAPE)
    assert "no known mistake" in report.diagnosis


def test_bias_and_activation_of_a_forward_layer_do_not_count():
    conv = L.Conv2D(4, 3, padding="same", activation="relu", bias_initializer="ones")
    conv.build(SHAPE)
    assert ka.check_adjoint(conv)
    assert conv.activation is keras.activations.relu


def test_pairs_of_models_and_functions_are_checked():
    dense = keras.Sequential([keras.Input((6,)), L.Dense(4, use_bias=False)])
    back = keras.Sequential([keras.Input((4,)), L.Dense(6, use_bias=False)])
    back.layers[0].kernel.assign(ops.transpose(dense.layers[0].kernel))
    assert ka.check_adjoint(dense, back)

    def sum_up(x):
        return ops.cumsum(x, axis=1)

    def sum_down(y):
        return ops.flip(ops.cumsum(ops.flip(y, axis=1), axis=1), axis=1)

    assert ka.check_adjoint(sum_up, sum_down, input_shape=(2, 9))
    assert not ka.check_adjoint(sum_up, sum_up, input_shape=(2, 9))


def test_report_reads_as_a_sentence():
    conv = convolution(name="conv")
    good, bad = ka.check_adjoint(conv), ka.check_adjoint(conv, transposed(conv, kernel_of(conv) * 2, name="back"))
    assert str(good).startswith("conv_adjoint") and "is the adjoint of conv: residual " in str(good)
    assert str(bad).startswith("back is not the adjoint of conv: residual")
    assert str(bad).endswith("Diagnosis: scaled by a constant: B is 2 times the adjoint")
    assert bool(good) is True and bool(bad) is False


def test_report_says_where_only_the_linear_part_counts():
    linear, relu = convolution(name="linear"), convolution(name="conv", activation="relu")
    other = transposed(relu, activation="relu", name="other")  # whose activation does count
    assert "of linear: " in str(ka.check_adjoint(linear))
    assert "is the adjoint of the linear part of conv: " in str(ka.check_adjoint(relu))
    assert str(ka.check_adjoint(relu, other)).startswith("other is not the adjoint of the linear part of conv: ")
    back = adjoint_of_linear_part(relu)
    assert str(ka.check_adjoint(back)).startswith("the linear part of conv is the adjoint of ")


def test_assert_adjoint_raises_with_the_report():
    conv = convolution()
    assert ka.assert_adjoint(conv).passed
    with pytest.raises(AssertionError, match="is not the adjoint .*\nDiagnosis: scaled"):
        ka.assert_adjoint(conv, transposed(conv, kernel_of(conv) * 2))


def test_same_seed_gives_the_same_residual_and_another_seed_another():
    conv = convolution()
    first, again, other = (ka.check_adjoint(conv, seed=seed).residual for seed in (0, 0, 1))
    assert first == again != other


def test_unknown_input_shape_is_asked_for():
    with pytest.raises(ValueError, match="Pass it as `input_shape`.*Received: forward=.*input_shape=None"):
        ka.check_adjoint(lambda x: x, lambda y: y)


@pytest.mark.parametrize(
    "make",
    [np.array, list, lambda shape: tuple(map(np.int64, shape)), ops.convert_to_tensor],
    ids=["array", "list", "integers of NumPy", "tensor"],
)
def test_the_input_shape_may_be_an_array_or_have_integers_of_any_type(make):
    dense = keras.layers.Dense(3)
    dense(keras.Input((4,)))
    assert ka.check_adjoint(dense, input_shape=make((2, 4))).input_shape == (2, 4)


NO_SHAPES = [b"ab", "24", np.array([2.0, 4.0]), np.zeros((2, 2)), [], {}, 4, (2, 0), keras.Input((4,))]


@pytest.mark.parametrize("shape", NO_SHAPES, ids=range(len(NO_SHAPES)))
def test_what_is_no_input_shape_is_refused(shape):
    dense = keras.layers.Dense(3)
    dense(keras.Input((4,)))
    with pytest.raises(
        ValueError, match=r"(?s)`input_shape` must be a shape of positive sizes.*Received: input_shape="
    ):
        ka.check_adjoint(dense, input_shape=shape)


class FromNames(keras.layers.Layer):
    def call(self, x):
        return x["left"] - x["right"]


ONE, LEFT, RIGHT = (keras.Input((4,), name=name) for name in ("one", "left", "right"))
OTHER_STRUCTURES = {
    "other name for one tensor": (keras.layers.Dense, ONE, {"other": (2, 4)}, "1 tensor, so .* one shape"),
    "two for one tensor": (keras.layers.Dense, ONE, [(2, 4)] * 2, "1 tensor, so .* one shape"),
    "one for two tensors": (keras.layers.Add, [LEFT, RIGHT], (2, 4), "2 tensors, so .* a list of 2 shapes"),
    "three for two tensors": (keras.layers.Add, [LEFT, RIGHT], [(2, 4)] * 3, "2 tensors, so .* a list of 2 shapes"),
    "other names": (
        FromNames,
        {"left": LEFT, "right": RIGHT},
        {"up": (2, 4)},
        "2 tensors, so .* a dictionary .* 'left', 'right'",
    ),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", OTHER_STRUCTURES)
def test_shapes_in_another_structure_than_that_of_the_inputs_are_refused(name):
    layer_class, inputs, given, message = OTHER_STRUCTURES[name]
    layer = layer_class(3) if layer_class is keras.layers.Dense else layer_class()
    for operator in (layer, keras.Model(inputs, layer(inputs))):
        with pytest.raises(ValueError, match=rf"takes {message}, batch axis included. Received: input_shape="):
            ka.check_adjoint(operator, input_shape=given)


@pytest.mark.any_backend
def test_a_layer_of_one_tensor_takes_no_list_of_shapes_and_a_model_does():
    layer = keras.layers.Dense(3)
    model = keras.Model(ONE, layer(ONE))
    assert ka.check_adjoint(model, input_shape=[(2, 4)]) and ka.check_adjoint(model, input_shape={"one": (2, 4)})
    with pytest.raises(ValueError, match=r"takes 1 tensor, so .* one shape, .*Received: input_shape=\[\(2, 4\)\]"):
        ka.check_adjoint(layer, input_shape=[(2, 4)])


class Nested(keras.layers.Layer):
    def call(self, x):
        first, others = x
        return first - 2.0 * others["second"]


STRUCTURES = {
    "dictionary": (FromNames, {"left": LEFT, "right": RIGHT}),
    "list": (keras.layers.Subtract, [LEFT, RIGHT]),
    "nested": (Nested, (LEFT, {"second": RIGHT})),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_layer_that_was_called_is_checked_in_the_structure_of_its_call(name):
    layer_class, inputs = STRUCTURES[name]
    layer = layer_class()
    layer(inputs)
    report = ka.check_adjoint(layer)
    assert report and [shape[1:] for shape in report.input_shape] == [(4,), (4,)]


def test_tolerance_separates_rounding_from_wrong_operators_at_every_size():
    """Right operators stay below the tolerance, and a wrong one of random entries scores about 1 / √outputs, far above."""
    for dtype in ("bfloat16", "float16", "float32", "float64"):
        for inputs, outputs in ((10, 10), (1_000, 4_000), (10**6, 10**5)):
            assert derived_tolerance(dtype, inputs, outputs) < 0.2 / np.sqrt(outputs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_residual_of_right_operators_stays_well_below_the_tolerance(dtype):
    generator = np.random.default_rng(0)
    for size in (5, 40, 300):
        dense = L.Dense(size, use_bias=False, dtype=dtype)
        dense.build((None, 2 * size))
        dense.kernel.assign(generator.normal(size=dense.kernel.shape))
        report = ka.check_adjoint(dense, input_shape=(3, 2 * size), trials=10)
        assert report.residual < report.tolerance / 2


def cast_inside(x):
    return ops.cast(L.Dense(5)(ops.cast(x, "bfloat16")), "float32")


def half_inside_of_a_model(x):
    inner = keras.Sequential([keras.Input((6,)), L.Dense(5, dtype="float16")])
    return L.Dense(4, dtype="float32")(inner(x))


COARSER_INSIDE = {
    "a cast": cast_inside,
    "a nested model": half_inside_of_a_model,
    "a mixed policy": lambda x: L.Dense(4, dtype="float32")(L.Dense(5, dtype="mixed_bfloat16")(x)),
    "of every step": lambda x: L.Flatten()(L.TimeDistributed(L.Dense(4, dtype="bfloat16"))(L.Reshape((2, 3))(x))),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("outputs_of", COARSER_INSIDE.values(), ids=COARSER_INSIDE)
def test_tolerance_is_that_of_the_coarsest_dtype_inside(outputs_of):
    x = keras.Input((6,))
    model = keras.Model(x, outputs_of(x))
    adjoint = ka.adjoint(model)
    report = ka.check_adjoint(model, adjoint, input_shape=(64, 6))
    finest = derived_tolerance("float32", 64 * 6, 64 * model.output_shape[1])
    assert finest < report.residual <= report.tolerance
    assert not ka.check_adjoint(model, lambda y: -adjoint(y), input_shape=(64, 6))


@pytest.mark.every_backend
def test_what_keras_computes_in_single_precision_is_tested_so():
    dense = L.Dense(5, dtype="float64")  # of whose products Keras makes float32 on some backends
    dense.build((None, 6))
    assert ka.check_adjoint(dense)


@pytest.mark.only_on("torch")  # whose CPU alone has a setting for the precision of products
@pytest.mark.parametrize("setting, epsilon", [("highest", 2.0**-23), ("high", 2.0**-10), ("medium", 2.0**-7)])
def test_tolerance_follows_the_precision_that_the_backend_is_set_to(setting, epsilon):
    import torch

    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        assert derived_tolerance("float32", 100, 100) >= epsilon
        assert derived_tolerance("float32", 100, 100) == pytest.approx(epsilon + 10 * 2.0**-23)
        assert derived_tolerance("float64", 100, 100) < 1e-13
    finally:
        torch.set_float32_matmul_precision(kept)
