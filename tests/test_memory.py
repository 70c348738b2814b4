"""What is no longer used is given up: models with adjoints are collected, and calls leave nothing behind."""

import gc
import tracemalloc
import weakref

import keras
import numpy as np
import pytest
from helpers import in_turn

import keras_adjoint as ka

L = keras.layers
# Stock layers that are the adjoint of a stock layer, and what each is the adjoint of.
STOCK = {
    "cropping": lambda: L.ZeroPadding2D(1),
    "padding": lambda: L.Cropping2D(1),
    "permutation": lambda: L.Permute((2, 1, 3)),
    "identity": lambda: L.Dropout(0.5),
}


def image_model(layer):
    """A model of a convolution and a layer, with the adjoints of both behind them."""
    x = keras.Input((8, 8, 2))
    conv = L.Conv2D(3, 3, padding="same")
    y = layer(conv(x))
    return keras.Model(x, ka.adjoint(conv)(ka.adjoint(layer)(y))), conv


@pytest.mark.parametrize("name", in_turn(STOCK, always=["torch"]))
def test_a_model_with_the_adjoint_of_a_layer_behind_it_is_collected(name):
    layer = STOCK[name]()
    model, conv = image_model(layer)
    alive = [weakref.ref(model), weakref.ref(conv), weakref.ref(conv.kernel), weakref.ref(layer)]
    keras.utils.clear_session()  # Keras' own record of shared names
    del model, conv, layer
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)


def test_neither_a_model_nor_its_adjoint_keeps_the_other_alive():
    model = keras.Sequential([keras.Input((6, 6, 2)), L.ZeroPadding2D(1), L.Permute((2, 1, 3))])
    adjoint = ka.adjoint(model)
    assert ka.adjoint(adjoint) is model
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    y = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype("float32")
    assert ka.adjoint(adjoint)(adjoint(y)).shape == y.shape  # by the rules of its layers


@pytest.mark.any_backend
def test_a_mirrored_model_is_collected():
    def make():
        x = keras.Input((8, 8, 2))
        encoder = keras.Model(x, L.Flatten()(L.Conv2D(3, 3, strides=2)(x)))
        model = ka.autoencoder(encoder)
        model(np.ones((1, 8, 8, 2), "float32"))
        return weakref.ref(model), weakref.ref(encoder.layers[1]), weakref.ref(encoder.layers[1].kernel)

    alive = make()
    gc.collect()
    assert [reference() for reference in alive] == [None, None, None]


def test_a_thousand_eager_calls_leave_nothing_behind():
    x = keras.Input((8, 8, 2))
    conv, dense = L.Conv2D(3, 3, strides=2, padding="same"), L.Dense(4)
    dense(L.Flatten()(conv(x)))
    back, ahead = ka.adjoint(conv, bias="own"), ka.adjoint(dense, bias="own")
    code = keras.ops.ones((1, 4))

    def call(times):
        for _ in range(times):
            back(keras.ops.reshape(ahead(code), (1, 4, 4, 3)))
        gc.collect()
        return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        objects, memory = call(300)  # backends fill caches of their own at first
        more_objects, more_memory = call(1000)
    finally:
        tracemalloc.stop()
    assert more_objects - objects < 50
    assert more_memory - memory < 60_000  # less than a tensor per call


@pytest.mark.any_backend
def test_adjoints_that_are_given_up_leave_nothing_behind():
    conv = L.Conv2D(3, 3, strides=2)
    conv.build((None, 8, 8, 2))

    def make(times):
        for _ in range(times):
            ka.adjoint(conv)
        gc.collect()
        return len(gc.get_objects())

    make(5)
    before = make(5)
    assert make(100) - before < 50
