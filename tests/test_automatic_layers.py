"""Keras' own layers that have no rule and are linear: their adjoint is derived, on every backend, at every setting."""

import autodiff
import keras
import numpy as np
import pytest
from helpers import BACKEND, RARELY_JAX, in_turn
from keras import layers as L
from keras import ops
from operators_of_models import assert_adjoint_of, flat, model_of, run, saved_and_loaded

import keras_adjoint as ka
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.ops.backend import current

IMAGE = (6, 5, 2)
FIRST = {"data_format": "channels_first"}
LANCZOS = ("tensorflow", "jax")

# How to make a layer, and the shape of its input.
LAYERS = {
    "adaptive pooling 1d": (lambda: L.AdaptiveAveragePooling1D(3), (7, 2)),
    "adaptive pooling 2d": (lambda: L.AdaptiveAveragePooling2D((3, 2), **FIRST), (2, 7, 5)),
    "adaptive pooling 3d": (lambda: L.AdaptiveAveragePooling3D(3), (4, 5, 3, 2)),
    "adaptive pooling, larger": (lambda: L.AdaptiveAveragePooling1D(9), (7, 2)),
    **{
        f"resizing, {name}": (lambda size=size, options=options: L.Resizing(*size, **options), IMAGE)
        for name, size, options in (
            ("bilinear", (3, 4), {}),
            ("larger", (9, 11), {}),
            ("antialiased", (3, 4), {"antialias": True}),
            ("bicubic", (9, 4), {"interpolation": "bicubic"}),
            ("nearest", (4, 9), {"interpolation": "nearest"}),
            ("cropped", (4, 4), {"crop_to_aspect_ratio": True}),
            ("padded", (9, 9), {"pad_to_aspect_ratio": True, "interpolation": "bicubic", "fill_value": 3.0}),
        )
    },
    "up-sampling, bicubic": (lambda: L.UpSampling2D((2, 3), interpolation="bicubic", **FIRST), (2, 6, 5)),
    "einsum over the input alone": (lambda: L.EinsumDense("abc,cd->ad", 5, bias_axes="d"), (4, 3)),
    **(
        {
            "resizing, lanczos": (lambda: L.Resizing(3, 9, interpolation="lanczos3", antialias=True), IMAGE),
            "up-sampling, lanczos": (lambda: L.UpSampling2D(2, interpolation="lanczos5"), IMAGE),
        }
        if BACKEND in LANCZOS
        else {}
    ),
    "resizing, channels first": (lambda: L.Resizing(3, 9, **FIRST), (2, 6, 5)),
    "crop, odd": (lambda: L.CenterCrop(3, 4), IMAGE),
    "crop, even": (lambda: L.CenterCrop(4, 3), IMAGE),
    "crop, larger than the image": (lambda: L.CenterCrop(8, 3), IMAGE),
    **{
        f"spectrogram, {mode}": (
            lambda mode=mode: L.STFTSpectrogram(mode=mode, frame_length=8, frame_step=4, expand_dims=mode == "real"),
            (20, 2),
        )
        for mode in ("real", "imag", "stft")
    },
    "recurrent": (lambda: L.SimpleRNN(2, activation=None, return_sequences=True, bias_initializer="ones"), (4, 3)),
    "recurrent, state": (lambda: L.SimpleRNN(2, activation=None, go_backwards=True, return_state=True), (4, 3)),
    "recurrent, both ways": (lambda: L.Bidirectional(L.SimpleRNN(2, activation=None)), (4, 3)),
    "pipeline": (lambda: L.Pipeline([L.Rescaling(2.0, 1.0), L.CenterCrop(3, 4)]), IMAGE),
}
pytestmark = pytest.mark.skipif(keras.version() < "3.14", reason="older versions of Keras lack some of the layers")


def model_of_layer(name):
    """(layer, a model of it)."""
    make, shape = LAYERS[name]
    layer, inputs = make(), keras.Input(shape)
    return layer, model_of(inputs, layer(inputs))


