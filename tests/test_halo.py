"""An axis that is divided among devices: with the halos that they exchange, each computes its part of the whole."""

import itertools

import numpy as np
import pytest

from keras_adjoint.ops.geometry import Axis, Window
from keras_adjoint.ops.halo import Divided

pytestmark = pytest.mark.any_backend
WINDOWS = [
    Window(taps, stride, dilation, padding)
    for taps, stride, dilation, padding in itertools.product(
        (1, 2, 3, 5), (1, 2, 3), (1, 2, 3), ("same", "valid", "causal")
    )
]


def matrix(axis, kernel):
    """The convolution along one axis."""
    found = np.zeros((axis.outputs, axis.size))
    for output, tap in itertools.product(range(axis.outputs), range(axis.taps)):
        position = output * axis.stride + tap * axis.dilation - axis.pad_before
        if 0 <= position < axis.size:
            found[output, position] += kernel[tap]
    return found


def part(tensor, start, length):
    """So many positions from `start` on, zeros where there are none."""
    return np.array([tensor[p] if 0 <= p < len(tensor) else 0 for p in range(start, start + length)])


@pytest.mark.parametrize("devices", [2, 3, 8])
@pytest.mark.parametrize("size", [16, 19])
def test_every_device_computes_its_part_of_the_whole_from_its_shard_and_the_halo(size, devices):
    generator = np.random.default_rng(0)
    for window in WINDOWS:
        if window.padding == "valid" and window.dilated_taps > size:
            continue
        axis, kernel = window.at(size), generator.normal(size=window.taps)
        divided, whole = Divided(axis, devices), matrix(axis, kernel)
        x, y = generator.normal(size=axis.size), generator.normal(size=axis.outputs)
        local, adjoint = matrix(divided.valid, kernel), matrix(divided.adjoint, kernel).T
        for device in range(devices):
            before, after = divided.halo_of_x
            shard = part(x, device * divided.inputs - before, before + divided.inputs + after)
            found = local @ part(shard, divided.first_read - device * divided.drift, divided.valid.size)
            expected = part(whole @ x, device * divided.outputs, divided.outputs)
            exists = device * divided.outputs + np.arange(divided.outputs) < axis.outputs
            np.testing.assert_allclose(found[exists], expected[exists], atol=1e-12, err_msg=f"{window} {device}")

            before, after = divided.halo_of_y
            shard = part(y, device * divided.outputs - before, before + divided.outputs + after)
            found = part(adjoint @ shard, divided.first_result + device * divided.drift, divided.inputs)
            expected = part(whole.T @ y, device * divided.inputs, divided.inputs)
            exists = device * divided.inputs + np.arange(divided.inputs) < axis.size
            np.testing.assert_allclose(found[exists], expected[exists], atol=1e-12, err_msg=f"{window} {device}")


def test_a_convolution_in_step_has_the_halo_of_its_taps_and_nothing_to_cut():
    divided = Divided(Window(3, 2, padding="same").at(64), 8)
    assert (divided.halo_of_x, divided.halo_of_y, divided.drift, divided.spread) == ((0, 1), (1, 0), 0, 0)
    assert divided.adjoint == Axis(8, 5, 3, 2, 1, 2)
