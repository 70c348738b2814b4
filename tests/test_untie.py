"""Untied layers: stock layers alone, the same numbers, and clear words where that cannot be."""

import itertools

import keras
import numpy as np
import pytest
from helpers import in_turn
from layer_list import HALF, LAYERS, TRANSPOSES, for_each
from untied import (
    KINDS,
    LINEAR,
    assert_same,
    assert_stock,
    both_kinds,
    built,
    called,
    classes,
    features_shape,
    layers,
    numbers,
    random_input,
    randomized,
)

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint

L = keras.layers
ZEROS_WRITTEN_OUT = ("transpose", "group", "dilated")
CONVOLUTIONS = [
    c for c in LINEAR if c.title.startswith("conv") and not any(word in c.title for word in ZEROS_WRITTEN_OUT)
]


# --- every layer


@for_each(LINEAR, quick=HALF)
def test_untied_layer_computes_the_same_with_stock_layers_alone(case):
    source = case.build("float32")
    tied = case.adjoint(source)
    tied(keras.Input(source.output.shape[1:]))
    untied = [ka.untie(tied, to=to) for to in KINDS]
    for model in untied:
        assert_stock(model)
    assert not any("Transpose" in name for name in classes(untied[1]))
    assert_same([(tied, model) for model in untied], random_input(source.output.shape[1:]))


@pytest.mark.parametrize("title", ["conv2d, stride 2, odd size, same", "conv2d, groups, stride 2", "conv3d, dilated"])
def test_untied_convolution_is_exact_in_double_precision(title):
    case = next(case for case in LAYERS if case.title == title)
    tied = called(case.make("float64"), case.shape, dtype="float64")
    untied = [ka.untie(tied, to=to) for to in KINDS]
    inputs = random_input(features_shape(tied), "float64")
    assert_same([(tied, model) for model in untied], inputs, "float64")


@for_each(CONVOLUTIONS)
def test_transposed_convolution_holds_the_very_same_kernel(case):
    source = case.build("float32")
    tied = case.adjoint(source)
    tied(keras.Input(source.output.shape[1:]))
    (layer,) = [layer for layer in layers(ka.untie(tied)) if "Transpose" in type(layer).__name__]
    np.testing.assert_array_equal(numbers(layer.kernel), numbers(source.kernel))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"dilation_rate": 2}, {"kernel_size": 1}], ids=str)
def test_kernel_of_a_conv2d_is_reused_in_one_other_conv2d(options, padding):
    conv = L.Conv2D(4, **{"kernel_size": (3, 2), "padding": padding, **options})
    tied = called(conv, (7, 8, 6), bias="own")
    untied = ka.untie(tied, to="conv")
    assert [name for name in classes(untied) if name != "ZeroPadding2D"] == ["Conv2D"]
    assert len(classes(untied)) <= 2
    (layer,) = [layer for layer in layers(untied) if isinstance(layer, L.Conv2D)]
    flipped = ka.transpose_kernel(numbers(conv.kernel), "conv", groups=conv.groups)
    np.testing.assert_array_equal(numbers(layer.kernel), flipped)


# --- options

