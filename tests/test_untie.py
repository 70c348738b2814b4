"""Untied models: stock layers alone, the same numbers, and files that load where this package does not exist."""

import subprocess
import sys

import jax
import keras
import numpy as np
import pytest
from helpers import BACKEND
from keras import ops
from layer_list import LAYERS, randomize

import keras_adjoint as ka
from keras_adjoint.precision import epsilon

L = keras.layers
KINDS = ("conv_transpose", "conv")
LINEAR = [case for case in LAYERS if not case.title.startswith("max")]
ZEROS_WRITTEN_OUT = ("transpose", "group", "dilated")
CONVOLUTIONS = [
    c for c in LINEAR if c.title.startswith("conv") and not any(word in c.title for word in ZEROS_WRITTEN_OUT)
]

both_kinds = pytest.mark.parametrize("to", KINDS)


@pytest.fixture(autouse=True)
def quick_initializers(monkeypatch):
    """JAX compiles a random generator for every shape, which would take most of the time of these tests."""
    generator = np.random.default_rng(0)

    def initialize(self, shape, dtype=None):
        return ops.convert_to_tensor(generator.normal(size=shape), dtype=dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", initialize)


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def values(functions, inputs):
    """What several models make of the same inputs."""

    def run(inputs):
        return [function(inputs) for function in functions]

    run = jax.jit(run) if BACKEND == "jax" else run  # compiled as a whole, JAX takes a tenth of the time
    return [numbers(ops.cast(output, "float64")) for output in run(inputs)]


def random_input(shape, dtype="float32"):
    return ops.convert_to_tensor(np.random.default_rng(1).normal(size=(2, *shape)), dtype=dtype)


def assert_same(pairs, inputs, dtype="float32"):
    """The two of each pair give the same to rounding, that is, to a few dozen roundings of their largest number."""
    results = values([function for pair in pairs for function in pair], inputs)
    for expected, result in zip(results[::2], results[1::2], strict=True):
        assert result.shape == expected.shape
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(result, expected, rtol=0, atol=64 * epsilon(dtype) * np.abs(expected).max())


def layers(model):
    """All layers of a model, those of nested models included."""
    return [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]


def classes(model):
    return [type(layer).__name__ for layer in layers(model) if not isinstance(layer, L.InputLayer)]


def assert_stock(model):
    assert {type(layer).__module__.partition(".")[0] for layer in model._flatten_layers()} == {"keras"}
    assert "keras_adjoint" not in model.to_json()


def called(source, shape, dtype="float32", **options):
    """The adjoint of a layer, called on a symbolic tensor, with random numbers in all weights."""
    features = source(keras.Input(shape, dtype=dtype))
    tied = ka.adjoint(source, **options)
    tied(keras.Input(features.shape[1:], dtype=dtype))
    randomize(tied)
    return tied


def built(layer, shape):
    layer.build((None, *shape))
    return layer


def features_shape(tied):
    return tied.input.shape[1:]


# --- every layer


@pytest.mark.parametrize("case", LINEAR, ids=str)
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


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
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


@both_kinds
@pytest.mark.parametrize("make, shape", SOURCES.values(), ids=SOURCES)
def test_untied_layer_keeps_its_biases_and_channels(make, shape, to):
    tied = [called(make(), shape, **options) for options in OPTIONS]
    assert_same([(layer, ka.untie(layer, to=to)) for layer in tied], random_input(features_shape(tied[0])))


def test_bias_of_an_einsum_may_have_several_axes():
    tied = called(L.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de"), (4, 6), bias="subtract")
    assert_same([(tied, ka.untie(tied))], random_input(features_shape(tied)))


@pytest.mark.parametrize("make", [L.BatchNormalization, lambda: L.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 1.0, 2.0])])
def test_shift_of_a_scale_is_subtracted(make):
    tied = called(make(), (4, 3), bias="subtract")
    assert_same([(tied, ka.untie(tied))], random_input(features_shape(tied)))


# --- models


def encoder_layers():
    return [
        L.Conv2D(4, 3, strides=2, padding="same", name="first"),
        L.Activation("tanh", name="bend"),
        L.SeparableConv2D(6, 3, strides=2, name="second"),
        L.ZeroPadding2D(name="widen"),
        L.Flatten(name="flatten"),
        L.Dense(5, name="last"),
    ]


def decoder_layers(sources):
    return [
        L.Activation("tanh", name="bend_back")
        if source.name == "bend"
        else ka.adjoint(source, name=f"{source.name}_back", **({"bias": "own"} if source.weights else {}))
        for source in reversed(sources)
    ]


