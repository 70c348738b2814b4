"""Errors name what was received and what to do next."""

import dataclasses
import inspect

import keras
import numpy as np
import pytest
from layer_list import KERAS

import keras_adjoint as ka
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.models.policies import Policies
from keras_adjoint.operators.operator import Operator

L = keras.layers


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def test_layer_without_rule_names_the_layer_and_how_to_add_a_rule():
    with pytest.raises(
        ka.NoRuleError, match=r"No adjoint is known for `LayerNormalization`.*@keras_adjoint.register_rule"
    ):
        ka.adjoint(built(L.LayerNormalization(), 3))


def test_layer_with_an_activation_is_refused_with_the_way_to_split_it():
    with pytest.raises(ka.NoRuleError, match=r'activation=None.*Activation\("relu"\).*Received: activation=.relu.'):
        ka.adjoint(built(L.Conv2D(3, 3, activation="relu"), 5, 5, 1))


def test_activation_layer_is_refused():
    with pytest.raises(ka.NoRuleError, match="not linear.*Received: activation='relu'"):
        ka.adjoint(L.Activation("relu"))
    with pytest.raises(ka.NoRuleError, match="`ReLU`"):
        ka.adjoint(L.ReLU())


def test_linear_activation_is_accepted_in_every_spelling():
    for activation in (None, "linear", keras.activations.linear):
        ka.adjoint(built(L.Dense(3, activation=activation), 2))


@pytest.mark.parametrize("layer", [lambda: L.Conv2D(3, 3), lambda: L.Dense(3), lambda: L.BatchNormalization()])
def test_unbuilt_layer_is_refused_with_the_way_to_build_it(layer):
    with pytest.raises(ka.TieError, match=r"not built.*layer.build\(input_shape\).*Received: source="):
        ka.adjoint(layer())


def test_what_is_no_layer_is_refused():
    with pytest.raises(ValueError, match=r"(?s)takes a Keras layer. Received: .*type ndarray"):
        ka.adjoint(np.zeros((3, 3)))


NO_LAYERS = [None, 3, "x", np.zeros(3), [L.Dense(3)], L.Dense, lambda x: x]


@pytest.mark.any_backend
@pytest.mark.parametrize("value", NO_LAYERS, ids=["None", "number", "name", "array", "list", "class", "function"])
@pytest.mark.parametrize(
    "name",
    ["adjoint", "mirror", "untie", "clone_tied", "is_tied", "check_adjoint", "operator", "Lipschitz", "Regularized"],
)
def test_what_is_no_layer_is_refused_by_every_function_of_layers(name, value):
    with pytest.raises(ValueError, match=r"(?s)(takes|is mirrored|must be|is derived).*Received: "):
        getattr(ka, name)(value)


@pytest.mark.any_backend
def test_what_is_no_layer_is_refused_as_the_second_one():
    dense = built(L.Dense(3), None, 4)
    with pytest.raises(ValueError, match="`backward` must be a layer, a model or a function. Received: backward='x'"):
        ka.check_adjoint(dense, "x")
    with pytest.raises(ValueError, match="`is_tied` takes Keras layers or models. Received: b=3"):
        ka.is_tied(dense, 3)
    with pytest.raises(ValueError, match="that of a function is not"):
        ka.check_adjoint(lambda x: 2 * x, input_shape=(2, 3))
    with pytest.raises(ValueError, match="`untie` takes a Keras layer or model"):
        ka.untie(L.InputLayer((3,)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bias": "borrow"}, '`bias` must be one of "none", "own", .*Received: bias=.borrow.'),
        ({"channel_method": "guess"}, "`channel_method` must be one of .*Received: channel_method='guess'"),
        ({"channels": 0}, "positive integer. Received: channels=0"),
        ({"channels": 1.5}, "positive integer. Received: channels=1.5"),
        ({"channels": 1, "channel_method": "repeat"}, "repeat"),
        ({"channels": 9, "channel_method": "average"}, "average"),
        ({"channels": 9, "channel_method": "truncate"}, "truncate"),
        ({"channels": 1, "channel_method": "pad"}, "pad"),
    ],
)
def test_unknown_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        ka.adjoint(built(L.Conv2D(4, 3), 5, 5, 3), **options)


