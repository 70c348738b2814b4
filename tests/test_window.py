"""Windows of a zero-extended tensor: what they hold, that the adjoint is a window too, and that nothing moves without need."""

import numpy as np
import pytest
from helpers import matrix
from keras import ops

from keras_adjoint.ops.window import window

#           (starts, lengths) on a tensor of 4 x 3: inside, beyond either end, all of it, and nothing of it
WINDOWS = [((1, 0), (2, 2)), ((-1, 1), (4, 5)), ((-2, -1), (7, 5)), ((0, 0), (4, 3)), ((4, -3), (2, 3))]


@pytest.mark.parametrize(("starts", "lengths"), WINDOWS, ids=str)
def test_a_window_holds_the_tensor_and_zeros_around_it(starts, lengths):
    x = np.arange(1.0, 13.0).reshape(1, 4, 3)
    inside = np.pad(x, ((0, 0), (9, 9), (9, 9)))
    rows, columns = (slice(9 + start, 9 + start + length) for start, length in zip(starts, lengths, strict=True))
    found = ops.convert_to_numpy(window(ops.convert_to_tensor(x), starts, lengths))
    np.testing.assert_array_equal(found, inside[:, rows, columns])


@pytest.mark.parametrize(("starts", "lengths"), WINDOWS, ids=str)
def test_the_adjoint_of_a_window_is_a_window(starts, lengths):
    a = matrix(lambda x: window(x, starts, lengths), (4, 3), "float32")
    b = matrix(lambda y: window(y, [-start for start in starts], (4, 3)), lengths, "float32")
    np.testing.assert_array_equal(b, a.T)


def test_the_window_of_the_whole_tensor_is_the_tensor_itself():
    x = ops.ones((2, 4, 3))
    assert window(x, (0, 0), (4, 3)) is x