def chain(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def built_encoder_layers():
    sources = encoder_layers()
    chain(sources, keras.Input((9, 10, 2)))
    return sources


def flat():
    sources, inputs = built_encoder_layers(), keras.Input((9, 10, 2))
    return keras.Model(inputs, chain(decoder_layers(sources), chain(sources, inputs)))


def sequential():
    sources = built_encoder_layers()
    return keras.Sequential([keras.Input((9, 10, 2)), *sources, *decoder_layers(sources)])


def parts():
    sources, inputs, code = built_encoder_layers(), keras.Input((9, 10, 2)), keras.Input((5,))
    encoder = keras.Model(inputs, chain(sources, inputs), name="encoder")
    return encoder, keras.Model(code, chain(decoder_layers(sources), code), name="decoder")


def nested():
    encoder, decoder = parts()
    inputs = keras.Input((9, 10, 2))
    return keras.Model(inputs, decoder(encoder(inputs)))


def nested_sequential():
    sources = built_encoder_layers()
    encoder = keras.Sequential([keras.Input((9, 10, 2)), *sources], name="encoder")
    decoder = keras.Sequential([keras.Input((5,)), *decoder_layers(sources)], name="decoder")
    return keras.Sequential([keras.Input((9, 10, 2)), encoder, decoder])


def called_twice():
    """Encoder and decoder go round twice, and an operation of `keras.ops` adds up the two."""
    encoder, decoder = parts()
    inputs = keras.Input((9, 10, 2))
    once = decoder(encoder(inputs))
    return keras.Model(inputs, once + decoder(encoder(once)))


MODELS = {make.__name__: make for make in (flat, sequential, nested, nested_sequential, called_twice)}


def randomized(model):
    randomize(model)
    return model


@both_kinds
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_untied_model_computes_the_same_with_stock_layers_alone(make, to):
    model = randomized(make())
    untied = ka.untie(model, to=to)
    assert_stock(untied)
    assert untied.name == model.name and not ka.is_tied(untied, model)
    assert_same([(model, untied)], random_input((9, 10, 2)))


def test_layers_keep_their_names_and_stock_layers_begin_with_the_name_of_their_adjoint():
    names = {layer.name for layer in ka.untie(flat()).layers}
    assert {"first", "bend", "second", "widen", "flatten", "last", "bend_back", "widen_back"} < names
    assert {"last_back_dense", "second_back_conv2d_transpose", "first_back_cropping2d"} < names


def test_names_do_not_collide_with_those_in_a_file(tmp_path):
    inputs = keras.Input((9, 8, 3))
    conv, pad = L.Conv2D(4, 3, padding="same"), L.ZeroPadding2D()
    code = pad(conv(inputs))
    model = keras.Model(inputs, ka.adjoint(conv)(ka.adjoint(pad)(code)))
    model.save(tmp_path / "m.keras")
    keras.utils.clear_session(free_memory=False)
    loaded = keras.saving.load_model(tmp_path / "m.keras")  # has a "cropping2d", as a new cropping would be named
    assert_same([(model, ka.untie(loaded))], random_input((9, 8, 3)))


# --- sharing


def test_layers_of_a_shared_model_stay_shared():
    once, twice = ka.untie(nested()), ka.untie(called_twice())
    assert once.count_params() == twice.count_params()
    assert len([layer for layer in twice.layers if layer.name == "decoder"]) == 1


@both_kinds
def test_an_adjoint_called_for_several_sizes_has_one_kernel(to):
    conv = L.Conv2D(4, 3, strides=2, padding="same")
    inputs = keras.Input((4, 4, 4))
    conv.build((None, None, None, 3))
    tied = ka.adjoint(conv, bias="own")
    odd, even = tied(inputs, output_size=(7, 8)), tied(inputs, output_size=(8, 7))
    total = L.Concatenate()([L.Flatten()(odd), L.Flatten()(even)])
    model = randomized(keras.Model(inputs, total))
    untied = ka.untie(model, to=to)
    assert len([layer for layer in layers(untied) if layer.weights]) == 1
    assert_same([(model, untied)], random_input((4, 4, 4)))


def test_size_may_be_that_of_a_tensor():
    inputs = keras.Input((9, 8, 3))
    conv = L.Conv2D(4, 3, strides=2)
    conv.build((None, None, None, 3))
    model = keras.Model(inputs, ka.adjoint(conv)(conv(inputs), output_size=inputs))
    untied = ka.untie(model)
    assert untied.output_shape == (None, 9, 8, 3)
    assert_same([(model, untied)], random_input((9, 8, 3)))


def test_sizes_given_in_the_call_hold_for_a_single_layer_too():
    conv = L.Conv2D(4, 3, strides=2)
    conv.build((None, None, None, 3))
    tied = ka.adjoint(conv)
    tied(keras.Input((3, 3, 4)), output_size=(8, 7))
    untied = ka.untie(tied)
    assert untied.output_shape == (None, 8, 7, 3)
    assert_same([(lambda y: tied(y, output_size=(8, 7)), untied)], random_input((3, 3, 4)))


def test_a_layer_called_on_numbers_is_untied_for_their_shape():
    tied = ka.adjoint(built(L.Conv2D(4, 3), (9, 8, 3)))
    y = random_input((7, 6, 4))
    tied(y)
    assert_same([(tied, ka.untie(tied))], y)


# --- sources


def test_copied_adjoints_are_written_out_like_tied_ones():
    conv = built(L.Conv2D(4, 3, strides=2), (9, 8, 3))
    inputs = keras.Input((9, 8, 3))
    model = keras.Model(inputs, ka.adjoint(conv, tied=False)(conv(inputs)))
    conv.kernel.assign(conv.kernel * 2)
    assert_same([(model, ka.untie(model))], random_input((9, 8, 3)))


def test_lora_is_merged_into_the_untied_kernel():
    dense = built(L.Dense(4), (6,))
    dense.enable_lora(2)
    randomize(dense)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ka.adjoint(dense)(dense(inputs)))
    untied = ka.untie(model)
    assert_same([(model, untied)], random_input((6,)))
    np.testing.assert_allclose(numbers(untied.layers[-1].kernel), numbers(dense.kernel).T, rtol=1e-6)