def samples(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


@pytest.mark.parametrize("name", in_turn(LAYERS, backends=lambda name: RARELY_JAX, always=["torch"]))
def test_the_matrix_is_the_transpose_in_a_file_too(name, tmp_path):
    layer, model = model_of_layer(name)
    backward = ka.adjoint(model)
    assert any(isinstance(one, AutomaticAdjoint) for one in backward.layers)
    assert_adjoint_of(backward, model, [samples(*LAYERS[name][1])])
    ys = [samples(*y.shape[1:]) for y in model.outputs]
    loaded = saved_and_loaded(backward, tmp_path / "adjoint.keras")
    np.testing.assert_allclose(flat(run(loaded, ys)), flat(run(backward, ys)), rtol=1e-5, atol=1e-6)


def compiles(layer, x, ys):
    """Whether the backend's compiler takes the derivative of what Keras computes: neither XLA nor PyTorch's takes them all."""

    def derivative(x, *ys):
        return current().vjp(lambda xs: keras.tree.flatten(layer(xs[0])), [x], list(ys))[0]

    try:
        autodiff.compiled(derivative)(x, *ys)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", in_turn(LAYERS, backends=lambda name: RARELY_JAX))
def test_compiled_and_differentiated_it_is_the_same_operator(name):
    """The derivative of ⟨x, Aᵀ y⟩ by y is A x, and by a weight it is that of ⟨A x, y⟩."""
    layer, model = model_of_layer(name)
    adjoint = ka.adjoint(layer)
    x = ops.convert_to_tensor(samples(*LAYERS[name][1]))
    ys = [ops.convert_to_tensor(samples(*each.shape[1:], seed=1)) for each in model.outputs]

    def backward(*ys):
        return adjoint(list(ys) if len(ys) > 1 else ys[0])

    def forward(x):
        found = (keras.tree.flatten(layer(each)) for each in (x, ops.zeros_like(x)))
        return [ops.convert_to_tensor(at_x) - at_zero for at_x, at_zero in zip(*found, strict=True)]

    def product():
        return sum(ops.sum(one * y) for one, y in zip(forward(x), ys, strict=True))

    if compiles(layer, x, ys):
        expected = ops.convert_to_numpy(backward(*ys))
        found = autodiff.compiled(backward)(*ys)
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)
    by_ys = autodiff.gradients(lambda *ys: ops.sum(backward(*ys) * x), ys)
    for one, other in zip(by_ys, forward(x), strict=True):
        np.testing.assert_allclose(one, ops.convert_to_numpy(other), rtol=1e-4, atol=1e-4)
    kernels = [weight for weight in layer.trainable_weights if "kernel" in weight.name]
    if kernels:
        by_kernels = autodiff.kernel_gradients(lambda: ops.sum(backward(*ys) * x), kernels)
        for one, other in zip(by_kernels, autodiff.kernel_gradients(product, kernels), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


REFUSED = {
    "mel": (lambda: L.MelSpectrogram(8, 16, 4, num_mel_bins=3, sampling_rate=100, max_freq=40), (64,), "of -1"),
    "magnitude": (lambda: L.STFTSpectrogram(mode="magnitude", frame_length=8, frame_step=4), (20, 1), "of -1"),
    "random crop": (lambda: L.RandomCrop(4, 3), IMAGE, r"at inference it gives \(None, 6, 5, 2\)"),
    "discretization": (lambda: L.Discretization(bin_boundaries=[0.0, 1.0]), (4,), "gives int"),
    "encoding": (lambda: L.CategoryEncoding(4, output_mode="count"), (3,), "not linear"),
    "hashing": (lambda: L.Hashing(4), (3,), "computes with `int64`"),
    "lookup": (lambda: L.IntegerLookup(vocabulary=[3, 5]), (3,), "computes with `int64`"),
}


@pytest.mark.parametrize("name", in_turn(REFUSED))
def test_what_is_not_linear_is_refused(name):
    make, shape, words = REFUSED[name]
    layer = make()
    layer(keras.Input(shape))
    with pytest.raises(ka.NoRuleError, match=words):
        ka.adjoint(layer)


def test_a_reversible_embedding_has_an_adjoint_for_each_of_its_ways():
    layer = L.ReversibleEmbedding(5, 3)
    words, vectors = keras.Input((2,), dtype="int32"), keras.Input((2, 3))
    by_words, by_vectors = layer(words), layer(vectors, reverse=True)
    model = keras.Model(vectors, by_vectors)
    assert_adjoint_of(ka.adjoint(model), model, [samples(2, 3)])
    one_hot = ka.adjoint(keras.Model(words, by_words))
    np.testing.assert_allclose(*(run(each, [samples(2, 3)])[0] for each in (one_hot, model)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ka.NoRuleError, match="several operators.*Received: "):
        ka.adjoint(layer)


@pytest.mark.only_on("tensorflow")
def test_gradients_that_tensorflow_lacks_are_there():
    """The gradient of Σ a² b² with a = Aᵀ y and b = Aᵀ z by y, in the direction of z, of resized images."""
    import tensorflow as tf

    layer, model = model_of_layer("resizing, larger")
    adjoint, constant = ka.adjoint(layer), layer(ops.zeros((2, *IMAGE)))
    y, z = (ops.convert_to_tensor(samples(*model.output_shape[1:], seed=seed)) for seed in (1, 2))
    with tf.GradientTape() as outer:
        outer.watch(y)
        with tf.GradientTape() as inner:
            inner.watch(y)
            total = ops.sum(adjoint(y) ** 2 * adjoint(z) ** 2)
        along_z = ops.sum(inner.gradient(total, y) * z)
    expected = ops.convert_to_numpy(layer(2 * adjoint(z) ** 3) - constant)
    found = ops.convert_to_numpy(outer.gradient(along_z, y))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
