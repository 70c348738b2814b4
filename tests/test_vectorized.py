"""TensorFlow's `vectorized_map` and PyTorch's `vmap` over an adjoint give for every sample what the adjoint itself does."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from layer_list import LAYERS, for_each

import keras_adjoint as ka
from keras_adjoint.ops.products import times_matrix


@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 3), (4, 1, 5, 3), (2, 1, 1, 5, 3), (0, 4, 3)])
def test_a_product_with_a_matrix_is_right_for_every_number_of_axes(shape):
    generator = np.random.default_rng(0)
    x, matrix = generator.normal(size=shape).astype("float32"), generator.normal(size=(3, 2)).astype("float32")
    found = times_matrix(keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(matrix))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), x @ matrix, rtol=1e-5, atol=1e-5)


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("algorithm", [None, "shifts", "subpixel", "phases", "native", "columns"])
@pytest.mark.parametrize("options", [{"dilation_rate": 2}, {"strides": 2}, {"groups": 3}, {}], ids=str)
def test_every_algorithm_is_right_for_every_sample(algorithm, options):
    import tensorflow as tf

    layer = L.Conv1D(6, 3, padding="causal", **options)
    layer.build((None, 9, 3))
    back = ka.adjoint(layer, algorithm=algorithm)
    samples = np.random.default_rng(0).normal(size=(4, *layer.compute_output_shape((1, 9, 3)))).astype("float32")
    try:
        expected = np.stack([back(sample) for sample in samples])
    except ValueError as error:
        assert "cannot compute this convolution" in str(error)
        return
    found = tf.vectorized_map(back, tf.constant(samples))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("algorithm", ["shifts", "subpixel"])
def test_adjoints_of_grouped_volumes_and_their_gradients_are_right_for_every_sample(algorithm):
    import tensorflow as tf

    layer = L.Conv3D(4, 2, groups=2, use_bias=False)
    layer.build((None, 3, 3, 3, 4))
    back = ka.adjoint(layer, algorithm=algorithm)

    def gradient(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            x = back(y)
            size = tf.reduce_sum(x**2)
        return x, tape.gradient(size, y)

    samples = tf.constant(np.random.default_rng(0).normal(size=(3, 1, 2, 2, 2, 4)), tf.float32)
    for found, expected in zip(
        tf.vectorized_map(gradient, samples), zip(*map(gradient, samples), strict=True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.only_on("torch")
@for_each(LAYERS)
def test_pytorch_maps_every_adjoint_over_samples(case):
    import torch

    layer = case.build("float32")
    y = layer(case.inputs("int32") if isinstance(layer, L.Embedding) else case.inputs("float32"))
    samples = [torch.tensor(np.random.default_rng(0).normal(size=(2, *y.shape[1:])), dtype=torch.float32)]
    switches = case.switches("float32")
    names = [] if switches is None else ["switches"]
    if names:
        samples.append(ops.repeat(ops.convert_to_tensor(switches)[:1], 2, axis=0))
    adjoint = case.adjoint(layer)

    def of_one(y, *others):
        return keras.tree.flatten(
            adjoint(y[None], **{name: value[None] for name, value in zip(names, others, strict=True)})
        )

    found = torch.func.vmap(of_one)(*samples)
    expected = zip(*(of_one(*sample) for sample in zip(*samples, strict=True)), strict=True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(ops.stack(other)), rtol=1e-4, atol=1e-5
        )
