"""`unroll`: first and second derivatives of networks of steps, by the kernel and by y, against differences in float64."""

import keras
import numpy as np
import pytest
from autodiff import derivatives_along
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka

METHODS = ("primal_dual", "ista", "admm")


@pytest.mark.parametrize(
    "method", in_turn(METHODS, backends=lambda method: ("tensorflow", "torch", "torch"), always=["torch"])
)
def test_derivatives_of_two_orders_are_those_of_differences(method):
    conv = layers.Conv1D(3, 2, strides=2, use_bias=False, dtype="float64")
    conv.build((None, 8, 2))
    network = ka.unroll(conv, 2, method=method, weight=0.02)
    generator = np.random.default_rng(0)
    kernel, change, y, dy = (generator.normal(size=shape) for shape in 2 * (conv.kernel.shape,) + 2 * ((1, 4, 3),))

    def value(t):
        def moved(start, direction):
            return ops.convert_to_tensor(start) + t * ops.convert_to_tensor(direction)

        with keras.StatelessScope(state_mapping=[(conv.kernel, moved(kernel, change))]):
            return ops.sum(ops.square(network(moved(y, dy))))

    step = 1e-3  # PyTorch rounds some products to float32; at 0.3 a code becomes zero within it, where f″ jumps
    (before, slope_before, _), found, (after, slope_after, _) = (
        derivatives_along(value, 0.5 + shift) for shift in (-step, 0, step)
    )
    assert found[1:] == pytest.approx(
        [(after - before) / (2 * step), (slope_after - slope_before) / (2 * step)], rel=2e-4
    )
