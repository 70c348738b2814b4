"""TensorFlow's `vectorized_map` over an adjoint gives for every sample what the adjoint itself does."""

import keras
import numpy as np
import pytest
from keras import layers as L

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
