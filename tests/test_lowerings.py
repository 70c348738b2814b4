"""Every way to compute an adjoint convolution computes the transpose, within the memory that it may take."""

import keras
import numpy as np
import pytest
from geometries import forward_matrix, joins, kernel_shape, label, problems, random, x_shape, y_shape
from helpers import BACKEND
from keras import ops

import keras_adjoint as ka
from keras_adjoint.ops.algorithms import bilinear, native
from keras_adjoint.ops.algorithms.bilinear import kernel_gradient
from keras_adjoint.ops.algorithms.choose import ALGORITHMS, BY_NAME, candidates, choose
from keras_adjoint.ops.algorithms.cost_model import COEFFICIENTS, completed, whole_blocks
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution, Window

PROBLEMS = list(problems())
KINDS = ("sequence", "image", "volume", "dilated", "dilated sequence", "grouped", "depthwise", "strided depthwise")


def matrix_of(algorithm, problem, kernel):
    """The matrix of Aᵀ: its values on the identity basis, as columns."""
    shape = y_shape(problem)[1:]
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape).astype("float32")
    x = algorithm.apply(ops.convert_to_tensor(basis), ops.convert_to_tensor(kernel), problem.convolution)
    return ops.convert_to_numpy(x).reshape(len(basis), -1).T


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("problem", PROBLEMS, ids=label)
def test_algorithm_is_the_transpose(problem, algorithm):
    if not algorithm.fits(problem):
        pytest.skip("it says that it cannot")
    kernel = random(kernel_shape(problem), 0, "float32")
    expected = forward_matrix(problem, kernel).T
    found = matrix_of(algorithm, problem, kernel)
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * np.finfo("float32").eps * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("stride", [1, 8], ids=["outputs meet", "no outputs meet"])
@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"native"}))  # how the backend itself sums is its own affair
def test_algorithm_sums_half_precision_like_the_forward(name, stride, dtype):
    """Sums of 4096 ones: in bfloat16 a running sum stays at 256, in float16 at 2048."""
    taps = 8
    filters = 4096 // (taps // stride)
    problem = Problem(Convolution((Window(taps, stride).at(32),)), 1, 512, filters)
    algorithm = BY_NAME[name]
    if not algorithm.fits(problem):
        pytest.skip("it says that it cannot")
    kernel = ops.ones(kernel_shape(problem), dtype)
    x = algorithm.apply(ops.ones(y_shape(problem), dtype), kernel, problem.convolution)
    y = bilinear.forward(ops.ones(x_shape(problem), dtype), kernel, problem.convolution)
    assert keras.backend.standardize_dtype(x.dtype) == dtype
    off = abs(float(x[0, 16, 0]) - 4096), abs(float(y[0, 1, 0]) - taps * problem.channels)
    assert off[0] <= off[1]


@pytest.mark.skipif(BACKEND == "jax", reason="its transposed convolutions are not oneDNN's")
@pytest.mark.parametrize("dtype, trusted", [("float32", True), ("bfloat16", False)])
def test_native_is_not_trusted_where_onednn_writes_beyond_its_memory(dtype, trusted):
    """The first layer of CREPE, in bfloat16 on a processor with AMX."""
    crepe = Convolution((Window(512, 4, padding="same").at(1024),))
    assert BY_NAME["native"].fits(Problem(crepe, 16, 1, 1024, dtype=dtype)) == trusted