SOURCES = {
    "unread border": (lambda: L.Conv2D(3, 3, strides=2), (8, 7, 3)),
    "stride beyond the kernel": (lambda: L.Conv1D(3, 2, strides=4), (13, 3)),
    "same": (lambda: L.Conv2D(3, 3, strides=2, padding="same"), (7, 8, 3)),
    "causal": (lambda: L.Conv1D(3, 3, strides=2, padding="causal"), (8, 3)),
    "groups": (lambda: L.Conv2D(3, 2, strides=2, groups=3), (7, 6, 3)),
    "depthwise": (lambda: L.DepthwiseConv2D(2, strides=3, padding="same"), (7, 6, 3)),
    "separable": (lambda: L.SeparableConv1D(3, 3, strides=2, depth_multiplier=2), (8, 3)),
    "channels first": (lambda: L.Conv2D(3, 3, strides=2, data_format="channels_first"), (3, 8, 6)),
    "transposed": (lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same"), (4, 3, 3)),
    "dense": (lambda: L.Dense(3), (3,)),
}
if not TRANSPOSES:
    del SOURCES["transposed"]
OPTIONS = [
    {"bias": "none"},
    {"bias": "own"},
    {"bias": "subtract"},
    {"bias": "repeat"},
    {"bias": "average"},
    {"bias": "learned"},
    {"channels": 5, "channel_method": "repeat"},
    {"channels": 5, "channel_method": "pad", "bias": "repeat"},
    {"channels": 2, "channel_method": "average", "bias": "subtract"},
    {"channels": 2, "channel_method": "truncate", "bias": "own"},
    {"channels": 4, "channel_method": "learned", "bias": "learned"},
]


@pytest.mark.parametrize("name, to", in_turn(itertools.product(SOURCES, KINDS), ", ".join, always=["torch"]))
def test_untied_layer_keeps_its_biases_and_channels(name, to):
    make, shape = SOURCES[name]
    tied = [called(make(), shape, **options) for options in OPTIONS]
    assert_same([(layer, ka.untie(layer, to=to)) for layer in tied], random_input(features_shape(tied[0])))


def test_bias_of_an_einsum_may_have_several_axes():
    tied = called(L.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de"), (4, 6), bias="subtract")
    assert_same([(tied, ka.untie(tied))], random_input(features_shape(tied)))


@pytest.mark.parametrize("make", [L.BatchNormalization, lambda: L.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 1.0, 2.0])])
def test_shift_of_a_scale_is_subtracted(make):
    tied = called(make(), (4, 3), bias="subtract")
    assert_same([(tied, ka.untie(tied))], random_input(features_shape(tied)))


# --- sources


def test_copied_adjoints_are_written_out_like_tied_ones():
    conv = built(L.Conv2D(4, 3, strides=2), (9, 8, 3))
    inputs = keras.Input((9, 8, 3))
    model = keras.Model(inputs, ka.adjoint(conv, tied=False)(conv(inputs)))
    conv.kernel.assign(conv.kernel * 2)
    assert_same([(model, ka.untie(model))], random_input((9, 8, 3)))


@pytest.mark.any_backend
def test_lora_is_merged_into_the_untied_kernel():
    dense = built(L.Dense(4), (6,))
    dense.enable_lora(2)
    randomized(dense)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ka.adjoint(dense)(dense(inputs)))
    untied = ka.untie(model)
    assert_same([(model, untied)], random_input((6,)))
    np.testing.assert_allclose(numbers(untied.layers[-1].kernel), numbers(dense.kernel).T, rtol=1e-6)


@pytest.mark.any_backend
def test_a_quantised_kernel_is_written_out_dequantised():
    dense = built(L.Dense(4), (6,))
    dense.quantize("int8")
    tied = ka.adjoint(dense)
    tied(keras.Input((4,)))
    untied = ka.untie(tied)
    assert untied.layers[-1].kernel.dtype == "float32"
    assert_same([(tied, untied)], random_input((4,)))


@pytest.mark.any_backend
@both_kinds
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_dtype_policy_is_kept_and_kernels_are_not_rounded(policy, to):
    keras.config.set_dtype_policy(policy)
    compute, stored = keras.DTypePolicy(policy).compute_dtype, keras.DTypePolicy(policy).variable_dtype
    inputs = keras.Input((9, 8, 3), dtype=stored)
    conv, pool = L.Conv2D(4, 3, strides=2, name="conv"), L.AveragePooling2D(2)
    code = pool(conv(inputs))
    model = randomized(keras.Model(inputs, ka.adjoint(conv, name="back", bias="subtract")(ka.adjoint(pool)(code))))
    untied = ka.untie(model, to=to)
    assert {layer.dtype_policy.name for layer in layers(untied) if not isinstance(layer, L.InputLayer)} == {policy}
    assert_same([(model, untied)], random_input((9, 8, 3), stored), compute)
    if to == "conv_transpose":
        kernel = untied.get_layer("back_conv2d_transpose").kernel
        np.testing.assert_array_equal(numbers(kernel), numbers(untied.get_layer("conv").kernel))


