"""Where older versions of Keras compute a layer wrong, its adjoint is refused, and nowhere else."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from layer_list import KERAS

import keras_adjoint as ka
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import TransposedWindow

pytestmark = pytest.mark.filterwarnings("ignore:You might experience inconsistencies:UserWarning:keras")


def test_some_transposed_convolutions_are_wrong_before_3_15_on_pytorch():
    assert (keras.backend.backend() == "torch" and KERAS < (3, 15)) == current().SHIFTS_CONV_TRANSPOSE


def geometries():
    """(taps, stride, output padding, padding) of transposed convolutions."""
    for taps, stride, padding in itertools.product(range(1, 6), range(1, 4), ("same", "valid")):
        yield from ((taps, stride, extra, padding) for extra in (None, *range(stride)))


def transposed(taps, stride, extra, padding):
    return L.Conv1DTranspose(2, taps, strides=stride, padding=padding, output_padding=extra, use_bias=False)


@pytest.mark.in_turn("tensorflow", "torch")  # JAX compiles each of the geometries
def test_the_adjoint_of_a_transposed_convolution_is_exact_or_refused():
    generator = np.random.default_rng(0)
    refused, wrong = set(), set()
    for geometry in geometries():
        x = generator.normal(size=(1, 6, 3)).astype("float32")
        try:
            layer = transposed(*geometry)
            y = ops.convert_to_numpy(layer(x))
        except Exception:  # Keras itself cannot compute it; each backend says so in its own way
            continue
        try:
            adjoint = ka.adjoint(layer)
        except ka.NoRuleError:
            refused.add(geometry)
            adjoint = None
        if adjoint is None:
            expected = whole(layer, x, *geometry)
            if y.shape == expected.shape and np.allclose(y, expected, atol=1e-5):
                wrong.add(geometry)
        else:
            assert ka.check_adjoint(layer, adjoint, input_shape=(1, 6, 3), trials=1), geometry
    assert not wrong, "refused, although Keras computes them as it should"
    assert bool(refused) == current().SHIFTS_CONV_TRANSPOSE


def whole(layer, x, taps, stride, extra, padding):
    """What the layer gives when it is computed as Keras means it: all positions first, half of the surplus cut in front."""
    window = TransposedWindow(taps, stride, 1, padding, extra)
    kernel = ops.convert_to_numpy(layer.kernel)
    y = np.zeros((1, (x.shape[1] - 1) * stride + taps, kernel.shape[1]))
    for position, tap in itertools.product(range(x.shape[1]), range(taps)):
        y[:, position * stride + tap] += x[:, position] @ kernel[tap].T
    return y[:, window.cropped // 2 :][:, : window.outputs(x.shape[1])]


def test_the_refusal_says_which_keras_and_what_to_do(monkeypatch):
    layer = L.Conv2DTranspose(3, 3, strides=2, padding="same")
    layer.build((None, 4, 4, 2))
    monkeypatch.setattr(current(), "SHIFTS_CONV_TRANSPOSE", True)
    message = (
        rf"Keras {keras.__version__} .* Upgrade to Keras 3\.15, .* Received: kernel_size=\(3, 3\), strides=\(2, 2\)"
    )
    with pytest.raises(ka.NoRuleError, match=message):
        ka.adjoint(layer)
    even = L.Conv2DTranspose(3, 4, strides=2, padding="same")
    even.build((None, 4, 4, 2))
    assert ka.adjoint(even).source is even


def test_a_mirror_that_does_nothing_is_a_model():
    """Keras before 3.14 makes no model that returns its input itself."""
    x = keras.Input((3,))
    encoder = keras.Model(x, L.BatchNormalization()(x))
    decoder = ka.mirror(encoder, norm="skip")
    code = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(decoder(code)), code)