def test_a_quantised_kernel_is_written_out_dequantised():
    dense = built(L.Dense(4), (6,))
    dense.quantize("int8")
    tied = ka.adjoint(dense)
    tied(keras.Input((4,)))
    untied = ka.untie(tied)
    assert untied.layers[-1].kernel.dtype == "float32"
    assert_same([(tied, untied)], random_input((4,)))


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


def test_average_pools_keep_their_edges():
    tied = called(L.AveragePooling2D((2, 3), (3, 3), padding="same"), (7, 7, 2))  # one size, two matrices
    assert_same([(tied, ka.untie(tied))], random_input(features_shape(tied)))


@pytest.mark.parametrize(
    "make", [lambda: L.AveragePooling2D(3, 2), lambda: L.UpSampling2D(2, interpolation="bilinear")]
)
def test_matrices_of_layers_without_weights_are_not_trained(make):
    untied = ka.untie(called(make(), (7, 7, 2)))
    assert untied.weights and not untied.trainable_weights


# --- copies


def test_weights_are_copies():
    model = nested()
    untied = ka.untie(model)
    x = random_input((9, 10, 2))
    before = numbers(untied(x))
    for weight in model.weights:
        weight.assign(weight * 2)
    np.testing.assert_array_equal(numbers(untied(x)), before)


@both_kinds
def test_untied_weights_train_and_leave_the_original_alone(to):
    model = nested()
    untied = ka.untie(model, to=to)
    kept = [numbers(weight) for weight in model.weights]
    started = [numbers(weight) for weight in untied.trainable_weights]
    untied.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    x = numbers(random_input((9, 10, 2)))
    untied.fit(x, x + 1, epochs=1, verbose=0)
    for weight, value in zip(untied.trainable_weights, started, strict=True):
        assert np.abs(numbers(weight) - value).max() > 0, weight.path
    for weight, value in zip(model.weights, kept, strict=True):
        np.testing.assert_array_equal(numbers(weight), value)


def test_frozen_layers_stay_frozen():
    model = nested()
    model.get_layer("decoder").trainable = False
    untied = ka.untie(model)
    assert untied.get_layer("decoder").trainable_weights == []
    assert len(untied.get_layer("encoder").trainable_weights) == len(model.get_layer("encoder").trainable_weights)


def test_compiled_models_are_untied_uncompiled():
    model = flat()
    model.compile(loss=lambda y_true, y_pred: ops.sum(y_pred))  # nothing that a copy could be compiled with
    untied = ka.untie(model)
    assert not untied.compiled and model.compiled


# --- files

WITHOUT_THE_PACKAGE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "keras_adjoint":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import torch  # TensorFlow crashes if it is imported before PyTorch
import keras
import numpy as np

for name in sys.argv[1:]:
    model = keras.saving.load_model(name + ".keras")
    inputs, outputs = (list(np.load(name + kind).values()) for kind in (".in.npz", ".out.npz"))
    results = model.predict_on_batch(inputs)
    for result, output in zip(results, outputs, strict=True):
        np.testing.assert_allclose(result, output, rtol=0, atol=1e-5 * np.abs(output).max())
