"""The adjoint of every layer, entry by entry, against the transpose of the layer's own matrix."""

import numpy as np
import pytest
from helpers import build_pair, matrix, operators, output_shape, tolerance
from layer_list import LAYERS


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_matrix_of_the_adjoint_is_the_transpose_of_the_matrix(case, dtype):
    layer, adjoint = build_pair(case, dtype)
    forward, backward = operators(case, layer, adjoint)
    a = matrix(forward, case.input_shape, layer.compute_dtype)
    b = matrix(backward, output_shape(layer), layer.compute_dtype)
    assert b.dtype == layer.compute_dtype
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a.T, rtol=0, atol=tolerance(case, layer) * np.abs(a).max())
