"""What errors tell to do works, in the very case that raises them."""

import re

import keras
import numpy as np
import pytest
from encoders import Cube, X, chain
from keras import ops

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend
L = keras.layers


@keras.saving.register_keras_serializable(package="test_hints")
class Halved(L.Layer):
    """A layer without a rule that is not linear and changes the shape."""

    def call(self, x):
        return ops.abs(x[:, ::2])


@keras.saving.register_keras_serializable(package="test_hints")
class Largest(L.Layer):
    """A layer without a rule that has two inputs, and an output of the same shape."""

    def call(self, x, y):
        return ops.maximum(x, y)


def choices_in(error, policy):
    """The values of a policy that a message offers."""
    return [eval(text) for text in re.findall(rf"`{policy}=(.+?)`", str(error.value))]


def last_words(error):
    """What follows the place and the reason in a message."""
    return str(error.value).partition(". ")[2]


def two_inputs():
    x = keras.Input((6, 3))
    return keras.Model(x, Largest(name="odd")(x, L.Dense(3)(x)), name="encoder")


def with_states():
    x = keras.Input((6, 3))
    return keras.Model(x, L.LSTM(3, return_state=True, return_sequences=True, name="odd")(x), name="encoder")


SHAPED = {
    "another size": lambda: chain(Halved(name="odd"), L.Conv2D(2, 2)),
    "another rank": lambda: chain(L.LSTM(3, name="odd"), L.Dense(2), shape=(6, 3)),
    "two inputs": two_inputs,
    "several outputs": with_states,
}
KEEPING = [
    {policy: {"odd": choice}}
    for policy, choices in {
        "activation": ("linear", "same", "tanh", "gradient"),
        "norm": ("skip", "own"),
        "gates": ("skip",),
        "dropout": ("drop", "keep"),
        "preprocessing": ("skip",),
    }.items()
    for choice in choices
]


@pytest.mark.parametrize("make", SHAPED.values(), ids=SHAPED.keys())
def test_a_layer_that_changes_the_shape_cannot_be_declared_to_be_left_out(make):
    encoder = make()
    with pytest.raises(ka.NoRuleError, match="has neither an adjoint nor a policy") as error:
        ka.autoencoder(encoder)
    (choice,) = choices_in(error, "activation")
    assert choice == {"odd": "gradient"}
    assert ka.autoencoder(encoder, activation=choice).output_shape == encoder.input_shape
    assert "`keras.Model(encoder.inputs, tensor)`" in str(error.value)
    before = encoder.get_layer("odd").input
    ka.autoencoder(keras.Model(encoder.inputs, [L.Identity()(x) for x in keras.tree.flatten(before)]))


@pytest.mark.parametrize("policies", KEEPING, ids=str)
@pytest.mark.parametrize("make", SHAPED.values(), ids=SHAPED.keys())
def test_policies_are_refused_or_give_the_shape_of_the_input(make, policies):
    encoder = make()
    try:
        autoencoder = ka.autoencoder(encoder, **policies)
    except ka.NoRuleError as error:
        assert "`encoder/odd`" in str(error) and "Received: source='odd'" in str(error)
    else:
        assert autoencoder.output_shape == encoder.input_shape


def test_a_layer_that_keeps_the_shape_is_left_out_as_the_hint_says():
    encoder = chain(L.Conv2D(4, 3), Cube(name="cube"), L.Conv2D(5, 1))
    with pytest.raises(ka.NoRuleError) as error:
        ka.mirror(encoder)
    gradient, leaving_out = choices_in(error, "activation")
    assert ka.autoencoder(encoder, activation=gradient).output_shape == encoder.input_shape
    assert ka.mirror(encoder, activation=leaving_out).output_shape == encoder.input_shape


@pytest.mark.parametrize(
    "policies",
    [{"norm": {"odd": "scale"}}, {"norm": {"odd": "inverse"}}, {"pooling": {"odd": "spread"}}],
    ids=str,
)
def test_what_has_no_scale_and_no_windows_is_refused(policies):
    encoder = chain(Cube(name="odd"), L.Conv2D(5, 1))
    with pytest.raises(ka.NoRuleError, match="No layer is known for .* in the place of `encoder/odd`") as error:
        ka.mirror(encoder, **policies)
    gradient, leaving_out = choices_in(error, "activation")
    assert ka.autoencoder(encoder, activation=gradient).output_shape == encoder.input_shape
    assert ka.mirror(encoder, activation=leaving_out).output_shape == encoder.input_shape


def gated():
    x = keras.Input((13, 11, 3))
    return keras.Model(x, L.Multiply()([L.Conv2D(3, 1)(x), L.Conv2D(3, 1, activation="sigmoid")(x)]))