# --- names that are misspelled: (how to pass the name, a misspelt one, the nearest that there is), by function and option


def conv():
    return built(L.Conv2D(4, 3), 5, 5, 3)


def model():
    return keras.Sequential([keras.Input((5, 5, 3)), L.Conv2D(4, 3, activation="relu", name="conv")])


def square():
    return ka.identity((3,))


def mesh():
    return keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])


KERNEL = np.ones((3, 3, 4, 5), "float32")
MISSPELT = {
    "adjoint(bias)": (lambda name: ka.adjoint(conv(), bias=name), "onw", "own"),
    "adjoint(channel_method)": (lambda name: ka.adjoint(conv(), channel_method=name), "lerned", "learned"),
    "adjoint(algorithm)": (lambda name: ka.adjoint(conv(), algorithm=name), "nativ", "native"),
    "mirror(bias)": (lambda name: ka.mirror(model(), bias=name), "subtact", "subtract"),
    "mirror(activation)": (lambda name: ka.mirror(model(), activation=name), "deconvnt", "deconvnet"),
    "mirror(activation), a dictionary": (lambda name: ka.mirror(model(), activation={"conv": name}), "rleu", "relu"),
    "mirror(activation), a key": (lambda name: ka.mirror(model(), activation={name: "relu"}), "cnov", "conv"),
    "mirror(output_activation)": (lambda name: ka.mirror(model(), output_activation=name), "sigmod", "sigmoid"),
    "mirror(norm)": (lambda name: ka.mirror(model(), norm=name), "invrese", "inverse"),
    "mirror(pooling)": (lambda name: ka.mirror(model(), pooling=name), "Switch", "switches"),
    "mirror(gates)": (lambda name: ka.mirror(model(), gates=name), "recored", "recorded"),
    "mirror(dropout)": (lambda name: ka.mirror(model(), dropout=name), "keeep", "keep"),
    "mirror(preprocessing)": (lambda name: ka.mirror(model(), preprocessing=name), "unod", "undo"),
    "autoencoder": (lambda name: ka.autoencoder(model(), **{name: "spread"}), "poolling", "pooling"),
    "plot_mirror": (lambda name: ka.plot_mirror(model(), pooling=name), "spred", "spread"),
    "deconvnet": (lambda name: ka.deconvnet(model(), "conv", activation=name), "gided", "guided"),
    "untie(to)": (lambda name: ka.untie(ka.adjoint(conv()), to=name), "conv_transposed", "conv_transpose"),
    "exporting(format)": (lambda name: ka.exporting(name), "ONX", "onnx"),
    "transpose_kernel(kind)": (lambda name: ka.transpose_kernel(KERNEL, name), "flipped", "flip"),
    "adapt_channels(method)": (lambda name: ka.adapt_channels(KERNEL, in_channels=2, method=name), "averge", "average"),
    "adapt_bias(method)": (lambda name: ka.adapt_bias(np.ones(4), 3, method=name), "zeroes", "zeros"),
    "plot_kernels(kind)": (lambda name: ka.plot_kernels(conv(), kind=name), "swap_spatail", "swap_spatial"),
    "identity(dtype)": (lambda name: ka.identity((3,), dtype=name), "flaot32", "float32"),
    "from_scipy(dtype)": (
        lambda name: ka.from_scipy(np.eye(3), (3,), (3,), dtype=name),
        "mixed_flaot16",
        "mixed_float16",
    ),
    "Lipschitz(dtype)": (lambda name: ka.Lipschitz(L.Dense(3), dtype=name), "flaot32", "float32"),
    "Regularized(dtype)": (lambda name: ka.Regularized(L.Dense(3), dtype=name), "bfloat", "bfloat16"),
    "lstsq(method)": (lambda name: ka.lstsq(square(), np.ones((1, 3)), method=name), "lsrm", "lsmr"),
    "lstsq(gradient)": (lambda name: ka.lstsq(square(), np.ones((1, 3)), gradient=name), "implict", "implicit"),
    "LeastSquares(method)": (lambda name: ka.LeastSquares(conv(), method=name), "cgsl", "cgls"),
    "LeastSquares(gradient)": (lambda name: ka.LeastSquares(conv(), gradient=name), "unroled", "unrolled"),
    "LeastSquares(bias)": (lambda name: ka.LeastSquares(conv(), bias=name), "subtact", "subtract"),
    "SparseCoding(dictionary)": (lambda name: ka.SparseCoding(conv(), dictionary=name), "adjiont", "adjoint"),
    "unroll(method)": (lambda name: ka.unroll(conv(), weight=1.0, method=name), "istaa", "ista"),
    "unroll(prox)": (lambda name: ka.unroll(conv(), weight=1.0, prox=name), "sofft", "soft"),
    "unroll(learn)": (lambda name: ka.unroll(conv(), weight=1.0, learn=("step", name)), "treshold", "threshold"),
    "unroll(tied)": (lambda name: ka.unroll(conv(), weight=1.0, tied=name), "forwards", "forward"),
    "unroll(data_format)": (
        lambda name: ka.unroll(conv(), weight=1.0, prox="tv", data_format=name),
        "channel_last",
        "channels_last",
    ),
    "layout_map(axis)": (lambda name: ka.layout_map(conv(), mesh(), axis=name), "modell", "model"),
    "Operator.gram(side)": (lambda name: square().gram(name), "output", "outputs"),
    "Operator.singular_values(which)": (lambda name: square().singular_values(which=name), "small", "smallest"),
    "Operator.to_deepinv(data_format)": (
        lambda name: square().to_deepinv(data_format=name),
        "channel_first",
        "channels_first",
    ),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("option", MISSPELT)
def test_the_error_about_a_name_has_the_nearest_one_and_what_was_received(option):
    call, wrong, nearest = MISSPELT[option]
    with pytest.raises(ValueError) as found:
        call(wrong)
    assert f'Did you mean "{nearest}"? Received: ' in str(found.value)
    assert wrong in str(found.value).rpartition("Received: ")[2]


@pytest.mark.any_backend
def test_every_option_that_takes_a_name_is_among_them():
    any_text = {"name", "source", "target", "layout"}  # a layout is no name from a list
    public = {name: getattr(ka, name) for name in ka.__all__} | {
        f"Operator.{name}": one for name, one in vars(Operator).items() if inspect.isfunction(one) and name[0] != "_"
    }
    options = {
        f"{name}({parameter.name})"
        for name, one in public.items()
        if not (isinstance(one, type) and issubclass(one, (Exception, ka.AdjointReport)))
        for parameter in inspect.signature(one).parameters.values()
        if parameter.annotation in (str, str | None) and parameter.name not in any_text
    }
    policies = {f"mirror({field.name})" for field in dataclasses.fields(Policies)}
    assert len(options) > 9 and options | policies <= MISSPELT.keys()


@pytest.mark.parametrize("mode", ["repeat", "average", "learned"])
def test_a_bias_that_starts_from_the_source_needs_one_there(mode):
    with pytest.raises(ValueError, match=f'use `bias="own"`. Received: bias={mode!r}.*use_bias=False'):
        ka.adjoint(built(L.Dense(4, use_bias=False), 3), bias=mode)


def test_options_that_make_no_sense_for_a_layer_are_refused():
    for layer, options in (
        (L.Permute((2, 1)), {"bias": "own"}),
        (L.ZeroPadding2D(1), {"channels": 3}),
        (L.UpSampling2D(2), {"output_size": (3, 3)}),
        (built(L.Dense(3), 2), {"output_size": (3,)}),
    ):
        (option,) = options
        with pytest.raises(ValueError, match=f"takes no `{option}`; it takes .*Received: {option}="):
            ka.adjoint(layer, **options)
    for layer in (built(L.BatchNormalization(), 3), built(L.EinsumDense("ab,bc->ac", 4), 3)):
        with pytest.raises(ValueError, match="a bias of none or subtract. Received: bias='own'"):
            ka.adjoint(layer, bias="own")


class DoubledConv(L.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


class RenamedConv(L.Conv2D):
    """Computes what its parent does."""


class DoubledOperation(L.Conv2D):
    def convolution_op(self, inputs, kernel):
        return 2 * super().convolution_op(inputs, kernel)


@pytest.mark.parametrize("layer_class", [DoubledConv, DoubledOperation])
def test_a_subclass_that_computes_something_else_does_not_inherit_the_rule(layer_class):
    layer = built(layer_class(3, 3), 5, 5, 1)
    with pytest.raises(ka.NoRuleError, match="replaces the computation of `Conv2D`.*does not inherit"):
        ka.layers.registry.rule_for(layer)
    assert isinstance(ka.adjoint(layer), AutomaticAdjoint) and ka.check_adjoint(layer)


def test_a_subclass_that_computes_the_same_inherits_the_rule():
    layer = built(RenamedConv(3, 3), 5, 5, 1)
    assert ka.check_adjoint(layer)


def test_a_layer_whose_call_was_replaced_does_not_keep_the_rule():
    layer = built(L.Dense(3), 2)
    layer.call = lambda x: x
    with pytest.raises(ka.NoRuleError, match="No adjoint is known for `Dense`"):
        ka.adjoint(layer)


def new_layer_class():
    class Reverse(L.Layer):
        def call(self, x):
            return keras.ops.flip(x, axis=1) * 2.0

    return Reverse


def test_a_registered_rule_is_used():
    reverse = new_layer_class()

    @ka.register_rule(reverse)
    def rule(source):
        return reverse()

    layer = built(reverse(), 5, 3)
    assert isinstance(ka.adjoint(layer), reverse)
    assert ka.check_adjoint(layer)
    assert ka.adjoint(ka.adjoint(layer)) is layer


@pytest.mark.parametrize(
    "wrong, reason",
    [(lambda source: L.Rescaling(2.0), "residual"), (lambda source: L.Flatten(), r"returns shape \(2, 15\)")],
)
def test_a_registered_rule_that_fails_its_adjoint_test_is_refused(wrong, reason):
    reverse = new_layer_class()
    ka.register_rule(reverse)(wrong)
    with pytest.raises(ka.NoRuleError, match=f"`Reverse` fails the adjoint test, so it is not used: .*{reason}"):
        ka.adjoint(built(reverse(), 5, 3))


def test_a_registered_rule_cannot_be_tested_without_an_input_shape():
    reverse = new_layer_class()
    ka.register_rule(reverse)(lambda source: reverse())
    with pytest.raises(ka.NoRuleError, match="input shape must be known"):
        ka.adjoint(reverse())


def test_registering_for_a_class_of_keras_or_for_an_instance_is_refused():
    with pytest.raises(ValueError, match="`Dense` already has a rule"):
        ka.register_rule(L.Dense)
    with pytest.raises(ValueError, match="layer class, not an instance"):
        ka.register_rule(L.Dense(3))


def test_a_refused_rule_says_by_what_it_is_off_and_is_corrected_by_registering_another():
    reverse = new_layer_class()

    def half(source):
        return keras.Sequential([reverse(), L.Rescaling(0.5)])

    ka.register_rule(reverse)(half)
    layer = built(reverse(), 5, 3)
    with pytest.raises(ka.NoRuleError, match=r"is 0\.5 times the adjoint.*check_adjoint\(layer, half\(layer\)\)"):
        ka.adjoint(layer)
    ka.register_rule(reverse)(lambda source: reverse())
    assert ka.check_adjoint(layer, ka.adjoint(layer))


@pytest.mark.skipif(KERAS < (3, 12), reason="Keras has no such quantisation")
def test_a_kernel_quantised_beyond_recovery_is_refused():
    dense = built(L.Dense(8), 16)
    dense._dtype_policy = keras.dtype_policies.get("gptq/4/-1_from_float32")
    with pytest.raises(ka.TieError, match="quantised to gptq.*Received: quantization_mode='gptq'"):
        ka.adjoint(dense)


@pytest.mark.skipif(not (3, 12) <= KERAS < (3, 15), reason="Keras has no such quantisation, or packs columns")
def test_a_kernel_in_int4_is_refused_where_rows_are_packed():
    dense = built(L.Dense(8), 16)
    dense.quantize("int4")
    with pytest.raises(ka.TieError, match="quantised to int4.*Received: quantization_mode='int4'"):
        ka.adjoint(dense)


@pytest.mark.skipif(KERAS < (3, 12), reason="Keras has no such quantisation")
def test_a_kernel_quantised_after_its_adjoint_was_made_is_noticed():
    dense = built(L.Dense(8), 16)
    layer = ka.adjoint(dense)
    dense._dtype_policy = keras.dtype_policies.get("gptq/4/-1_from_float32")
    with pytest.raises(ka.TieError, match="quantised to gptq"):
        layer(np.ones((1, 8), "float32"))


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: L.Conv2D(4, 3, strides=2), (7, 7, 2)),
        (lambda: L.Conv2D(4, 3, groups=2), (7, 7, 2)),
        (lambda: L.Conv2DTranspose(4, 3), (7, 7, 2)),
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (7, 7, 2)),
        (lambda: L.SeparableConv2D(4, 3), (7, 7, 2)),
        (lambda: L.Dense(4), (2,)),
    ],
)
def test_input_with_another_number_of_channels_is_refused_by_name(layer, shape):
    layer = built(layer(), *shape)
    wrong = (*layer.compute_output_shape((1, *shape))[:-1], 5)
    with pytest.raises(ValueError, match=r"`back` takes the output of `.*`: .* size 4. Received: .* \(1, .*5\)"):
        ka.adjoint(layer, name="back")(np.ones(wrong, "float32"))


