"""Ties that last: saving, loading, copying, training and freezing with plain Keras calls."""

import copy
import pickle
import subprocess
import sys
import textwrap
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import ops

import keras_adjoint as ka

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 9, 9, 2)).astype("float32")


def encoder_layers():
    return [
        L.Conv2D(4, 3, strides=2, padding="same", name="first"),
        L.Activation("tanh", name="bend"),
        L.Conv2D(6, 3, strides=2, padding="same", name="second"),
    ]


def encode(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def decode(layers, code):
    first, bend, second = layers
    x = ka.adjoint(second, bias="own", name="second_back")(code)
    x = L.Activation("tanh", name="bend_back")(x)
    return ka.adjoint(first, bias="own", name="first_back")(x)


def flat():
    inputs = keras.Input((9, 9, 2))
    layers = encoder_layers()
    code = encode(layers, inputs)
    return keras.Model(inputs, decode(layers, code))


def nested():
    inputs = keras.Input((9, 9, 2))
    layers = encoder_layers()
    code = encode(layers, inputs)
    encoder = keras.Model(inputs, code, name="encoder")
    codes = keras.Input(code.shape[1:])
    decoder = keras.Model(codes, decode(layers, codes), name="decoder")
    x = keras.Input((9, 9, 2))
    return keras.Model(x, decoder(encoder(x)))


def nested_sequential():
    layers = encoder_layers()
    encoder = keras.Sequential([keras.Input((9, 9, 2)), *layers], name="encoder")
    first, bend, second = layers
    back = [ka.adjoint(second, bias="own"), L.Activation("tanh"), ka.adjoint(first, bias="own")]
    decoder = keras.Sequential([keras.Input(encoder.output_shape[1:]), *back], name="decoder")
    return keras.Sequential([keras.Input((9, 9, 2)), encoder, decoder])


def sequential():
    layers = encoder_layers()
    first, bend, second = layers
    model = keras.Sequential([keras.Input((9, 9, 2)), *layers])
    for layer in (ka.adjoint(second, bias="own"), L.Activation("tanh"), ka.adjoint(first, bias="own")):
        model.add(layer)
    return model


def decoder_first():
    """The decoder comes before the encoder in the file."""
    layers = encoder_layers()
    probe = keras.Input((9, 9, 2))
    code = encode(layers, probe)
    codes = keras.Input(code.shape[1:])
    decoder = keras.Model(codes, decode(layers, codes), name="decoder")
    encoder = keras.Model(probe, code, name="encoder")
    inputs = keras.Input(code.shape[1:])
    return keras.Model(inputs, decoder(encoder(decoder(inputs))))


MODELS = {f.__name__: f for f in (flat, nested, nested_sequential, sequential, decoder_first)}
KERNELS = 3 * 3 * 2 * 4 + 3 * 3 * 4 * 6
BIASES = 4 + 6 + 4 + 2


def batch_for(model):
    return np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")


def predictions(model, x):
    return ops.convert_to_numpy(model(x))


def sources(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, L.Conv2D)]


def assert_still_tied(model, x):
    """The kernel exists once, and what is done to the encoder's kernel is done to the decoder's."""
    assert ka.is_tied(model)
    assert len({id(layer) for layer in sources(model)}) == 2
    assert model.count_params() == KERNELS + BIASES
    before = predictions(model, x)
    kernel = next(layer for layer in sources(model) if layer.name == "first").kernel
    kernel.assign(kernel * 0)
    after = predictions(model, x)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
