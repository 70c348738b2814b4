"""A mirrored model in use: training in every way, interruptions, freezing, adapters, quantisation, summaries."""

import inspect

import keras
import numpy as np
import pytest
from encoders import assert_close, values
from helpers import BACKEND, HALF_PRECISION_POLICIES, MOSTLY_TORCH, in_turn
from layer_list import KERAS

import keras_adjoint as ka

L = keras.layers
IMAGES = np.random.default_rng(0).uniform(size=(16, 9, 8, 2)).astype("float32")
OPTIMIZERS = sorted(
    name
    for name, found in vars(keras.optimizers).items()
    if inspect.isclass(found)
    and issubclass(found, keras.optimizers.Optimizer)
    and found not in (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
)


def encoder(**options):
    x = keras.Input((9, 8, 2))
    y = L.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="conv", **options)(x)
    y = L.BatchNormalization(name="norm")(L.SeparableConv2D(6, 3, padding="same", name="separable")(y))
    y = L.MaxPooling2D(2, padding="same", name="pool")(L.Add(name="add")([y, L.Activation("tanh")(y)]))
    return keras.Model(x, L.Dense(7, name="code")(L.Flatten(name="flat")(y)), name="encoder")


def autoencoder(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return ka.autoencoder(encoder(), **options)


def losses(model, epochs=3, **options):
    history = model.fit(IMAGES, IMAGES, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)
    return history.history["loss"]


@pytest.mark.parametrize("name", in_turn(OPTIMIZERS, backends=lambda name: MOSTLY_TORCH))
def test_every_optimizer_of_keras_trains_a_mirrored_model(name):
    if name == "Muon" and BACKEND == "tensorflow" and KERAS < (3, 13):
        pytest.skip("Keras' Muon asks TensorFlow's variables for a path that they do not have, whatever the model")
    model = autoencoder()
    before = values(model.get_layer("conv").kernel).copy()
    make = getattr(keras.optimizers, name)
    # The one that takes no learning rate asks for an optimizer for each variable.
    optimizer = (
        make(lambda variable: keras.optimizers.SGD(1e-3)) if name == "MultiOptimizer" else make(learning_rate=1e-3)
    )
    model.compile(optimizer, "mse")
    assert np.all(np.isfinite(losses(model, epochs=1)))
    assert np.abs(values(model.get_layer("conv").kernel) - before).max() > 0
    assert model.get_layer("conv_adjoint").source is model.get_layer("conv")


# JAX knows no graph between the two, and on PyTorch compilation takes a minute.
WAYS_TO_TRAIN = {
    "tensorflow": [{"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}],
    "jax": [{"run_eagerly": True}, {"jit_compile": True}],
    "torch": [{"run_eagerly": True}, {"jit_compile": False}],
}
RECORDED = {"pooling": "switches", "activation": "gradient", "norm": "adjoint"}


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param({}, marks=pytest.mark.in_turn("torch"), id="plain"),
        pytest.param(RECORDED, id="recorded"),
    ],
)
def test_compiled_training_follows_eager_training(policies):
    curves = []
    for options in WAYS_TO_TRAIN[BACKEND]:
        model = autoencoder(**policies)
        model.compile(keras.optimizers.SGD(0.01), "mse", **options)
        curves.append(losses(model))
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-4)


@pytest.mark.parametrize("policy", in_turn(HALF_PRECISION_POLICIES, always=["torch"]))
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = autoencoder()
        model.compile("adam", "mse")
        curve = losses(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.all(np.isfinite(curve)) and curve[-1] < curve[0]
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    assert keras.backend.standardize_dtype(model(IMAGES).dtype) == policy.removeprefix("mixed_")


@pytest.mark.skipif(KERAS < (3, 12), reason="Keras recomputes layers without their keyword arguments")
def test_gradient_checkpointing_changes_no_loss():
    """In eager mode on TensorFlow, and without batch normalisation: more Keras cannot do with stock layers either."""
    curves = []
    for mode in (None, "full"):
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode=mode):
            x = keras.Input((9, 8, 2))
            y = L.MaxPooling2D(2)(L.Conv2D(6, 3, strides=2, activation="relu")(x))
            model = ka.autoencoder(keras.Model(x, L.Dense(7)(L.Flatten()(y))), pooling="switches")
            model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=BACKEND == "tensorflow")
            curves.append(losses(model))
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