print("same:", *sys.argv[1:])
"""


def test_files_load_in_a_process_without_this_package_and_predict_the_same(tmp_path):
    """The nested model and one half of the list, side by side, for either kind."""
    for half, to in enumerate(KINDS):
        encoder, decoder = parts()
        inputs = [keras.Input((9, 10, 2))]
        outputs = [decoder(encoder(inputs[0]))]
        for case in LINEAR[half::2]:
            source = case.build("float32")
            inputs.append(keras.Input(source.output.shape[1:]))
            outputs.append(case.adjoint(source)(inputs[-1]))
        model = keras.Model(inputs, outputs)
        x = [numbers(random_input(y.shape[1:])) for y in inputs]
        ka.untie(model, to=to).save(tmp_path / f"{to}.keras")
        np.savez(tmp_path / f"{to}.in.npz", *x)
        np.savez(tmp_path / f"{to}.out.npz", *model.predict_on_batch(x))
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, *KINDS]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "same: conv_transpose conv" in run.stdout, run.stderr


# --- sizes that are not known


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
        r"`back` cannot .* takes known sizes, and they are \(None, None\); build .* Received: source='back' of type Adj"
    )
    with pytest.raises(ka.NoRuleError, match=message):
        ka.untie(model, to=to)


# --- errors


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=r"`to` must be one of conv_transpose, conv. Received: to='deconv'"):
        ka.untie(flat(), to="deconv")


def test_only_layers_and_models_are_untied():
    with pytest.raises(ValueError, match=r"takes a Keras layer or model. Received: 3"):
        ka.untie(3)


@pytest.mark.parametrize("case", [case for case in LAYERS if case.title.startswith("max")], ids=str)
def test_max_pooling_is_refused(case):
    pool, inputs = case.make("float32"), keras.Input(case.shape)
    model = keras.Model(inputs, ka.adjoint(pool, name="unpool")(pool(inputs), switches=inputs))
    message = (
        r"`unpool` cannot .*: no stock layer finds the switches. Use average pooling or a stride .* Received: .*Max"
    )
    for refused in (model, model.get_layer("unpool")):
        with pytest.raises(ka.NoRuleError, match=message):
            ka.untie(refused)


def test_a_layer_that_was_never_called_is_refused():
    conv = built(L.Conv2D(4, 3), (9, 8, 3))
    with pytest.raises(
        ValueError, match=r"Call the layer on a `keras.Input` before untying it. Received: source='back'"
    ):
        ka.untie(ka.adjoint(conv, name="back"))


def test_an_unbuilt_sequential_is_refused():
    conv = built(L.Conv2D(4, 3), (9, 8, 3))
    with pytest.raises(ValueError, match=r"Build the model before untying it. Received: source='s' of type Sequential"):
        ka.untie(keras.Sequential([ka.adjoint(conv)], name="s"))


class Subclassed(keras.Model):
    def __init__(self, tied):
        super().__init__()
        self.tied = tied

    def call(self, y):
        return self.tied(y)


def test_a_subclassed_model_is_refused():
    tied = ka.adjoint(built(L.Conv2D(4, 3), (9, 8, 3)), name="back")
    with pytest.raises(ValueError, match=r"a subclassed model has none. Write it .* Received: .* of type Subclassed"):
        ka.untie(Subclassed(tied))


@pytest.mark.parametrize("wrap", [Subclassed, L.TimeDistributed])
def test_adjoints_inside_of_other_layers_are_refused(wrap):
    tied = ka.adjoint(built(L.Dense(4), (3,)), name="back")
    inputs = keras.Input((5, 4))
    with pytest.raises(ka.NoRuleError, match=rf"`back` is inside of `.*Untie it alone.* of type {wrap.__name__}"):
        ka.untie(keras.Model(inputs, wrap(tied)(inputs)))


def test_a_grouped_kernel_that_would_be_huge_is_refused_and_the_way_out_works():
    depthwise = L.DepthwiseConv1D(1)
    tied = called(depthwise, (2, 2**13 + 1))
    with pytest.raises(ka.NoRuleError, match=r'8193 groups make too large a kernel .* use `to="conv"`. Received: '):
        ka.untie(tied)
    assert_same([(tied, ka.untie(tied, to="conv"))], random_input(features_shape(tied)))


def test_an_adjoint_that_nobody_has_written_out_is_refused():
    class OfSomebody(type(ka.adjoint(built(L.Dense(4), (3,))))):
        pass

    tied = OfSomebody(built(L.Dense(4), (3,)), name="back")
    tied(keras.Input((4,)))
    with pytest.raises(ka.NoRuleError, match=r"`back` cannot .*no arrangement of them is known.* of type OfSomebody"):
        ka.untie(tied)
