"""`mirror` and `autoencoder`: graphs, sizes, recorded activations and ties, whatever the policies."""

import keras
import numpy as np
import pytest
from autodiff import gradients, one_by_one
from encoders import EXACT, Cube, X, assert_close, back, chain, features, values
from keras import ops
from layer_list import randomize

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend

L = keras.layers


def residual_network():
    x = keras.Input((13, 11, 3))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(x)))
    y = L.MaxPooling2D(3, 2, padding="same")(y)
    for _ in range(2):
        z = L.Conv2D(4, 3, padding="same", activation="relu")(y)
        z = L.SeparableConv2D(4, 3, padding="same")(z)
        y = L.Activation("relu")(L.Add()([y, L.BatchNormalization()(z)]))
    y = L.Concatenate()([y, L.MaxPooling2D(2, 1, padding="same")(y), L.AveragePooling2D(2, 1, padding="same")(y)])
    model = keras.Model(x, L.Dense(5)(L.GlobalMaxPooling2D()(y)), name="encoder")
    for layer in model.layers:
        if layer.weights:
            randomize(layer)
    return model


# --- where everything is exact


@pytest.mark.every_backend
def test_the_mirror_of_a_linear_encoder_without_biases_is_its_adjoint():
    encoder = chain(L.Conv2D(4, 3, strides=2), L.DepthwiseConv2D(3), L.AveragePooling2D(2), L.Flatten(), L.Dense(5))
    code = features(5)
    assert_close(back(encoder, code, bias="none"), values(ka.adjoint(encoder)(code)))


@pytest.mark.every_backend
@pytest.mark.parametrize("start", [0, pytest.param(1, marks=pytest.mark.in_turn("torch"))])
def test_with_gradients_switches_and_adjoints_the_backward_pass_is_the_gradient_of_the_network(start):
    """∇ ½‖f(x)‖² = J(x)ᵀ f(x), by the backend's own differentiation."""
    encoder = residual_network()
    x = ops.convert_to_tensor(X[start : start + 1])
    with one_by_one():
        (gradient,) = gradients(lambda x: ops.sum(encoder(x, training=False) ** 2) / 2, [x])
    assert_close(values(ka.autoencoder(encoder, **EXACT)(x, training=False)), gradient)


@pytest.mark.every_backend
def test_every_kernel_is_shared_and_nothing_else_is_added():
    encoder = residual_network()
    for model in (ka.mirror(encoder), ka.autoencoder(encoder)):
        assert ka.is_tied(model, encoder)
        own = [weight for weight in model.weights if all(weight is not other for other in encoder.weights)]
        norms = sum(layer.count_params() for layer in encoder.layers if isinstance(layer, L.BatchNormalization))
        biases = 3 + 4 * 2 + 4 * 2 + 12  # an own bias for each input of a convolution or dense layer: its channels
        assert sum(int(np.prod(weight.shape)) for weight in own) == norms + biases