@pytest.mark.parametrize("symbolic", [False, True])
def test_input_without_a_batch_axis_is_refused_by_name(symbolic):
    layer = built(L.Dense(4), 2)
    y = keras.KerasTensor((4,)) if symbolic else np.ones((4,), "float32")
    with pytest.raises(ValueError, match=r"`back` takes the output of `.*`: 2 or more axes.*Received: .*\(4,\)"):
        ka.adjoint(layer, name="back")(y)


@pytest.mark.parametrize("shape", [(4,), (1, 3, 4), (1, 1, 3, 3, 4)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_input_with_another_number_of_axes_is_refused_by_name(shape, symbolic):
    layer = built(L.Conv2D(4, 3, strides=2), 7, 7, 2)
    y = keras.KerasTensor(shape) if symbolic else np.ones(shape, "float32")
    with pytest.raises(ValueError, match=r"`back` takes the output of `.*`: 4 axes.*Received: "):
        ka.adjoint(layer, name="back")(y)


def test_without_switches_it_says_what_to_pass():
    pool, maximum, x = L.MaxPooling1D(2), L.Maximum(), np.ones((1, 4, 4, 2), "float32")
    each = L.TimeDistributed(pool)
    y, larger = each(x), maximum([x, x])
    single = ka.adjoint(pool)
    for adjoint, given in (
        (single, y[0]),
        (ka.adjoint(each), y),
        (ka.adjoint(maximum), larger),
        (ka.adjoint(single), x[0]),
    ):
        with pytest.raises(
            ka.SizeError, match=r"`adjoint\(layer\)\(y, switches=x\)`. Received: y.shape=.*, switches=None"
        ):
            adjoint(given)
    with pytest.raises(ka.SizeError, match="switches=None"):
        single(keras.Input((2, 2)))


def test_switches_of_another_size_are_refused():
    with pytest.raises(
        ka.SizeError, match=r"tensor that the source pooled. Received: y.shape=\(1, 3, 2\), switches.shape"
    ):
        ka.adjoint(L.MaxPooling1D(2))(np.ones((1, 3, 2), "float32"), switches=np.ones((1, 9, 2), "float32"))


def test_all_errors_share_one_base_class():
    for error in (ka.NoRuleError, ka.TieError, ka.SizeError):
        assert issubclass(error, ka.KerasAdjointError)
