"""Cumulative sums: their adjoint is right behind paddings and slices, of which XLA makes wrong reversed sums."""

import keras
import numpy as np
import pytest
from keras import ops
from operators_of_models import matrix

import keras_adjoint as ka


@pytest.mark.parametrize("axis", [1, -1])
def test_the_adjoint_of_a_slice_of_a_cumulative_sum_is_right_when_it_is_compiled(axis):
    x = keras.Input((3, 4))
    y = ops.cumsum(x, axis=axis)
    model = keras.Model(x, y[:, 1::2] if axis == 1 else y[..., 1::2])
    adjoint = ka.adjoint(model)
    units = np.eye(np.prod(model.output_shape[1:]), dtype="float32").reshape(-1, *model.output_shape[1:])
    rows = adjoint.predict_on_batch(units)
    np.testing.assert_array_equal(rows.reshape(len(rows), -1), matrix(model, [(3, 4)]))


def test_a_cumulative_sum_of_all_axes_is_refused():
    x = keras.Input((3,))
    with pytest.raises(ka.NoRuleError, match="works along axis 0"):
        ka.adjoint(keras.Model(x, ops.cumsum(x)))