@pytest.mark.parametrize(
    "policy, choice, make",
    [
        ("activation", "gradient", lambda: chain(L.Conv2D(4, 3), L.ReLU(), L.Conv2D(5, 1, activation="gelu"))),
        ("activation", "guided", lambda: chain(L.Conv2D(4, 3), L.ReLU(), L.Conv2D(5, 1))),
        (
            "activation",
            {"odd": "gradient", "default": "guided"},
            lambda: chain(L.Conv2D(4, 3), L.ReLU(), L.Conv2D(5, 1, activation="gelu", name="odd")),
        ),
        ("pooling", "switches", lambda: chain(L.MaxPooling2D(2), L.GlobalMaxPooling2D())),
        ("gates", "recorded", gated),
        ("gates", "gradient", gated),
        ("norm", "adjoint", lambda: chain(L.Conv2D(4, 3), L.LayerNormalization(), L.Conv2D(5, 1))),
    ],
)
def test_what_needs_recorded_activations_says_what_does_not(policy, choice, make):
    encoder = make()
    with pytest.raises(ValueError, match="Use `keras_adjoint.autoencoder`") as error:
        ka.mirror(encoder, **{policy: choice})
    others = choices_in(error, policy)
    assert others
    for other in others:
        assert ka.mirror(encoder, **{policy: other}).output_shape == encoder.input_shape
    assert ka.autoencoder(encoder, **{policy: choice})(X).shape == X.shape


def test_guided_of_what_is_no_rectifier_says_first_that_it_needs_records():
    encoder = chain(L.Conv2D(4, 3), L.ReLU(), L.Conv2D(5, 1, activation="gelu"))
    with pytest.raises(ValueError, match="Use `keras_adjoint.autoencoder`") as error:
        ka.mirror(encoder, activation="guided")
    for other in choices_in(error, "activation"):
        assert ka.mirror(encoder, activation=other).output_shape == encoder.input_shape
    with pytest.raises(ka.NoRuleError, match="is defined for rectifiers"):
        ka.autoencoder(encoder, activation="guided")


def test_an_input_of_known_size_makes_a_mirror_possible():
    encoder = chain(L.Conv2D(4, 3, strides=2), shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"`keras.Model\(x, encoder\(x\)\)` with `x = keras.Input") as error:
        ka.mirror(encoder)
    assert "activation" not in last_words(error).replace("an activation that the encoder recorded", "")
    x = keras.Input((13, 11, 3))
    assert ka.mirror(keras.Model(x, encoder(x))).output_shape == (None, 13, 11, 3)


def test_a_product_whose_factors_are_both_broadcast():
    x = keras.Input((4, 3))
    rows, columns = L.Dense(1)(x), L.GlobalAveragePooling1D(keepdims=True)(x)
    encoder = keras.Model(x, L.Multiply(name="outer")([rows, columns]), name="encoder")
    with pytest.raises(ka.NoRuleError, match=r'`gates="skip"` gives no cotangent of the right shape: `encoder/outer`'):
        ka.mirror(encoder, gates="skip")
    assert ka.autoencoder(encoder, gates="recorded")(np.ones((2, 4, 3))).shape == (2, 4, 3)