class TestRoundTrips:
    def test_saved_file_loads_tied_and_predicts_the_same(self, make, tmp_path):
        model = make()
        x = batch_for(model)
        model.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(predictions(loaded, x), predictions(model, x), rtol=1e-6, atol=1e-6)
        assert_still_tied(loaded, x)

    def test_saved_again_after_loading_it_is_still_tied(self, make, tmp_path):
        model = make()
        model.save(tmp_path / "a.keras")
        keras.saving.load_model(tmp_path / "a.keras").save(tmp_path / "b.keras")
        assert_still_tied(keras.saving.load_model(tmp_path / "b.keras"), batch_for(model))

    def test_file_holds_every_kernel_once(self, make, tmp_path):
        model = make()
        model.save(tmp_path / "m.keras")
        with zipfile.ZipFile(tmp_path / "m.keras") as archive:
            archive.extract("model.weights.h5", tmp_path)
        assert stored_numbers(tmp_path / "model.weights.h5") == KERNELS + BIASES

    def test_weights_only_round_trip(self, make, tmp_path):
        model, other = make(), make()
        x = batch_for(model)
        model.save_weights(tmp_path / "w.weights.h5")
        assert stored_numbers(tmp_path / "w.weights.h5") == KERNELS + BIASES
        other.load_weights(tmp_path / "w.weights.h5")
        np.testing.assert_allclose(predictions(other, x), predictions(model, x), rtol=1e-6, atol=1e-6)
        assert_still_tied(other, x)

    @pytest.mark.any_backend
    @pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy, ka.clone_tied])
    def test_copies_keep_the_tie_and_the_values(self, make, copied):
        model = make()
        x = batch_for(model)
        other = copied(model)
        np.testing.assert_allclose(predictions(other, x), predictions(model, x), rtol=1e-6, atol=1e-6)
        assert not ka.is_tied(other, model)
        expected = predictions(model, x)
        other.compile(optimizer="sgd", loss="mse")
        other.fit(x, expected * 0, epochs=1, verbose=0)
        np.testing.assert_array_equal(predictions(model, x), expected)
        assert_still_tied(other, x)

    def test_clone_tied_can_start_afresh(self, make):
        model = make()
        x = batch_for(model)
        assert np.abs(predictions(ka.clone_tied(model, copy_weights=False), x) - predictions(model, x)).max() > 1e-3

    def test_optimizer_holds_its_slots_once_and_training_goes_on_after_loading(self, make, tmp_path):
        model = make()
        x = batch_for(model)
        y = predictions(model, x) * 0.5
        model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
        model.fit(x, y, batch_size=4, epochs=3, verbose=0)
        slots = [v for v in model.optimizer.variables if "momentum" in v.path or "velocity" in v.path]
        assert sum(int(np.prod(v.shape)) for v in slots) == 2 * (KERNELS + BIASES)
        model.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        assert int(loaded.optimizer.iterations) == 3
        history = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
        resumed = loaded.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
        np.testing.assert_allclose(resumed, history, rtol=1e-4)


