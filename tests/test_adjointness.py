"""The adjoint of every layer, entry by entry, against the transpose of the layer's own matrix."""

import dataclasses

import numpy as np
import pytest
from helpers import build_pair, matrices, operators, output_shape, tolerance
from layer_list import LAYERS, ONE_OF_EACH_FAMILY, REPRESENTATIVES, for_each


@for_each(LAYERS)
def test_matrix_of_the_adjoint_is_the_transpose_of_the_matrix(case):
    check(case, "float64")


@for_each(LAYERS, quick=REPRESENTATIVES)
def test_in_single_precision_too(case):
    check(case, "float32")


@pytest.mark.any_backend
@for_each(ONE_OF_EACH_FAMILY)
def test_a_subclass_that_changes_nothing_has_its_adjoint(case):
    subclass = type(f"My{case.layer_class.__name__}", (case.layer_class,), {})
    check(dataclasses.replace(case, make=lambda dtype: subclass.from_config(case.make(dtype).get_config())), "float64")


def check(case, dtype):
    layer, adjoint = build_pair(case, dtype)
    forward, backward = operators(case, layer, adjoint)
    a, b = matrices([(forward, case.input_shape), (backward, output_shape(layer))], layer.compute_dtype)
    assert b.dtype == layer.compute_dtype
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a.T, rtol=0, atol=tolerance(case, layer) * np.abs(a).max())
