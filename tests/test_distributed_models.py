"""A model inside of `TimeDistributed` is mirrored as it is alone, at every step; and `untie` takes adjoints inside of one."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from encoders import EXACT, assert_close, values
from helpers import RARELY_JAX, in_turn
from keras import ops
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.testing.model import check_layers

L = keras.layers
STEPS = 3


def chain():
    layers = [
        L.Rescaling(0.5),
        L.Conv1D(4, 3, strides=2, activation="relu"),
        L.Flatten(),
        L.Dense(3, activation="tanh"),
    ]
    return keras.Sequential([keras.Input((8, 2)), *layers])


def branches():
    x = keras.Input((8, 2))
    y = L.Conv1D(4, 3, padding="same", activation="relu")(x)
    y = L.Concatenate()([L.Add()([y, L.Dense(4)(y)]), ops.relu(y - 0.1)])
    return keras.Model(x, L.LayerNormalization()(L.MaxPooling1D(2)(y)))


def nested():
    x = keras.Input((8, 2))
    y = L.BatchNormalization()(L.Conv1D(3, 3, strides=2)(x))
    y = keras.Sequential([keras.Input((3, 3)), L.Dense(2, activation="gelu"), L.GlobalAveragePooling1D()])(y)
    return keras.Model(x, y)


def steps_inside():
    x = keras.Input((8, 2))
    y = L.TimeDistributed(keras.Sequential([L.Dense(4, activation="relu"), L.BatchNormalization()]))(x)
    return keras.Model(x, L.AveragePooling1D(2)(y))


MODELS = {make.__name__: make for make in (chain, branches, nested, steps_inside)}
POLICIES = [
    {},
    {"norm": "inverse", "bias": "none", "pooling": "average", "output_activation": "sigmoid"},
    {"activation": "linear", "bias": "subtract", "norm": "skip", "preprocessing": "adjoint"},
]


def encoders(make, steps=STEPS):
    """A model alone, and the same one at every step."""
    model = make()
    for layer in layers_inside(model):
        if layer.weights and not layers_inside(layer):
            randomize(layer)
    x = keras.Input((steps, *model.input_shape[1:]))
    return model, keras.Model(x, L.TimeDistributed(model, name="each")(x), name="encoder")


def at_each_step(function, x):
    return np.stack([values(function(x[:, step])) for step in range(x.shape[1])], axis=1)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", in_turn(MODELS, backends=lambda case: RARELY_JAX))
def test_mirrors(name, tmp_path):
    for policies, steps in zip(POLICIES, (STEPS, None, STEPS), strict=True):
        model, encoder = encoders(MODELS[name], steps)
        alone, mirror = ka.mirror(model, **policies), ka.mirror(encoder, **policies)
        assert mirror.output_shape == encoder.input_shape and ka.is_tied(mirror, encoder)
        code = random(2, STEPS, *model.output_shape[1:])
        expected = at_each_step(alone, code)
        assert_close(values(mirror(code)), expected)
        assert [w.shape for w in mirror.trainable_weights] == [w.shape for w in alone.trainable_weights]
    mirror.save(tmp_path / "m.keras")
    assert_close(values(keras.saving.load_model(tmp_path / "m.keras")(code)), expected)


@pytest.mark.parametrize("name", in_turn(MODELS, backends=lambda case: RARELY_JAX))
def test_the_gradient(name, tmp_path):
    _, encoder = encoders(MODELS[name])
    x = random(2, STEPS, 8, 2)
    (expected,) = gradients(lambda x: ops.sum(encoder(x, training=False) ** 2) / 2, [ops.convert_to_tensor(x)])
    model = ka.autoencoder(encoder, **EXACT)
    assert_close(values(model(x, training=False)), expected)
    model.save(tmp_path / "m.keras")
    assert_close(values(keras.saving.load_model(tmp_path / "m.keras")(x, training=False)), expected)


@pytest.mark.parametrize("name", in_turn(["nested", "steps_inside"], backends=lambda case: RARELY_JAX))
def test_training_computes_what_the_encoder_computes(name):
    """Statistics of batch normalisation are those of one step, also where the model's layers became the autoencoder's."""
    _, encoder = encoders(MODELS[name])
    x = random(4, STEPS, 8, 2)
    model = ka.autoencoder(encoder, **EXACT)
    code = model.get_layer("each_steps").output
    expected = encoder(x, training=True)
    assert_close(values(keras.Model(model.input, code)(x, training=True)), values(expected))
    before = [np.array(values(w)) for w in encoder.trainable_weights]
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    assert any(np.any(values(w) != old) for w, old in zip(encoder.trainable_weights, before, strict=True))


def test_sizes_and_steps_that_are_known_at_run_time():
    layers = [L.Conv1D(4, 3, strides=2), L.MaxPooling1D(2), L.Conv1D(2, 2, strides=3, padding="same")]
    x = keras.Input((None, None, 2))
    each = L.TimeDistributed(keras.Sequential([keras.Input((None, 2)), *layers]))
    model = ka.autoencoder(keras.Model(x, each(x)))
    for steps, size in ((1, 17), (3, 20)):
        given = random(2, steps, size, 2)
        alone = ka.autoencoder(keras.Sequential([keras.Input((size, 2)), *layers]))
        for own, other in zip(alone.weights, model.weights, strict=True):
            own.assign(other)
        assert_close(values(model(given)), at_each_step(alone, given))


@pytest.mark.any_backend
def test_the_adjoint_of_its_adjoint_is_the_model():
    layers = [L.Conv1D(4, 3, strides=2, use_bias=False), L.Flatten()]
    x = keras.Input((STEPS, 8, 2))
    model = keras.Model(x, L.TimeDistributed(keras.Sequential(layers))(x))
    adjoint = ka.adjoint(model)
    ka.assert_adjoint(model, adjoint)
    assert ka.adjoint(adjoint) is model
    again = ka.adjoint(ka.clone_tied(adjoint))
    assert_close(values(again(np.ones((1, STEPS, 8, 2)))), values(model(np.ones((1, STEPS, 8, 2)))))


@pytest.mark.any_backend
def test_the_layers_inside_are_checked_and_those_around_are_not():
    _, encoder = encoders(nested)
    for model in (encoder, ka.autoencoder(encoder), ka.autoencoder(encoder, **EXACT)):
        found = check_layers(model)
        assert not [one.layer for one in found if one.failed or "steps" in one.layer or "samples" in one.layer]
        assert any(one.type == "Conv1D" and one.verdict == "ok" for one in found)
    ka.plot_mirror(encoder)


@pytest.mark.any_backend
def test_features_behind_it_are_projected_and_those_inside_are_of_the_model():
    model, encoder = encoders(chain)
    x = random(2, STEPS, 8, 2)
    expected = at_each_step(ka.deconvnet(model, model.layers[-1], activation="gradient"), x)
    for layer in ("each", encoder.get_layer("each")):
        assert_close(values(ka.deconvnet(encoder, layer, activation="gradient")(x)), expected)
    for layer in model.layers[-2:]:
        with pytest.raises(
            ValueError, match=r"called at every step.*`keras_adjoint.deconvnet\(distributed.layer, ...\)`"
        ):
            ka.deconvnet(encoder, layer)
        ka.deconvnet(encoder.get_layer("each").layer, layer, activation="gradient")


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["maxima", "pooling", "flatten", "model"])
def test_a_mirror_can_be_mirrored(name, tmp_path):
    make, shape = STOCK[name]
    x = keras.Input((STEPS, *shape))
    mirror = ka.mirror(keras.Model(x, L.TimeDistributed(make())(x)))
    mirror.save(tmp_path / "m.keras")
    for each in (mirror, keras.saving.load_model(tmp_path / "m.keras")):
        assert ka.mirror(each).output_shape == each.input_shape


# --- untie

STOCK = {
    "dense": (lambda: L.Dense(3), (5,)),
    "conv": (lambda: L.Conv2D(3, 3, strides=2, padding="same"), (9, 8, 2)),
    "twice": (lambda: L.TimeDistributed(L.Conv1D(3, 2, strides=2)), (2, 8, 3)),
    "flatten": (lambda: L.Flatten(), (3, 4)),
    "pooling": (lambda: L.AveragePooling1D(3, 2, padding="same"), (7, 2)),
    "batch normalisation": (lambda: L.BatchNormalization(), (4, 2)),
    "maxima": (lambda: L.MaxPooling1D(2), (7, 2)),
    "model": (
        lambda: keras.Sequential([L.Conv1D(3, 2, activation="relu"), L.BatchNormalization(), L.Flatten()]),
        (6, 2),
    ),
}


UNTIED = [(name, to) for name in STOCK for to in ("conv_transpose", "conv")]


@pytest.mark.parametrize(("name", "to"), in_turn(UNTIED, name=" as ".join, backends=lambda case: RARELY_JAX))
def test_untied(name, to, tmp_path):
    make, shape = STOCK[name]
    x = keras.Input((STEPS, *shape))
    layer = L.TimeDistributed(make())
    model = ka.autoencoder(keras.Model(x, layer(x)))
    given, untied = random(2, STEPS, *shape), ka.untie(model, to=to)
    untied.save(tmp_path / "m.keras")
    for each in (untied, keras.saving.load_model(tmp_path / "m.keras")):
        assert all(type(one).__module__.startswith("keras.") for one in layers_inside(each))
        assert_close(values(each(given)), values(model(given)))


@pytest.mark.any_backend
def test_untied_alone_and_in_wrappers_of_others():
    layer = L.TimeDistributed(L.Conv1D(3, 3, strides=2))
    y = random(2, *layer(keras.Input((STEPS, 8, 2))).shape[1:])
    adjoint = ka.adjoint(layer)
    assert_close(values(ka.untie(adjoint)(y)), values(adjoint(y)))
    decoder = ka.mirror(keras.Sequential([keras.Input((8, 2)), L.Conv1D(3, 3, strides=2)]))
    code = keras.Input(y.shape[1:])
    for inside in (ka.adjoint(layer.layer), decoder):
        model = keras.Model(code, L.TimeDistributed(inside)(code))
        untied = ka.untie(model)
        assert all(type(one).__module__.startswith("keras.") for one in layers_inside(untied))
        assert_close(values(untied(y)), values(model(y)))


@pytest.mark.any_backend
def test_untied_of_any_number_of_steps_is_refused_with_what_to_do():
    _, encoder = encoders(chain, None)
    with pytest.raises(ka.NoRuleError, match="sizes must be known.*for a fixed input size"):
        ka.untie(ka.mirror(encoder))
    ka.untie(ka.mirror(encoders(chain)[1]))


def test_a_mask_that_no_layer_of_the_model_takes_changes_nothing_at_the_steps(tmp_path):
    each = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="tanh"), L.Dense(2)])
    x = keras.Input((5, 4))
    model = keras.Model(x, L.GlobalAveragePooling1D()(L.TimeDistributed(each)(L.Masking()(x))))
    given = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    given[0, 3:] = 0
    (expected,) = gradients(lambda x: ops.sum(model(x) ** 2) / 2, [ops.convert_to_tensor(given)])
    autoencoder = ka.autoencoder(model, **EXACT)
    autoencoder.save(tmp_path / "m.keras")
    for one in (autoencoder, keras.saving.load_model(tmp_path / "m.keras")):
        assert_close(values(one(given)), expected)
    each.add(L.BatchNormalization())
    model = keras.Model(x, L.TimeDistributed(each)(L.Masking()(x)), name="net")
    with pytest.raises(ka.NoRuleError, match="`net/.*` passes the mask that it is called with"):
        ka.autoencoder(model)