@pytest.mark.parametrize("algorithm", ["subpixel", "phases"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_long_depthwise_kernel_in_half_precision_comes_to_an_end(stride, algorithm):
    """oneDNN's stride-1 convolution hangs for rows of more than 14 taps and up to 16 channels."""
    convolution = Convolution((Window(32, stride).at(64),), groups=4)
    y, kernel = ops.ones((1, convolution.axes[0].outputs, 4), "bfloat16"), ops.ones((32, 1, 4), "bfloat16")
    x = BY_NAME[algorithm].apply(y, kernel, convolution)
    assert keras.backend.standardize_dtype(x.dtype) == "bfloat16"
    assert float(x[0, 31, 0]) == min(32 // stride, y.shape[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_long_sums_in_half_precision_are_left_to_products_of_matrices(dtype):
    """In the first layer of CREPE a phase sums over 2¹⁷ numbers, for which oneDNN's convolutions have a loop alone."""
    names = {way.name for way in candidates(Problem(Convolution((Window(512, 4).at(1024),)), 16, 1, 1024, dtype=dtype))}
    convolutions = names & {"native", "subpixel", "phases"}
    assert names and bool(convolutions) == (dtype == "float32" or BACKEND == "jax")


def test_where_all_sums_are_long_something_is_considered():
    assert candidates(Problem(Convolution((Window(64, 1).at(128),)), 4, 1024, 2048, dtype="bfloat16"))


@pytest.mark.parametrize("problem", PROBLEMS, ids=label)
def test_kernel_gradient_tap_by_tap_is_what_joins_x_and_y(problem):
    x, y = random((2, *x_shape(problem)[1:]), 0), random((2, *y_shape(problem)[1:]), 1)
    channels, filters = problem.group
    expected = np.zeros(kernel_shape(problem))
    for output, tap, position in joins(problem.convolution):
        for group in range(problem.convolution.groups):
            read = x[(slice(None), *position, slice(group * channels, (group + 1) * channels))]
            made = slice(group * filters, (group + 1) * filters)
            expected[(*tap, slice(None), made)] += read.T @ y[(slice(None), *output, made)]
    found = kernel_gradient(*(ops.convert_to_tensor(z, dtype="float64") for z in (x, y)), problem.convolution)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernel_gradient_tap_by_tap_sums_half_precision_exactly(dtype):
    problem = Problem(Convolution((Window(3, dilation=2).at(4100),)), 1, 4, 4)
    x, y = ops.ones(x_shape(problem), dtype), ops.ones(y_shape(problem), dtype)
    found = kernel_gradient(x, y, problem.convolution)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    assert (ops.convert_to_numpy(ops.cast(found, "float32")) == 4096).all()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others run one operation after the other, or as one loop")
@pytest.mark.parametrize("terms", ["sum_sequential", "map_sequential"])
def test_a_graph_begins_no_term_before_the_one_before_it_is_done(terms):
    import tensorflow as tf

    def run(x):
        return getattr(current(), terms)(lambda x, power: tf.exp(x) ** power, x, [(1.0,), (2.0,), (3.0,)])

    graph = tf.function(run).get_concrete_function(tf.TensorSpec((2,))).graph
    terms_of = [node for node in graph.get_operations() if node.type == "Exp"]
    waits = [node.inputs[0].op.control_inputs for node in terms_of]
    assert not waits[0]
    assert all(descends(after[0], term) for after, term in zip(waits[1:], terms_of[:-1], strict=True))


def descends(node, other):
    """Whether `node` of a graph is computed from `other`."""
    return node is other or any(descends(tensor.op, other) for tensor in node.inputs)


@pytest.mark.parametrize("groups, at_once", [(1, current().CHANNELS_AT_ONCE), (3, 1)])
def test_dense_convolutions_compute_whole_blocks_of_channels(groups, at_once):
    problem = Problem(Convolution((Window(3).at(8),), groups), 1, 3, 3)
    assert [whole_blocks(problem, number) for number in (1, at_once, at_once + 1)] == [at_once, at_once, 2 * at_once]


@pytest.mark.parametrize("problem", PROBLEMS, ids=label)
def test_some_algorithm_is_chosen_for_every_convolution(problem):
    assert choose(problem).fits(problem)


def test_every_algorithm_computes_something():
    """So that none of the tests above is skipped for all problems, but where a backend has no such operation."""
    for algorithm in ALGORITHMS:
        lacking = algorithm.name == "fold" and not current().FOLDED_RANKS
        assert lacking or sum(map(algorithm.fits, PROBLEMS)) > 20, algorithm.name


@pytest.mark.parametrize("name", [name for name in COEFFICIENTS if name.startswith(BACKEND)])
@pytest.mark.parametrize("precision", ["full", "half"])
@pytest.mark.parametrize("kind", KINDS)
def test_rates_know_what_the_backend_offers(kind, precision, name):
    assert set(COEFFICIENTS[name][precision][kind]) == set(current().CANDIDATES[precision][kind])
    assert set(current().CANDIDATES[precision]) == set(KINDS)


@pytest.mark.parametrize("batch", [1, 5])
def test_an_operation_that_writes_columns_does_the_multiply_adds_of_the_forward(monkeypatch, batch):
    monkeypatch.setattr(current(), "WRITES_COLUMNS", ("full",))
    problem = Problem(Convolution((Window(3, 2).at(9), Window(4).at(8))), batch, 2, 7)
    work = native.work(problem)
    products = work.rows * work.depth * work.width * work.repeats
    assert products == problem.outputs * problem.positions("taps") * problem.channels
    assert work.elements > 2 * products / work.depth  # the columns are written and read


def test_the_backend_has_rates():
    assert current().NAME in COEFFICIENTS


def test_rates_of_a_backend_without_something_are_completed_by_those_with_it():
    whole = {"full": {"image": 1, "volume": 2}, "half": {"image": 3}}
    found = completed({"a": whole, "a without b": {"full": {"image": 4}}})
    assert found == {"a": whole, "a without b": {"full": {"image": 4, "volume": 2}, "half": {"image": 3}}}


def test_no_algorithm_is_chosen_by_timing(monkeypatch):
    monkeypatch.setattr("time.perf_counter", None)
    monkeypatch.setattr("time.monotonic", None)
    for problem in PROBLEMS[::20]:
        choose(problem)


@pytest.mark.parametrize("name", BY_NAME)
def test_an_algorithm_that_was_asked_for_is_used_and_saved(name, tmp_path, monkeypatch):
    inputs = keras.Input((9, 8, 2))
    conv = keras.layers.Conv2D(3, 3, strides=2, padding="same")
    features = conv(inputs)
    if name == "fold" and not current().FOLDED_RANKS:
        pytest.skip("the backend does not fold")
    decode = ka.adjoint(conv, algorithm=name)
    model = keras.Model(inputs, decode(features))
    used = []
    _record(monkeypatch, used)
    y = random((1, 5, 4, 3), 0, "float32")
    found = ops.convert_to_numpy(decode(y))
    assert used == [name]
    np.testing.assert_allclose(found, ops.convert_to_numpy(ka.adjoint(conv)(y)), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").get_layer(decode.name).algorithm == name


def _record(monkeypatch, used):
    """Write down the names of the algorithms that are asked for."""
    from keras_adjoint.layers import conv
    from keras_adjoint.ops.algorithms import choose as module

    original = module.BilinearForm

    def recorded(convolution, algorithm):
        used.append(algorithm.name)
        return original(convolution, algorithm)

    monkeypatch.setattr(module, "BilinearForm", recorded)
    monkeypatch.setattr(conv, "prepared_adjoint", module.prepared_adjoint.__wrapped__)  # past the cache


def test_an_unknown_algorithm_is_refused_by_name():
    conv = keras.layers.Conv1D(3, 3)
    conv(keras.Input((9, 2)))
    with pytest.raises(ValueError, match=r"'subpixel'.*Received: algorithm='winograd'"):
        ka.adjoint(conv, algorithm="winograd")


def test_an_algorithm_that_does_not_fit_says_which_do():
    conv = keras.layers.Conv1D(4, 3, groups=2)
    features = conv(keras.Input((9, 2)))
    decode = ka.adjoint(conv, algorithm="columns")
    with pytest.raises(ValueError, match=r"those that can are .*'subpixel'.*Received: algorithm='columns'"):
        decode(np.ones((1, *features.shape[1:])))


def test_autotune_keeps_the_fastest_of_those_that_fit():
    conv = keras.layers.Conv2D(8, 3, strides=2)
    conv(keras.Input((17, 17, 4)))
    decode = ka.adjoint(conv)
    times = ka.autotune(decode, (2, 8, 8, 8), seconds=0.01)
    assert decode.algorithm == min(times, key=times.get) == next(iter(times))
    assert {"subpixel", "phases", "columns", "shifts", "native"} <= set(times)
    copy = type(decode).from_config(decode.get_config() | {"tied": False})
    assert copy.algorithm == decode.algorithm


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_autotune_takes_separable_layers_and_both_data_formats(data_format):
    separable = keras.layers.SeparableConv2D(6, 3, depth_multiplier=2, data_format=data_format)
    shape = (9, 8, 3) if data_format == "channels_last" else (3, 9, 8)
    if data_format == "channels_first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow's CPU has no channels-first convolution")
    separable.build((None, *shape))
    decode = ka.adjoint(separable, output_size=(9, 8))
    times = ka.autotune(decode, (1, 7, 6, 6) if data_format == "channels_last" else (1, 6, 7, 6), seconds=0.01)
    assert decode.algorithm in times


@pytest.mark.parametrize(
    ("shape", "message"),
    [((None, 8, 8, 8), "needs every size"), ((2, 8, 8), "4 with the batch"), ((2, 3, 3, 8), "size")],
)
def test_autotune_refuses_shapes_that_are_not_the_layers(shape, message):
    conv = keras.layers.Conv2D(8, 3, strides=2)
    conv(keras.Input((17, 17, 4)))
    with pytest.raises((ValueError, ka.SizeError), match=message):
        ka.autotune(ka.adjoint(conv, output_size=(17, 17)), shape)


def test_autotune_refuses_layers_without_algorithms():
    with pytest.raises(ValueError, match="adjoint of a convolution.*Received: layer=.*Dense"):
        ka.autotune(keras.layers.Dense(3), (1, 2))


def test_unknown_sizes_are_lowered_too():
    inputs = keras.Input((None, None, 2))
    conv = keras.layers.Conv2D(3, 3)
    features = conv(inputs)
    model = keras.Model(inputs, ka.adjoint(conv)(features))
    x = random((1, 9, 8, 2), 0, "float32")
    assert model.predict(x, verbose=0).shape == x.shape


@pytest.mark.skipif(BACKEND != "torch", reason="the others compile anew for every number of samples")
@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Conv2D(8, 3, strides=2, padding="same"),
        lambda: keras.layers.Conv2D(8, 3, dilation_rate=2),
        lambda: keras.layers.DepthwiseConv2D(3, strides=2),
    ],
)
def test_an_adjoint_that_pytorch_compiled_takes_other_numbers_of_samples(layer):
    import torch

    source = layer()
    features = source(np.ones((1, 16, 16, 4), "float32"))
    decode = ka.adjoint(source)
    decode(features)  # Keras builds no layer in PyTorch's trace
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(decode, backend=counted, fullgraph=True)
    for batch in range(2, 9):
        y = ops.convert_to_tensor(np.random.default_rng(batch).normal(size=(batch, *features.shape[1:])), "float32")
        np.testing.assert_allclose(
            ops.convert_to_numpy(compiled(y)), ops.convert_to_numpy(decode(y)), rtol=1e-4, atol=1e-5
        )
    assert len(graphs) <= 3  # the first size, any other, and one more where another algorithm becomes the cheapest