def stored_numbers(path):
    with h5py.File(path, "r") as file:
        sizes = []
        file.visititems(lambda name, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


@pytest.mark.exhaustive  # `make test` loads it among others, see test_fresh_process.py
@pytest.mark.in_turn("jax")  # which starts soonest
def test_a_file_saved_in_one_process_loads_tied_in_another(tmp_path):
    model = nested()
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", predictions(model, X))
    script = f"""
        import torch  # TensorFlow crashes if it is imported before PyTorch
        import keras, numpy as np
        import keras_adjoint as ka
        model = keras.saving.load_model({str(tmp_path / "m.keras")!r})
        x, y = np.load({str(tmp_path / "x.npy")!r}), np.load({str(tmp_path / "y.npy")!r})
        assert np.abs(keras.ops.convert_to_numpy(model(x)) - y).max() < 1e-5
        assert ka.is_tied(model)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True)


def test_decoder_alone_saves_and_loads_with_the_kernels_it_reads(tmp_path):
    model = nested()
    decoder = model.get_layer("decoder")
    code = predictions(model.get_layer("encoder"), X)
    decoder.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    np.testing.assert_allclose(predictions(loaded, code), predictions(decoder, code), rtol=1e-6, atol=1e-6)


def test_single_adjoint_layer_survives_pickle_and_deepcopy():
    conv = L.Conv2D(3, 3, strides=2)
    y = conv(X)
    layer = ka.adjoint(conv)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        np.testing.assert_allclose(predictions(other, y), predictions(layer, y), rtol=1e-6)


def test_size_recorded_by_a_pool_survives_saving_the_decoder_alone(tmp_path):
    inputs = keras.Input((9, 8, 2))
    pool = L.AveragePooling2D(2)
    pooled = pool(inputs)
    code = keras.Input(pooled.shape[1:])
    decoder = keras.Model(code, ka.adjoint(pool)(code))
    decoder.save(tmp_path / "d.keras")
    assert keras.saving.load_model(tmp_path / "d.keras").output_shape == (None, 9, 8, 2)


@pytest.mark.parametrize("clone", [keras.models.clone_model, lambda m: type(m).from_config(m.get_config())])
def test_copies_that_cannot_keep_the_tie_say_so_and_name_the_call_to_use(clone):
    model = flat()
    with pytest.warns(UserWarning, match=r"`first_back` was tied to the kernel of `first`.*clone_tied\(model\)"):
        copied = clone(model)
    assert not ka.is_tied(copied)


def test_model_from_json_says_so_too():
    with pytest.warns(UserWarning, match="clone_tied"):
        keras.models.model_from_json(flat().to_json())


def test_loading_and_cloning_tied_models_warns_of_nothing(tmp_path):
    model = nested()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(tmp_path / "m.keras")
        keras.saving.load_model(tmp_path / "m.keras")
        ka.clone_tied(model)
        copy.deepcopy(model)


def test_freezing_the_decoder_does_not_freeze_the_kernels_of_the_encoder():
    model = nested()
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    decoder.trainable = False
    assert len(encoder.trainable_variables) == 4
    assert {v.path for v in model.trainable_variables} == {v.path for v in encoder.trainable_variables}
    decoder.trainable = True
    encoder.trainable = False
    assert all("bias" in v.path for v in model.trainable_variables) and len(model.trainable_variables) == 2


def test_frozen_decoder_trains_only_the_encoder():
    model = nested()
    model.get_layer("decoder").trainable = False
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    kernel = ops.convert_to_numpy(sources(model)[0].kernel)
    own = [layer for layer in model._flatten_layers() if type(layer).__name__ == "AdjointConv"]
    before = [ops.convert_to_numpy(layer.weights[0]) for layer in own]
    model.fit(X, X, epochs=1, verbose=0)
    assert np.abs(ops.convert_to_numpy(sources(model)[0].kernel) - kernel).max() > 0
    for layer, value in zip(own, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(layer.weights[0]), value)


def test_a_copied_adjoint_freezes_with_its_own_kernel_and_leaves_the_source_alone():
    conv = L.Conv2D(3, 3)
    conv.build((None, 9, 9, 2))
    layer = ka.adjoint(conv, tied=False)
    layer.trainable = False
    assert layer.trainable_variables == [] and len(conv.trainable_variables) == 2
    assert not ka.is_tied(layer) and not ka.is_tied(layer, conv)
    y = np.ones((1, 7, 7, 3), "float32")
    before = predictions(layer, y)
    np.testing.assert_allclose(before, predictions(ka.adjoint(conv), y), rtol=1e-6)
    conv.kernel.assign(conv.kernel * 2)
    np.testing.assert_array_equal(predictions(layer, y), before)
    assert [v.path.split("/")[-1] for v in layer.weights] == ["kernel"]


def test_training_a_copied_adjoint_leaves_the_source_alone():
    conv = L.Conv2D(3, 3)
    y = conv(keras.Input((9, 9, 2)))
    copied = keras.Sequential([keras.Input(y.shape[1:]), ka.adjoint(conv, tied=False)])
    kernel = ops.convert_to_numpy(conv.kernel)
    copied.compile(optimizer="sgd", loss="mse")
    copied.fit(np.ones((2, 7, 7, 3)), X[:2], verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(conv.kernel), kernel)


def test_a_copied_adjoint_saves_and_loads_its_own_kernel(tmp_path):
    conv = L.Conv2D(3, 3)
    inputs = keras.Input((9, 9, 2))
    code = conv(inputs)
    model = keras.Model(inputs, ka.adjoint(conv, tied=False)(code))
    assert not ka.is_tied(model)
    conv.kernel.assign(conv.kernel * 2)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(predictions(loaded, X), predictions(model, X), rtol=1e-6, atol=1e-6)


def test_regulariser_of_a_tied_kernel_counts_once():
    inputs = keras.Input((9, 9, 2))
    conv = L.Conv2D(3, 3, kernel_regularizer="l2")
    code = conv(inputs)
    model = keras.Model(inputs, ka.adjoint(conv)(code))
    assert len(model.losses) == 1


def test_is_tied_tells_pairs_apart():
    model = nested()
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    stranger = L.Conv2D(1, 1)
    stranger.build((None, 3, 3, 1))
    assert ka.is_tied(decoder, encoder) and ka.is_tied(encoder, decoder)
    assert not ka.is_tied(decoder) and not ka.is_tied(encoder) and not ka.is_tied(decoder, stranger)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """An autoencoder as a subclass, which makes its adjoint when its convolution is built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(4, 3, strides=2, padding="same")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.back = ka.adjoint(self.conv, bias="own")
        self.back.build(self.conv.compute_output_shape(input_shape))

    def call(self, x):
        return self.back(self.conv(x))


def test_a_subclassed_model_trains_saves_and_loads_tied(tmp_path):
    model = Subclassed()
    model.compile(optimizer="adam", loss="mse")
    model.fit(X, X, epochs=1, verbose=0)
    assert ka.is_tied(model) and model.count_params() == 3 * 3 * 2 * 4 + 4 + 2
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(predictions(loaded, X), predictions(model, X), rtol=1e-5, atol=1e-6)
    assert ka.is_tied(loaded)


def test_a_compiled_model_reads_the_kernel_of_today():
    """A compiled function that kept the kernel as a constant would not notice."""
    model = nested()
    before = model.predict(X, verbose=0)
    for source in sources(model):
        source.kernel.assign(source.kernel * 0.5)
    after = model.predict(X, verbose=0)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, predictions(model, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [None, 1, "no", np.array([True, False])], ids=repr)
def test_copy_weights_is_a_boolean(value):
    with pytest.raises(ValueError, match="`copy_weights` must be `True` or `False`. Received: copy_weights="):
        ka.clone_tied(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), copy_weights=value)