def test_operations_that_keep_the_shape_can_be_declared_activations():
    x = keras.Input((3,))
    encoder = keras.Model(x, ops.clip(x, -1.0, 0.5))
    found = ka.autoencoder(encoder, activation={"clip": "gradient"})(np.array([[2.0, 0.25, -3.0]], "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [[0.0, 0.25, 0.0]])


# --- adjoints of models and layers


def of_input(shape, function):
    x = keras.Input(shape)
    return keras.Model(x, function(x), name="model")


BATCH_AXIS = {
    "reshape": ((2, 3), lambda x: ops.reshape(x, (-1, 3)), "keras.layers.Reshape", lambda x: L.Reshape((-1, 3))(x)),
    "transpose": (
        (2, 3),
        lambda x: ops.transpose(x, (1, 0, 2)),
        "keras.layers.Permute",
        lambda x: L.Permute((2, 1))(x),
    ),
    "concatenate": (
        (2, 3),
        lambda x: ops.concatenate([x, x], axis=0),
        "another axis",
        lambda x: ops.concatenate([x, x], axis=1),
    ),
    "flip": ((2, 3), lambda x: ops.flip(x, axis=0), "another axis", lambda x: ops.flip(x, axis=1)),
    "slice": ((2, 3), lambda x: x[:1, :], "another axis", lambda x: x[:, :1]),
    "new axis": ((3,), lambda x: ops.expand_dims(x, 0), "another axis", lambda x: ops.expand_dims(x, 1)),
    "constant of samples": (
        (3,),
        lambda x: x * np.ones((5, 3), "float32"),
        "constant[:1]",
        lambda x: x * np.ones((5, 3), "float32")[:1],
    ),
    "constant of more axes": (
        (3,),
        lambda x: x * np.ones((5, 1, 3), "float32"),
        "as many axes",
        lambda x: ops.expand_dims(x, 1) * np.ones((5, 1, 3), "float32")[:1],
    ),
}


@pytest.mark.parametrize("name", BATCH_AXIS)
def test_what_touches_the_batch_axis_has_a_way_out(name):
    shape, function, words, instead = BATCH_AXIS[name]
    with pytest.raises(ka.NoRuleError, match=f"`model/.*The first axis is that of the samples.*{re.escape(words)}"):
        ka.adjoint(of_input(shape, function))
    model = of_input(shape, instead)
    assert ka.check_adjoint(model)


UNBUILT = {
    "Dense": lambda: (L.Dense(3), np.ones((2, 4))),
    "Conv2D": lambda: (L.Conv2D(3, 2), np.ones((2, 5, 4, 3))),
    "BatchNormalization": lambda: (L.BatchNormalization(), np.ones((2, 4))),
    "Add": lambda: (L.Add(), [np.ones((2, 4)), np.ones((2, 4))]),
    "Concatenate": lambda: (L.Concatenate(), [np.ones((2, 4)), np.ones((2, 3))]),
    "EinsumDense": lambda: (L.EinsumDense("ab,bc->ac", output_shape=3), np.ones((2, 4))),
}


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("name", UNBUILT)
def test_an_unbuilt_layer_is_called_or_built(name, called):
    layer, x = UNBUILT[name]()
    with pytest.raises(ka.TieError, match=r"not built, .* Call it, or `layer.build\(.* asks before") as error:
        ka.adjoint(layer)
    assert "kernel" not in str(error.value)
    if called:
        layer(x)
    else:
        layer.build(keras.tree.map_structure(lambda one: one.shape, x))
    assert ka.check_adjoint(layer, input_shape=keras.tree.map_structure(np.shape, x))


def test_a_shape_that_check_adjoint_does_not_know_is_passed():
    with pytest.raises(ValueError, match="Pass it as `input_shape`, batch axis included"):
        ka.check_adjoint(lambda x: 2 * x, lambda y: 2 * y)
    assert ka.check_adjoint(lambda x: 2 * x, lambda y: 2 * y, input_shape=(2, 3))


def test_channels_that_one_method_cannot_make_another_does():
    kernel = np.ones((1, 1, 4, 3))
    for size, method in ((2, "repeat"), (8, "average"), (8, "truncate"), (2, "pad")):
        with pytest.raises(ValueError, match="Use `method=") as error:
            ka.adapt_channels(kernel, in_channels=size, method=method)
        (other,) = re.findall(r"Use `method='(\w+)'`", str(error.value))
        assert ka.adapt_channels(kernel, in_channels=size, method=other).shape == (1, 1, size, 3)


def test_an_int4_kernel_in_the_order_of_an_older_keras_is_read_before_or_as_int8(monkeypatch):
    monkeypatch.setattr("keras_adjoint.layers.kernel._is_packed_by_columns", lambda source: False)

    def dense(mode):
        layer = L.Dense(4, use_bias=False)
        layer.build((None, 6))
        owner = ka.adjoint(layer, tied=False)
        layer.quantize(mode)
        return layer, owner

    layer, owner = dense("int4")
    with pytest.raises(ka.TieError, match='Quantise with "int8".*`tied=False` before quantising'):
        ka.adjoint(layer)
    y = np.ones((2, 4), "float32")
    assert owner(y).shape == (2, 6)
    assert ka.adjoint(dense("int8")[0])(y).shape == (2, 6)


def test_only_layers_that_a_policy_may_be_about_are_suggested():
    encoder = chain(L.Dense(3), L.ReLU(), shape=(4,))
    for name in ("input", "input_layr"):
        with pytest.raises(ValueError, match=f"no layer of the name '{name}'. Received"):
            ka.mirror(encoder, activation={name: "linear"})
    near = encoder.layers[-1].name[:-1]
    with pytest.raises(ValueError, match=f'Did you mean "{encoder.layers[-1].name}"'):
        ka.mirror(encoder, activation={near: "linear"})


@pytest.mark.only_on("torch")
def test_what_pytorch_computes_again_is_made_outside_of_that_scope():
    def made():
        x, layer = keras.Input((4,)), L.Lambda(lambda x: ops.cumsum(x, axis=-1))
        return layer, keras.Model(x, layer(x))

    with keras.RematScope(mode="full"):
        layer, encoder = made()
    for make, source in ((ka.adjoint, layer), (ka.mirror, encoder)):
        with pytest.raises(ka.NoRuleError, match="Make it outside of that scope"):
            make(source)
    layer, encoder = made()
    assert ka.check_adjoint(layer, ka.adjoint(layer)) and ka.mirror(encoder).output_shape == (None, 4)
