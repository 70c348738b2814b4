"""Plans of blocks: computed block by block, the result is the one of the whole, and what reads everything is refused."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, DATA_FORMATS
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_list import HALF, LAYERS, for_each, randomize
from random_blocks import models

import keras_adjoint as ka
from keras_adjoint.layers.tied import call_at_inference

L = keras.layers


def of_blocks(plan, x):
    """The result, of which every number is written exactly once."""
    found, written = np.zeros((len(x), *plan.out_shape)), np.zeros(plan.out_shape, int)
    for block in plan:
        read = np.full(x.shape, np.nan, x.dtype)  # nothing else is read
        read[(slice(None), *block.read)] = x[(slice(None), *block.read)]
        found[(slice(None), *block.write)] = block.compute(read)
        written[block.write] += 1
    assert (written == 1).all()
    return found


def check(op, shape, block=3, whole=None):
    """The whole and the blocks agree to rounding."""
    if BACKEND != "torch":  # which compile every program
        block = max(block, (max(shape) + 1) // 2)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    expected = ops.convert_to_numpy(whole(x) if whole else call_at_inference(op, x))
    found = of_blocks(ka.plan_blocks(op, shape, block=block), x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


# What depends on whole arrays, or is not known in blocks: the words of the error.
REFUSED = {
    "global average pooling 1d": "pools over all positions",
    "global average pooling 2d": "pools over all positions",
    "global average pooling 2d, keepdims": "pools over all positions",
    "global average pooling 3d": "pools over all positions",
    "max, global pooling 1d": "pools over all positions",
    "max, global pooling 2d, channels first": "pools over all positions",
    "max, global pooling 3d, axes kept": "pools over all positions",
    "flatten": "puts positions where channels are",
    "flatten, channels first": "puts positions where channels are",
    "reshape": "puts positions where channels are",
    "einsum dense, ellipsis behind": "all positions along axis 1",
    "normalization, first axis": "other weights",
    "time distributed": "not known",
    "time distributed, flatten": "not known",
    "time distributed, pooling": "not known",
}
ONE = [case for case in LAYERS if case.runs_itself and not case.merges and "embedding" not in case.title]


@for_each(ONE, HALF[::4])
def test_every_layer_and_its_adjoint_in_blocks(case):
    layer = case.build("float32")
    if case.title in REFUSED:
        with pytest.raises(ka.NoRuleError, match=REFUSED[case.title]):
            ka.plan_blocks(layer, case.shape, block=2)
        return
    check(layer, case.shape)
    if case.switches() is not None:
        return
    operator = ka.operator(layer)
    check(operator, operator.in_shape, 2, operator)
    if case.title != "einsum dense" and operator.T.describe() != "repeat_vector.T":
        check(operator.T, operator.out_shape, 2, operator.T)


@pytest.mark.in_turn("torch")
@given(models(), st.integers(3, 9))
def test_random_models_in_blocks(drawn, block):
    model, _ = drawn
    check(model, tuple(model.inputs[0].shape[1:]), block)


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_mirrors_and_adjoints_of_models_in_blocks(data_format):
    shape = (1, 21, 18) if data_format == "channels_first" else (21, 18, 1)
    axis = 1 if data_format == "channels_first" else -1
    x = keras.Input(shape)
    y = L.Conv2D(4, 3, strides=2, padding="same", data_format=data_format)(x)
    z = L.Conv2D(4, 3, padding="same", data_format=data_format)(y)
    linear = keras.Model(
        x, L.Concatenate(axis=axis)([L.Add()([y, z]), L.AveragePooling2D(3, 1, "same", data_format)(z)])
    )
    randomize_all(linear)
    check(linear, shape, 4)
    backward = ka.adjoint(linear)
    check(backward, tuple(linear.outputs[0].shape[1:]), 5)
    a = L.Conv2D(3, 3, padding="same", activation="relu", data_format=data_format)(x)
    a = L.MaxPooling2D(2, data_format=data_format)(L.BatchNormalization(axis=axis)(a))
    a = L.Conv2D(5, 3, strides=2, padding="same", activation="relu", data_format=data_format)(a)
    model = ka.autoencoder(keras.Model(x, a), bias="own", output_activation="sigmoid")
    randomize_all(model)
    check(model, shape, 6)


RECORDING = [{"pooling": "switches"}, {"activation": "gradient"}, {"pooling": "switches", "activation": "guided"}]


@pytest.mark.in_turn("torch")
@given(
    st.sampled_from(RECORDING),
    st.sampled_from(DATA_FORMATS),
    st.integers(1, 3),
    *(st.lists(st.integers(1, 4), min_size=2, max_size=2) for _ in range(2)),
    st.sampled_from(["same", "valid"]),
    st.integers(2, 6),
)
def test_decoders_that_need_what_was_recorded_in_blocks(policy, data_format, rank, taps, strides, padding, block):
    """Blocks of an autoencoder go back where max pooling took them from, and through the same slopes."""
    sizes = [(19,), (13, 11), (7, 6, 5)][rank - 1]
    first = data_format == "channels_first"
    x = tensor = keras.Input((2, *sizes) if first else (*sizes, 2))
    for taps_here, stride in zip(taps, strides, strict=True):
        options = {"padding": "same", "data_format": data_format, "activation": "relu"}
        tensor = getattr(L, f"Conv{rank}D")(2, 3, **options)(tensor)
        if min(tensor.shape[2:] if first else tensor.shape[1:-1]) >= taps_here:
            options = {"padding": padding, "data_format": data_format}
            tensor = getattr(L, f"MaxPooling{rank}D")(taps_here, stride, **options)(tensor)
    model = ka.autoencoder(keras.Model(x, tensor), **policy)
    for layer in model.layers:
        randomize(layer)
    check(model, tuple(x.shape[1:]), block)


def randomize_all(model):
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(np.abs(generator.normal(size=weight.shape)).astype("float32") / 3 + 0.01)


@pytest.mark.any_backend
def test_a_model_of_any_size_is_applied_to_a_larger_array():
    model = keras.Sequential([keras.Input((None, None, 2)), L.Conv2D(3, 5, strides=3, padding="same"), L.Conv2D(2, 3)])
    calls = len(model.layers[0]._inbound_nodes)
    check(model, (50, 41, 2), 7)
    plan = ka.plan_blocks(model, (50, 41), block=(7, 100))
    assert plan.in_shape == (50, 41, 2) and plan.grid == (3, 1) and len(model.layers[0]._inbound_nodes) == calls


@pytest.mark.any_backend
def test_algebra_in_blocks():
    conv = L.Conv1D(2, 4, strides=2, padding="same")
    conv.build((None, 31, 2))
    randomize(conv)
    a = ka.operator(conv, size=(31,))
    for operator in (a.gram(), 2 * a.gram() - ka.identity((31, 2)), a @ a.T):
        check(operator, operator.in_shape, 5, operator)


@pytest.mark.any_backend
def test_padding_is_at_the_true_edges_alone():
    conv = L.Conv1D(1, 3, padding="same", use_bias=False, kernel_initializer="ones")
    conv.build((None, None, 1))
    plan = ka.plan_blocks(conv, (7,), block=3)
    assert [block.read[0] for block in plan] == [slice(0, 4), slice(2, 7), slice(5, 7)]
    ones = np.ones((7, 1), "float32")
    assert [block.compute(ones)[:, 0].tolist() for block in plan] == [[2, 3, 3], [3, 3, 3], [2]]


@pytest.mark.any_backend
def test_new_weights_are_read_at_once():
    conv = L.Conv1D(1, 1, use_bias=False, kernel_initializer="ones")
    conv.build((None, None, 1))
    block = ka.plan_blocks(conv, (4,))[0]
    assert block.compute(np.ones((4, 1), "float32")).sum() == 4
    conv.kernel.assign(3 * conv.kernel)
    assert block.compute(np.ones((4, 1), "float32")).sum() == 12


@pytest.mark.any_backend
def test_memory_decides_about_the_block():
    conv = L.Conv2D(4, 3, padding="same")
    conv.build((None, None, None, 4))
    small, large = (ka.plan_blocks(conv, (40000, 30000), memory=memory) for memory in ("154MB", "334MB"))
    assert 3 * small.block[0] < 1.1 * large.block[0] < 4 * small.block[0] and small.block[0] == small.block[1]
    with pytest.raises(ka.SizeError, match="smallest block of 1 × 1 takes about .* bytes.*Received: memory=100"):
        ka.plan_blocks(conv, (4000, 3000), memory=100)
    with pytest.raises(ValueError, match='number of bytes.*Received: memory="?.?2 apples'):
        ka.plan_blocks(conv, (40, 30), memory="2 apples")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "layers, name, reason",
    [
        ([L.Conv2D(2, 3), L.GlobalAveragePooling2D(name="mean"), L.Dense(2)], "mean", "pools over all positions"),
        ([L.Flatten(name="flat"), L.Dense(3)], "flat", "puts positions where channels are"),
        (
            [L.Conv2D(2, 3), L.GroupNormalization(1, name="groups")],
            "groups",
            "depends on all positions along axes 1, 2",
        ),
        ([L.LayerNormalization(axis=(1, 2, 3), name="norm")], "norm", "all positions along axes 1, 2"),
        ([L.Permute((3, 1, 2)), L.Dense(2, name="over_width")], "over_width", "all positions along axis 3"),
        ([L.Permute((3, 1, 2)), L.Softmax(name="over_width")], "over_width", "all positions along axis 3"),
        ([L.Conv2D(2, 3, activation=lambda x: x - keras.ops.mean(x), name="own")], "own", "activation"),
        ([L.Resizing(5, 5, name="resized")], "resized", "not known"),
        ([L.TimeDistributed(L.Conv1D(2, 3), name="each")], "each", "not known"),
        ([L.EinsumDense("abcd,de->ace", (8, 3), name="sum")], "sum", "all positions along axis 1"),
    ],
)
def test_what_reads_everything_is_refused_by_name(layers, name, reason):
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers])
    with pytest.raises(ka.NoRuleError, match=rf"`[\w/]*{name}`.*{reason}.*Received: "):
        ka.plan_blocks(model, (8, 8))


@pytest.mark.any_backend
def test_decoders_that_need_what_was_recorded_of_everything_are_refused_by_name():
    x = keras.Input((8, 8, 1))
    y = L.Conv2D(2, 3, padding="same", activation="relu")(x)
    pooled = keras.Model(x, L.GlobalMaxPooling2D(keepdims=True, name="most")(y))
    with pytest.raises(ka.NoRuleError, match=r"/most`.*pools over all positions"):
        ka.plan_blocks(ka.autoencoder(pooled), (8, 8), block=4)
    over_space = keras.Model(x, L.Softmax(axis=1, name="shares")(y))
    with pytest.raises(ka.NoRuleError, match=r"/shares`.*all positions along axis 1"):
        ka.plan_blocks(ka.autoencoder(over_space, activation="gradient"), (8, 8), block=4)


@pytest.mark.any_backend
@pytest.mark.parametrize("take", [ka.plan_blocks, lambda layer, size: ka.stream(layer)])
def test_an_adjoint_that_needs_what_was_recorded_has_no_blocks_alone(take):
    with pytest.raises(ka.NoRuleError, match="called with `switches` as well.*Pass the model"):
        take(ka.adjoint(L.MaxPooling1D(2)), (8, 3))


@pytest.mark.any_backend
def test_what_joins_along_space_or_has_several_tensors_is_refused_by_name():
    x, y = keras.Input((8, 6, 1)), keras.Input((8, 6, 1))
    with pytest.raises(ka.NoRuleError, match="`[^`]*joined`.*all positions along axis 1"):
        ka.plan_blocks(keras.Model(x, L.Concatenate(axis=1, name="joined")([x, x])), (8, 6))
    for model in (keras.Model([x, y], L.Add()([x, y])), keras.Model(x, [L.Conv2D(1, 3)(x), x])):
        with pytest.raises(ka.NoRuleError, match="from one array and written to one.*has 2"):
            ka.plan_blocks(model, (8, 6))


ONE_COLUMN = {
    "2-D": lambda: L.Conv2D(2, (4, 5), strides=(1, 3)),
    "2-D, same": lambda: L.Conv2D(1, 5, strides=(1, 2), padding="same"),
    "2-D, channels first": lambda: L.Conv2D(3, (4, 5), strides=2, data_format="channels_first"),
    "3-D": lambda: L.Conv3D(2, (2, 4, 5), strides=(2, 1, 2), padding="same"),
    "depthwise": lambda: L.DepthwiseConv2D((4, 4), strides=3, depth_multiplier=3),
    "separable": lambda: L.SeparableConv2D(3, 5, strides=2, padding="same"),
    "max pooling": lambda: L.MaxPooling2D(3, padding="same"),
    "transposed, its adjoint": lambda: ka.adjoint(
        _built(L.Conv2DTranspose(1, (4, 5), strides=(1, 3)), (None, None, None, 2))
    ),
}


def _built(layer, shape):
    layer.build(shape)
    return layer


@pytest.mark.parametrize("title", [title for title in ONE_COLUMN if "first" not in title or len(DATA_FORMATS) > 1])
@pytest.mark.parametrize("batch", [1, 8])
def test_blocks_of_one_column_of_what_reads_one_channel(title, batch):
    layer, space = ONE_COLUMN[title](), (6, 16, 17) if title == "3-D" else (16, 17)
    shape = (1, *space) if "first" in title else (*space, 1)
    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype("float32")
    expected = ops.convert_to_numpy(layer(x))
    *others, columns = expected.shape[2:] if "first" in title else expected.shape[1:-1]
    for width in (1, columns - 1):
        found = of_blocks(ka.plan_blocks(layer, shape, block=(*others, width)), x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.any_backend
def test_wrong_arguments_are_refused():
    conv = L.Conv2D(4, 3)
    conv.build((None, None, None, 4))
    for block in (0, (1, 2, 3), "large", 1.5):
        with pytest.raises(ValueError, match="`block` is a positive integer"):
            ka.plan_blocks(conv, (40, 30), block=block)
    with pytest.raises(ka.SizeError, match="Received: "):
        ka.plan_blocks(conv, (2, 2))
    for layer in (L.Conv2D(4, 3), ka.Lipschitz(L.Conv2D(4, 3))):
        with pytest.raises(ka.SizeError, match=r"is not built.*channels included.*Received: input_size=\(16, 12\)"):
            ka.plan_blocks(layer, (16, 12))
    with pytest.raises(ka.SizeError, match="one size"):
        ka.plan_blocks(ka.operator(conv, size=(9, 9)), (10, 10))
    with pytest.raises(ValueError, match="Blocks are planned for"):
        ka.plan_blocks(np.ones(3), (10, 10))
    two = keras.Input((4, 2))
    with pytest.raises(ka.NoRuleError, match="has 2"):
        ka.plan_blocks(keras.Model(two, [two, two]), (4,))


@pytest.mark.any_backend
def test_blocks_are_named_by_numbers():
    conv = L.Conv1D(4, 3)
    conv.build((None, None, 4))
    plan = ka.plan_blocks(conv, (40,), block=20)
    assert plan[np.int64(1)].number == plan[-1].number == 1
    for wrong in ("a", slice(0, 1), 1.5):
        with pytest.raises(TypeError, match="by their numbers.*Received: "):
            plan[wrong]
    for wrong in (2, -3):
        with pytest.raises(IndexError, match=f"0 to 1.* Received: {wrong}"):
            plan[wrong]


@pytest.mark.any_backend
def test_blocks_that_memory_decides_about_are_alike():
    conv = L.Conv2D(4, 3, padding="same")
    conv.build((None, None, None, 4))
    plan = ka.plan_blocks(conv, (1100, 1000), memory="160MB")
    assert all(
        size > 1 and -(-whole // size) * size - whole < count
        for whole, size, count in zip((1100, 1000), plan.block, plan.grid, strict=True)
    )


def test_average_pooling_with_positions_that_no_window_reads():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, L.AveragePooling2D((2, 3), (5, 1), padding="same")(x))
    image = np.random.default_rng(0).normal(size=(23, 18, 3)).astype("float32")
    plan = ka.plan_blocks(model, (23, 18), block=4)
    result = np.zeros(plan.out_shape, "float32")
    for block in plan:
        result[block.write] = block.compute(image)
    np.testing.assert_allclose(result, keras.ops.convert_to_numpy(model(image[None]))[0], rtol=0, atol=1e-5)


def test_sizes_that_do_not_fit_are_refused():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, L.Concatenate()([x, L.UpSampling2D(2)(L.MaxPooling2D(2)(x))]))
    with pytest.raises(ka.SizeError, match=r"one size along axis 1.*\[22, 23\]"):
        ka.plan_blocks(model, (23, 18))
    block = ka.plan_blocks(model, (24, 18), block=5)[0]
    for wrong in (np.zeros((24, 19, 3)), np.zeros((24, 18, 4)), [1.0]):
        with pytest.raises(ka.SizeError, match=r"reads from an array of shape \(24, 18, 3\)"):
            block.compute(wrong)