@pytest.mark.parametrize("policies", [{}, {**EXACT}, {"norm": "inverse", "pooling": "average", "bias": "subtract"}])
def test_mirrors_survive_their_files(policies, tmp_path):
    encoder = residual_network()
    models = [ka.autoencoder(encoder, **policies)]
    if policies.get("pooling") != "switches":
        models.append(ka.mirror(encoder, **policies))
    for model in models:
        model.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        x = X if len(model.input_shape) == 4 else features(5)
        assert_close(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
        assert loaded.count_params() == model.count_params()
    assert ka.is_tied(keras.saving.load_model(tmp_path / "m.keras")) == (len(models) == 1)


def test_untied_mirrors_share_nothing():
    encoder = residual_network()
    mirror = ka.mirror(encoder, tied=False, norm="adjoint", bias="none")
    assert not {id(weight) for weight in mirror.weights} & {id(weight) for weight in encoder.weights}
    assert_close(values(mirror(features(5))), back(encoder, features(5), norm="adjoint", bias="none"))


def test_layers_are_named_after_what_they_undo():
    encoder = chain(
        L.Conv2D(4, 3, name="first", activation="relu"), L.BatchNormalization(name="norm"), L.Flatten(name="flat")
    )
    names = [layer.name for layer in ka.mirror(encoder).layers]
    assert names == ["from_flat", "flat_adjoint", "norm_mirror", "first_activation", "first_adjoint"]
    encoder.name = "spelled"
    assert [ka.mirror(encoder).name for _ in range(2)] == ["spelled_mirror", "spelled_mirror_1"]
    assert ka.autoencoder(encoder).name == "spelled_autoencoder"
    assert ka.mirror(encoder, name="decoder").name == "decoder"


def test_a_tied_layer_counts_only_its_own_parameters_in_a_summary():
    encoder = chain(L.Conv2D(4, 3, name="conv"))
    lines = []
    ka.autoencoder(encoder).summary(print_fn=lines.append, line_length=78)
    (row,) = [line for line in "\n".join(lines).splitlines() if "conv_adjoint" in line]
    assert "AdjointConv" in row and row.split("│")[3].strip() == "3"


# --- recorded activations


def test_an_autoencoder_of_unknown_size_returns_every_size_that_comes():
    layers = [L.Conv2D(4, 3, strides=2, padding="same"), L.MaxPooling2D(), L.Conv2D(4, 3, strides=2, activation="relu")]
    encoder = chain(*layers, shape=(None, None, 3))
    for policies in ({}, EXACT):
        model = ka.autoencoder(encoder, **policies)
        for size in [(31, 30), (28, 33)]:
            assert tuple(model(np.ones((1, *size, 3))).shape) == (1, *size, 3)


def test_a_mirror_of_unknown_size_says_what_it_needs_and_how_to_get_it():
    encoder = chain(L.Conv2D(4, 3, strides=2, name="conv"), shape=(None, None, 3))
    with pytest.raises(
        ValueError,
        match=r"size.*needs an activation.*recorded.*`encoder/conv`.*autoencoder.*keras.Model\(x, encoder\(x\)\)",
    ):
        ka.mirror(encoder)
    x = keras.Input((12, 15, 3))
    assert ka.mirror(keras.Model(x, encoder(x))).output_shape == (None, 12, 15, 3)
    with pytest.raises(
        ka.SizeError, match=r"`encoder/conv` takes .*keras.Model\(x, model\(x\)\).*operator\(model, size="
    ):
        ka.adjoint(encoder, linear_part=True)
    with pytest.raises(ValueError, match=r"alone. It gives .*keras.Model\(x, model\(x\)\).*Received: output_size"):
        ka.adjoint(encoder, output_size=(12, 15))
    assert ka.adjoint(keras.Model(x, encoder(x)), linear_part=True).output_shape == (None, 12, 15, 3)


@pytest.mark.every_backend
def test_a_mirror_of_unknown_size_without_strides_needs_no_records():
    encoder = chain(L.Conv2D(4, 3), L.Conv2D(4, 3, padding="same", activation="relu"), shape=(None, None, 3))
    assert tuple(ka.mirror(encoder)(np.ones((1, 5, 6, 4))).shape) == (1, 7, 8, 3)


@pytest.mark.parametrize(
    "policies, message",
    [
        ({"activation": "gradient"}, "an activation by .gradient.*`encoder/relu`"),
        ({"activation": "guided"}, 'an activation by "guided".*`encoder/relu`'),
        ({"pooling": "switches"}, 'max pooling by "switches".*`encoder/pool`'),
        ({"gates": "recorded"}, 'a gate by "recorded".*`encoder/gate`'),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_mirror_says_which_policy_needs_an_activation_and_where(policies, message):
    x = keras.Input((8, 8, 2))
    y = L.MaxPooling2D(name="pool")(L.ReLU(name="relu")(x))
    encoder = keras.Model(x, L.Multiply(name="gate")([y, L.GlobalAveragePooling2D(keepdims=True)(y)]), name="encoder")
    with pytest.raises(ValueError, match=f"(?s)To undo {message}.*`keras_adjoint.autoencoder`"):
        ka.mirror(encoder, **policies)
    assert ka.autoencoder(encoder, **policies).output_shape == (None, 8, 8, 2)


# --- nested models


def with_blocks(names=("a", "b"), inner="conv"):
    x = y = keras.Input((13, 11, 3))
    for name in names:
        block_x = keras.Input(y.shape[1:])
        block_y = L.MaxPooling2D(2, name=f"{inner}_pool" if inner else None)(
            L.Conv2D(3, 3, activation="relu", name=inner)(block_x)
        )
        y = keras.Model(block_x, block_y, name=name)(y)
    return keras.Model(x, y, name="encoder")


def test_nested_models_are_walked_and_layers_are_named_with_their_place():
    encoder = with_blocks()
    names = [layer.name for layer in ka.mirror(encoder).layers[1:]]
    assert names == [
        "b_conv_pool_spread",
        "b_conv_adjoint",
        "a_conv_pool_spread",
        "a_conv_activation",
        "a_conv_adjoint",
    ]


def test_nested_models_stay_whole_where_nothing_inside_is_remembered():
    encoder = with_blocks()
    model = ka.autoencoder(encoder)
    assert {"a", "b"} < {layer.name for layer in model.layers}
    assert_close(values(model(X)), values(ka.mirror(encoder)(encoder(X))))


def test_recorded_activations_from_inside_nested_models(tmp_path):
    encoder = with_blocks(inner=None)  # names that Keras makes up differ
    model = ka.autoencoder(encoder, **EXACT)
    x = ops.convert_to_tensor(X)
    (gradient,) = gradients(lambda x: ops.sum(encoder(x) ** 2) / 2, [x])
    assert_close(values(model(x)), gradient)
    model.save(tmp_path / "m.keras")
    assert_close(values(keras.saving.load_model(tmp_path / "m.keras")(X)), gradient)


def test_names_that_clash_when_nested_layers_are_laid_open_are_named():
    with pytest.raises(ValueError, match="`encoder/a/conv` and `encoder/b/conv` have the same"):
        ka.autoencoder(with_blocks(), pooling="switches")


def test_a_sequential_encoder():
    encoder = keras.Sequential(
        [keras.Input((28, 28, 1)), L.Conv2D(4, 3, strides=2, activation="relu"), L.Flatten(), L.Dense(7)]
    )
    assert ka.mirror(encoder).output_shape == ka.autoencoder(encoder).output_shape == (None, 28, 28, 1)


@pytest.mark.every_backend
def test_several_inputs_and_outputs():
    x, z = keras.Input((13, 11, 3)), keras.Input((5,))
    y = L.Conv2D(4, 3, activation="relu")(x)
    encoder = keras.Model([x, z], [L.Add()([L.GlobalAveragePooling2D()(y), L.Dense(4)(z)]), y])
    assert [shape[1:] for shape in ka.autoencoder(encoder).output_shape] == [(13, 11, 3), (5,)]
    decoder = ka.mirror(encoder)
    assert [tuple(back.shape) for back in decoder([features(4), features(11, 9, 4)])] == [(2, 13, 11, 3), (2, 5)]


# --- what is refused


@pytest.mark.parametrize(
    "policies, message",
    [
        (
            {"norm": "own_"},
            'must be one of "own", "inverse", "adjoint", "scale", "skip". Did you mean "own".*norm=.own_.',
        ),
        ({"activation": "foo"}, "or any activation of Keras, such as .sigmoid.. Received: activation='foo'"),
        ({"bias": "zero"}, '`bias` must be one of "none", "own"'),
        ({"pooling": {"conv": "max"}}, "`pooling` must be one of"),
        ({"norm": {"nrm": "own"}}, "has no layer of the name 'nrm'"),
        ({"bias": {3: "own"}}, "has no layer of the name 3"),
        ({"gates": lambda layer: "maybe"}, '`gates` must be one of "skip", "recorded"'),
    ],
)
def test_policies_that_do_not_exist_are_refused(policies, message):
    x = keras.Input((8, 8, 2))
    y = L.Conv2D(2, 1, name="conv")(x)
    encoder = keras.Model(x, L.Multiply()([y, y]))
    with pytest.raises(ValueError, match=message):
        ka.mirror(encoder, **policies)


def test_a_layer_without_rule_or_policy_is_named_with_its_place_and_both_ways_out():
    encoder = chain(keras.Sequential([keras.Input((13, 11, 3)), Cube(name="cube")], name="inner"))
    with pytest.raises(
        ka.NoRuleError,
        match=r"`encoder/inner/cube`, a `Cube`, has neither an adjoint nor a policy.*rule\(Cube\).*activation=\{.cube.: ",
    ):
        ka.mirror(encoder)


def test_a_subclassed_encoder_is_refused():
    class Encoder(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ka.NoRuleError, match="its `call` is its own"):
        ka.mirror(Encoder())


def test_a_policy_of_another_name_is_refused():
    encoder = chain(L.Dense(3))
    for make in (ka.autoencoder, lambda model, **policies: ka.deconvnet(model, model.layers[1], **policies)):
        with pytest.raises(ValueError, match="The policies are called bias, activation.*Received: norms='own'"):
            make(encoder, norms="own")


def test_a_single_layer_is_refused():
    with pytest.raises(ValueError, match="of a single layer take the `adjoint`. Received: encoder=<Dense"):
        ka.mirror(L.Dense(3))


def test_a_policy_without_a_layer_for_it_is_refused():
    encoder = chain(Cube(name="cube"))
    with pytest.raises(ka.NoRuleError, match='No layer is known for norm="inverse"'):
        ka.mirror(encoder, norm={"cube": "inverse"})