def test_training_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path):
    path = tmp_path / "checkpoint.keras"
    model = autoencoder()
    model.compile("adam", "mse")
    whole = losses(model, epochs=4)

    model = autoencoder()
    model.compile("adam", "mse")
    first = losses(model, epochs=2, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    resumed = keras.saving.load_model(path)
    assert ka.is_tied(resumed)
    np.testing.assert_allclose(first + losses(resumed, epochs=2), whole, rtol=1e-5)


def test_weights_alone_can_be_restored(tmp_path):
    model, other = autoencoder(), autoencoder(seed=1)
    model.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    assert_close(values(other(IMAGES)), values(model(IMAGES)))


def test_a_regulariser_counts_once():
    keras.utils.set_random_seed(0)
    source = encoder(kernel_regularizer=keras.regularizers.L2(0.5))
    model = ka.autoencoder(source)
    (loss,) = model.losses
    expected = 0.5 * np.sum(values(source.get_layer("conv").kernel) ** 2)
    np.testing.assert_allclose(values(loss), expected, rtol=1e-5)


def test_either_half_can_be_frozen_alone():
    source = encoder()
    decoder = ka.mirror(source)
    x = keras.Input((9, 8, 2))
    model = keras.Model(x, decoder(source(x)))
    own = len([w for w in decoder.trainable_weights if all(w is not other for other in source.weights)])
    theirs = len(source.trainable_weights)
    assert len(model.trainable_weights) == own + theirs
    decoder.trainable = False
    assert len(model.trainable_weights) == theirs == len(source.trainable_weights)
    decoder.trainable = True
    source.trainable = False
    assert len(model.trainable_weights) == own
    model.compile(keras.optimizers.SGD(0.1), "mse")
    kernel = values(source.get_layer("conv").kernel).copy()
    losses(model, epochs=1)
    np.testing.assert_array_equal(values(source.get_layer("conv").kernel), kernel)


def test_the_summary_says_whose_kernel_a_layer_reads():
    lines = []
    model = autoencoder()
    model.summary(print_fn=lines.append, line_length=78)
    text = "\n".join(lines)
    assert "conv_adjoint" in text and "separable_adjoint" in text and "code_adjoint" in text
    rows = [layer for layer in model.layers if layer.name.endswith("_adjoint")]
    assert sum(layer.count_params() for layer in model.layers) == model.count_params()
    assert all(layer.name.startswith(getattr(layer, "source", layer).name) for layer in rows)


def test_a_clone_is_tied_to_itself_alone():
    model = autoencoder()
    clone = ka.clone_tied(model)
    assert ka.is_tied(clone) and not ka.is_tied(clone, model)
    assert_close(values(clone(IMAGES)), values(model(IMAGES)))
    clone.get_layer("conv").kernel.assign(0 * clone.get_layer("conv").kernel)
    assert np.abs(values(model.get_layer("conv").kernel)).max() > 0


def test_low_rank_adapters_reach_the_decoder():
    model = autoencoder()
    before = values(model(IMAGES)).copy()
    model.get_layer("code").enable_lora(2)
    assert_close(values(model(IMAGES)), before)
    model.get_layer("code").lora_kernel_b.assign(np.ones(model.get_layer("code").lora_kernel_b.shape))
    code = values(keras.Model(model.input, model.get_layer("code").output)(IMAGES))
    layer = model.get_layer("code")
    kernel = values(layer._kernel) + layer.lora_alpha / layer.lora_rank * values(layer.lora_kernel_a) @ values(
        layer.lora_kernel_b
    )
    expected = code @ kernel.T + values(model.get_layer("code_adjoint").bias)
    assert_close(values(model.get_layer("code_adjoint")(code)), expected)
    model.compile("adam", "mse")
    assert np.all(np.isfinite(losses(model, epochs=1)))


@pytest.mark.any_backend
def test_a_quantised_dense_layer_is_read_as_what_it_stands_for(tmp_path):
    model = autoencoder()
    before = values(model(IMAGES)).copy()
    model.get_layer("code").quantize("int8")
    found = values(model(IMAGES))
    assert 0 < np.abs(found - before).max() < 0.1 * np.abs(before).max()
    model.save(tmp_path / "m.keras")
    assert_close(values(keras.saving.load_model(tmp_path / "m.keras")(IMAGES)), found)


@pytest.mark.any_backend
def test_quantising_the_whole_model_takes_the_dense_part():
    model = autoencoder()
    before = values(model(IMAGES)).copy()
    model.quantize("int8")
    assert model.get_layer("code").quantization_mode == "int8"
    assert np.abs(values(model(IMAGES)) - before).max() < 0.1 * np.abs(before).max()


def test_optimizer_state_holds_each_shared_kernel_once():
    model = autoencoder()
    model.compile("adam", "mse")
    losses(model, epochs=1)
    assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_weights)
    assert len({id(weight) for weight in model.trainable_weights}) == len(model.trainable_weights)


def test_a_plotted_model_names_the_tie(monkeypatch):
    """The picture is made of this graph's labels; drawing it takes a program that is not everywhere."""
    monkeypatch.setattr("keras.src.utils.model_visualization.check_graphviz", lambda: True)
    graph = keras.utils.model_to_dot(autoencoder(), show_layer_names=True)
    labels = [node.get_label() for node in graph.get_nodes()]
    assert any("conv_adjoint" in label and "AdjointConv" in label for label in map(str, labels))