@pytest.mark.any_backend
def test_average_pools_keep_their_edges():
    tied = called(L.AveragePooling2D((2, 3), (3, 3), padding="same"), (7, 7, 2))  # one size, two matrices
    assert_same([(tied, ka.untie(tied))], random_input(features_shape(tied)))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "make", [lambda: L.AveragePooling2D(3, 2), lambda: L.UpSampling2D(2, interpolation="bilinear")]
)
def test_matrices_of_layers_without_weights_are_not_trained(make):
    untied = ka.untie(called(make(), (7, 7, 2)))
    assert untied.weights and not untied.trainable_weights


# --- sizes that are not known


@pytest.mark.any_backend
@both_kinds
@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"padding": "same", "dilation_rate": 2}], ids=str)
def test_at_stride_1_sizes_may_be_unknown(options, to):
    conv = built(L.Conv2D(4, 3, **options), (None, None, 3))
    inputs = keras.Input((None, None, 3))
    untied = ka.untie(keras.Model(inputs, ka.adjoint(conv)(conv(inputs))), to=to)
    assert untied.output_shape == (None, None, None, 3)
    assert_same([(lambda x: ka.adjoint(conv)(conv(x)), untied)], random_input((9, 8, 3)))


def test_sizes_of_the_other_layers_may_be_unknown():
    transposed, dense, pad = L.Conv1DTranspose(3, 4, strides=2), L.Dense(4), L.ZeroPadding1D(2)
    inputs = keras.Input((None, 2))
    y = pad(dense(transposed(inputs)))
    tied = keras.Model(inputs, ka.adjoint(transposed)(ka.adjoint(dense)(ka.adjoint(pad)(y))))
    assert_same([(tied, ka.untie(tied))], random_input((5, 2)))


@both_kinds
def test_a_size_that_a_stride_needs_must_be_known(to):
    conv = built(L.Conv2D(4, 3, strides=2, name="c"), (None, None, 3))
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, ka.adjoint(conv, name="back")(inputs))
    message = (
        r"`back` cannot .* sizes must be known, and they are \(None, None\); build .* Received: layer='back' of type"
    )
    with pytest.raises(ka.NoRuleError, match=message):
        ka.untie(model, to=to)


# --- errors


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=r"`to` must be one of .*Did you mean .conv.\? Received: to='deconv'"):
        ka.untie(called(L.Dense(4), (3,)), to="deconv")


def test_only_layers_and_models_are_untied():
    with pytest.raises(ValueError, match=r"takes a Keras layer or model. Received: layer_or_model=3"):
        ka.untie(3)


@pytest.mark.any_backend
@pytest.mark.parametrize("case", [case for case in LAYERS if case.title.startswith("max")], ids=str)
def test_max_pooling_is_refused(case):
    pool, inputs = case.make("float32"), keras.Input(case.shape)
    model = keras.Model(inputs, ka.adjoint(pool, name="unpool")(pool(inputs), switches=inputs))
    message = (
        r'`unpool` cannot .*: no stock layer finds the switches.*`pooling="spread"` or "average".* Received: .*Max'
    )
    for refused in (model, model.get_layer("unpool")):
        with pytest.raises(ka.NoRuleError, match=message):
            ka.untie(refused)


