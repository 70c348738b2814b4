"""Keras' own contract for layers: `run_layer_test` on the adjoint of every layer."""

import functools
import warnings

import keras
import numpy as np
import pytest
from helpers import build_pair, compiled
from keras import ops
from keras.src.testing import TestCase
from layer_list import HALF, LAYERS, REPRESENTATIVES, for_each

from keras_adjoint.layers.distributed import DistributedAdjoint
from keras_adjoint.layers.tied import Tied
from keras_adjoint.testing.pairs import UNPOOLING

STOCK = {"Activation", "CroppingD", "Dropout", "GaussianNoise", "Identity", "Permute", "SpatialDropoutD"}
STOCK |= {"Masking", "RandomContrast", "RandomFlip", "StochasticDepth", "TimeDistributed", "ZeroPaddingD"}


def run_layer_test(adjoint, input_shape):
    """Keras' test utility on an adjoint that exists: its constructor is the class with the same source and options."""
    config = adjoint.get_config()
    options = {key: value for key, value in config.items() if key in adjoint.options and key not in ("tied", "name")}
    make = functools.partial(type(adjoint), adjoint.source)
    # The utility looks the class up and reads its name.
    make.__name__ = type(adjoint).__name__
    with warnings.catch_warnings():
        # It also takes the layer's config apart, outside of any file: the very thing that a tie does not survive.
        warnings.filterwarnings("ignore", message=".*was tied to the kernel", category=UserWarning)
        case = TestCase()
        case.setUp()
        case.run_layer_test(make, options, input_shape, run_training_check=not only_shifts(adjoint))


def only_shifts(adjoint):
    """Whether all that could be trained are biases, which an adjoint does not read: no gradient would arrive."""
    names = {weight.name for weight in adjoint.trainable_weights}
    return bool(names) and names <= {"bias", "beta"}


def is_out_of_reach(case):
    """Whether the utility cannot call or train the adjoint: with switches of another shape, or returning several tensors."""
    return case.title.startswith("max") or case.merges


def is_stock(case):
    """Whether the adjoint is one of Keras' own layers, which Keras tests itself."""
    return case.family in STOCK and case.title != "zero padding 1d, channels first"


@for_each([case for case in LAYERS if not is_out_of_reach(case) and not is_stock(case)], quick=HALF)
def test_adjoint_keeps_the_contract_of_keras_layers(case):
    layer, adjoint = build_pair(case, "float32")
    assert isinstance(adjoint, Tied)
    run_layer_test(adjoint, (2, *layer.output.shape[1:]))


@for_each([case for case in LAYERS if is_stock(case)])
def test_other_adjoints_are_stock_layers_or_put_around_adjoints(case):
    _, adjoint = build_pair(case, "float32")
    assert type(adjoint).__module__.startswith("keras.") or isinstance(adjoint, DistributedAdjoint)


@for_each(LAYERS, quick=REPRESENTATIVES)
def test_symbolic_shape_and_dtype_are_those_of_the_result(case):
    layer, adjoint = build_pair(case, "float32")
    y_shape = tuple(layer.output.shape[1:])
    extra, symbolic = {}, {}
    if isinstance(adjoint, UNPOOLING):
        extra = {"switches": np.zeros((2, *case.shape), "float32")}
        symbolic = {"switches": keras.Input(case.shape)}
    found = adjoint(keras.Input(y_shape), **symbolic)
    result = compiled(lambda y: adjoint(y, **extra))(ops.zeros((2, *y_shape)))
    several = zip(found, result, case.shape, strict=True) if case.merges else [(found, result, case.input_shape)]
    for symbolic_x, x, shape in several:
        assert symbolic_x.shape == (None, *tuple(x.shape)[1:]) == (None, *shape)
        assert symbolic_x.dtype == keras.backend.standardize_dtype(x.dtype)


@pytest.mark.only_on("torch")  # which counts the parameters of modules by itself
def test_torch_sees_every_parameter_once():
    layer, adjoint = build_pair(LAYERS[0], "float32")
    model = keras.Model(layer.input, adjoint(layer.output))
    assert len({id(p) for p in model.parameters()}) == len(list(model.parameters())) == len(layer.weights)
