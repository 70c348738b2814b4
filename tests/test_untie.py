"""Untied models: stock layers alone, the same numbers, and files that load where this package does not exist."""

import json
import subprocess
import sys
import textwrap

import jax
import keras
import numpy as np
import pytest
from helpers import BACKEND
from keras import ops
from layer_list import LAYERS

import keras_adjoint as ka
from keras_adjoint.precision import epsilon

L = keras.layers
KINDS = ("conv_transpose", "conv")
TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
LINEAR = [case for case in LAYERS if not case.title.startswith("max")]
CONVOLUTIONS = [case for case in LINEAR if "conv" in case.title and "transpose" not in case.title]

both_kinds = pytest.mark.parametrize("to", KINDS)


@pytest.fixture(autouse=True)
def quick_initializers(monkeypatch):
    """JAX compiles a random generator for every shape, which would take most of the time of these tests."""
    generator = np.random.default_rng(0)

    def initialize(self, shape, dtype=None):
        return ops.convert_to_tensor(generator.normal(size=shape), dtype=dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", initialize)


def values(*models, inputs):
    """What several models make of the same inputs."""

    def run(inputs):
        return [model(inputs) for model in models]

    run = jax.jit(run) if BACKEND == "jax" else run  # compiled as a whole, JAX takes a tenth of the time
    return [ops.convert_to_numpy(ops.cast(output, "float64")) for output in run(inputs)]


def random_like(model_or_tensor, batch=2, dtype="float32"):
    shape = getattr(model_or_tensor, "input_shape", None) or model_or_tensor.shape
    return np.random.default_rng(1).normal(size=(batch, *shape[1:])).astype(dtype)


def assert_same(tied, *untied, inputs, dtype="float32"):
    """To rounding: a few dozen roundings of the largest number."""
    expected, *results = values(tied, *untied, inputs=ops.convert_to_tensor(inputs, dtype))
    assert np.abs(expected).max() > 0
    for result in results:
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=0, atol=64 * epsilon(dtype) * np.abs(expected).max())


def classes(model):
    return [type(layer) for layer in model._flatten_layers(include_self=False)]


def assert_stock(model):
    assert {layer_class.__module__.partition(".")[0] for layer_class in classes(model)} == {"keras"}
    assert "keras_adjoint" not in model.to_json()


def called(case, dtype="float32", **options):
    """A layer of the list and its adjoint, called on a symbolic tensor."""
    source = case.build(dtype)
    tied = ka.adjoint(source, **case.options | options)
    tied(keras.Input(source.output.shape[1:], dtype=dtype))
    return source, tied


# --- every layer


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_untied_layer_computes_the_same_with_stock_layers_alone(case):
    source, tied = called(case)
    models = [ka.untie(tied, to=to) for to in KINDS]
    for model in models:
        assert_stock(model)
    assert not set(TRANSPOSED) & set(classes(models[1]))
    assert_same(tied, *models, inputs=random_like(source.output))
