"""Untied models: what was shared is shared, weights are copies, and files load where this package does not exist."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from extent import EXHAUSTIVE
from keras import ops
from untied import (
    KINDS,
    LINEAR,
    assert_same,
    assert_stock,
    both_kinds,
    built,
    layers,
    numbers,
    random_input,
    randomized,
)

import keras_adjoint as ka

L = keras.layers


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
    """Encoder and decoder are called twice, and an operation of `keras.ops` adds up the two."""
    encoder, decoder = parts()
    inputs = keras.Input((9, 10, 2))
    once = decoder(encoder(inputs))
    return keras.Model(inputs, once + decoder(encoder(once)))


MODELS = {make.__name__: make for make in (flat, sequential, nested, nested_sequential, called_twice)}


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


def test_calls_may_say_whether_they_are_training():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ka.adjoint(built(L.Dense(4), (3,)))(inputs, training=False))
    assert_same([(model, ka.untie(model))], random_input((4,)))


def test_a_layer_called_on_numbers_is_untied_for_their_shape():
    tied = ka.adjoint(built(L.Conv2D(4, 3), (9, 8, 3)))
    y = random_input((7, 6, 4))
    tied(y)
    assert_same([(tied, ka.untie(tied))], y)


# --- copies


@pytest.mark.any_backend
def test_weights_are_copies():
    model = nested()
    untied = ka.untie(model)
    x = random_input((9, 10, 2))
    before = numbers(untied(x))
    for weight in model.weights:
        weight.assign(weight * 2)
    np.testing.assert_array_equal(numbers(untied(x)), before)


@pytest.mark.any_backend
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


def test_kernel_of_a_frozen_source_stays_frozen():
    dense = built(L.Dense(4), (3,))
    dense.trainable = False
    inputs = keras.Input((3,))
    assert ka.untie(keras.Model(inputs, ka.adjoint(dense)(dense(inputs)))).trainable_weights == []


def test_frozen_decoders_stay_frozen():
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


@pytest.mark.in_turn("torch")  # JAX would compile each of many layers
def test_files_load_in_a_process_without_this_package_and_predict_the_same(tmp_path):
    """The nested model and layers of the list, side by side, for either kind."""
    for first, to in enumerate(KINDS):
        encoder, decoder = parts()
        inputs = [keras.Input((9, 10, 2))]
        outputs = [decoder(encoder(inputs[0]))]
        for case in LINEAR[first :: 3 if EXHAUSTIVE else 9]:
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


# --- mirrored models


def mirrored(**policies):
    x = keras.Input((11, 9, 3))
    y = L.MaxPooling2D(2, name="pool")(
        L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(L.Rescaling(0.5)(x))
    )
    y = L.Concatenate()([y, L.BatchNormalization()(L.SeparableConv2D(5, 3, padding="same")(y)), L.Subtract()([y, y])])
    y = L.MaxPooling2D(3, 1, padding="same")(L.LayerNormalization()(y))
    return ka.autoencoder(keras.Model(x, [L.GlobalAveragePooling2D()(y), L.Dense(3)(L.Flatten()(y))]), **policies)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "policies", [{}, {"norm": "inverse"}, {"norm": "scale", "bias": "subtract", "preprocessing": "adjoint"}]
)
def test_a_mirrored_model_in_stock_layers(policies):
    model = mirrored(**policies)
    for layer in layers(model):
        if layer.weights and not hasattr(layer, "source"):
            randomized(layer)
    untied = ka.untie(model)
    assert_stock(untied)
    assert_same([(model, untied)], random_input((11, 9, 3)))


def test_what_a_mirrored_model_remembers_cannot_be_written_in_stock_layers():
    with pytest.raises(ka.NoRuleError, match="no stock layer finds the switches"):
        ka.untie(mirrored(pooling="switches"))
    with pytest.raises(ka.NoRuleError, match="_gradient` cannot be converted into stock layers"):
        ka.untie(mirrored(activation="gradient"))


def test_sums_over_what_was_broadcast_cannot_be_written_in_stock_layers():
    x, z = keras.Input((4, 3)), keras.Input((3,))
    model = keras.Model([x, z], L.Add(name="sum")([x, z]))
    with pytest.raises(ka.NoRuleError, match="it adds up what was broadcast"):
        ka.untie(ka.adjoint(model))


def test_the_adjoint_of_a_concatenation_along_any_axis_in_stock_layers():
    parts = [keras.Input((4, size, 3)) for size in (2, 1, 3)]
    model = ka.adjoint(keras.Model(parts, L.Concatenate(axis=2)(parts)))
    untied = ka.untie(model)
    assert_stock(untied)
    x = random_input((4, 6, 3))
    for found, expected in zip(untied(x), model(x), strict=True):
        np.testing.assert_array_equal(numbers(found), numbers(expected))