RECORDING = {
    "convolution": (lambda: L.Conv2D(4, 3, strides=2), (9, 8, 3)),
    "depthwise": (lambda: L.DepthwiseConv1D(3, strides=2, padding="same"), (9, 3)),
    "dense": (lambda: L.Dense(4), (5, 3)),
    "flatten": (L.Flatten, (4, 3)),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("make, shape", RECORDING.values(), ids=RECORDING)
def test_a_layer_that_was_never_called_is_untied_at_the_size_that_its_source_recorded(make, shape):
    source = make()
    y = source(np.zeros((1, *shape), "float32"))
    for tied in (ka.adjoint(source), linear_adjoint(source)):
        untied = ka.untie(tied)
        assert untied.output_shape == (None, *shape)
        assert_same([(tied, untied)], random_input(y.shape[1:]))


def test_a_layer_of_unknown_size_that_was_never_called_is_refused():
    source = L.AveragePooling2D(2)
    source(np.zeros((1, 9, 8, 3), "float32"))  # Keras records no size of eager calls of pools
    with pytest.raises(ka.SizeError, match=r"source recorded none. Call the layer on .*Received: layer='back'"):
        ka.untie(ka.adjoint(source, name="back"))


FORWARDS = {
    "dense": (lambda: L.Dense(4, activation="relu"), (6,)),
    "einsum": (lambda: L.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"), (2, 3)),
    "convolution": (lambda: L.Conv1D(4, 3, strides=2, activation="tanh"), (9, 2)),
    "separable": (lambda: L.SeparableConv2D(4, 3), (6, 5, 2)),
    "transposed": (lambda: L.Conv1DTranspose(4, 3, strides=2), (5, 2)),
    "rescaling": (lambda: L.Rescaling(2.0, offset=1.0), (4, 3)),
    "batch normalisation": (L.BatchNormalization, (4, 3)),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("make, shape", FORWARDS.values(), ids=FORWARDS)
def test_the_adjoint_of_an_adjoint_is_untied_as_the_layer_without_its_bias(make, shape):
    source = built(make(), shape)
    second = ka.adjoint(linear_adjoint(source))
    assert second is not source
    untied = ka.untie(second)
    assert_stock(untied)
    assert_same([(second, untied)], random_input(shape))


def test_the_adjoint_of_the_adjoint_of_an_embedding_is_untied():
    embedding = built(L.Embedding(5, 3), (2,))
    second = ka.adjoint(ka.adjoint(embedding))
    second(keras.Input((2, 5)))
    assert_same([(second, ka.untie(second))], random_input((2, 5)))


class Scaled(L.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.scale + 1.0


def test_the_adjoint_of_an_adjoint_is_refused_where_stock_layers_cannot_be_it():
    automatic, pool = Scaled(), L.MaxPooling1D()
    automatic(keras.Input((3,)))
    pool(keras.Input((4, 3)))
    for source, reason in ((automatic, "call of `scaled`, whose weights would be one"), (pool, "finds the switches")):
        second = ka.adjoint(ka.adjoint(source))
        with pytest.raises(ka.NoRuleError, match=rf"cannot be converted .*{reason}.* Received: "):
            ka.untie(second)


def test_an_unbuilt_sequential_is_refused():
    conv = built(L.Conv2D(4, 3), (9, 8, 3))
    with pytest.raises(ValueError, match=r"Build the model before untying it. Received: layer='s' of type Sequential"):
        ka.untie(keras.Sequential([ka.adjoint(conv)], name="s"))


class Subclassed(keras.Model):
    def __init__(self, tied):
        super().__init__()
        self.tied = tied

    def call(self, y):
        return self.tied(y)


def test_a_subclassed_model_is_refused():
    tied = ka.adjoint(built(L.Conv2D(4, 3), (9, 8, 3)), name="back")
    with pytest.raises(
        ValueError, match=r"with a `call` of its own.* has none. Write it .* Received: .* of type Subclassed"
    ):
        ka.untie(Subclassed(tied))


def test_adjoints_inside_of_other_layers_are_refused():
    tied = ka.adjoint(built(L.Dense(4), (3,)), name="back")
    inputs = keras.Input((5, 4))
    with pytest.raises(ka.NoRuleError, match=r"`back` is inside of `.*Untie it alone.* of type Subclassed"):
        ka.untie(keras.Model(inputs, Subclassed(tied)(inputs)))


def test_a_grouped_kernel_that_would_be_huge_is_refused_and_the_way_out_works():
    depthwise = L.DepthwiseConv1D(1)
    tied = called(depthwise, (2, 2**13 + 1))
    with pytest.raises(ka.NoRuleError, match=r'8193 groups make too large a kernel .* use `to="conv"`. Received: '):
        ka.untie(tied)
    assert_same([(tied, ka.untie(tied, to="conv"))], random_input(features_shape(tied)))


def test_an_adjoint_without_a_converter_is_refused():
    class OfSomebody(type(ka.adjoint(built(L.Dense(4), (3,))))):
        pass

    tied = OfSomebody(built(L.Dense(4), (3,)), name="back")
    tied(keras.Input((4,)))
    with pytest.raises(ka.NoRuleError, match=r"`back` cannot .*no arrangement of them is known.* of type OfSomebody"):
        ka.untie(tied)
