"""Several threads at once: what one of them tests or makes changes nothing that another one computes."""

import threading

import keras
import numpy as np
import pytest
from encoders import values
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.tied import linear_part

L = keras.layers
THREADS = 4


def in_threads(work):
    """What `work` returns in several threads that start together; an error in one of them is raised here."""
    together, results, errors = threading.Barrier(THREADS), [], []

    def run():
        together.wait()
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def dense(**options):
    layer = L.Dense(5, activation="relu", activity_regularizer="l2", name="dense", **options)
    layer.build((None, 3))
    randomize(layer)
    return layer


@pytest.mark.parametrize(
    "work",
    [
        lambda layer: ka.check_adjoint(layer),
        lambda layer: ka.check_adjoint(layer, lambda y: y @ np.ones((5, 3), "float32")),
        lambda layer: ka.mirror(keras.Sequential([keras.Input((3,)), layer])),
    ],
    ids=["check", "failed check", "mirror"],
)
def test_a_layer_that_is_tested_goes_on_computing_what_it_did(work):
    """While the test runs, the layer's own parts are in place: another thread that looks at any moment finds them."""
    layer = dense()
    parts = {name: getattr(layer, name) for name in ("activation", "bias", "activity_regularizer")}
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    expected, wrong, done = values(layer(x)), [], threading.Event()

    def watch():
        while not done.is_set():
            if any(getattr(layer, name) is not part for name, part in parts.items()):
                wrong.append("a part was replaced")
            if np.abs(values(layer(x)) - expected).max() > 1e-6:
                wrong.append("a prediction")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(5):
            work(layer)
    finally:
        done.set()
        watcher.join()
    assert not wrong


def test_the_linear_part_is_computed_beside_the_layer():
    """Not by chance: the linear part is called while the layer is asked what it is."""
    seen = []

    @keras.saving.register_keras_serializable(package="test_threads")
    class Looking(L.Dense):
        def call(self, inputs, training=None):
            seen.append((layer.activation, layer.bias))
            return super().call(inputs)

    layer = Looking(5, activation="relu")
    layer.build((None, 3))
    own = layer.activation, layer.bias
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(values(linear_part(layer)(x)), x @ values(layer.kernel), rtol=1e-5, atol=1e-6)
    assert seen and all(pair[0] is own[0] and pair[1] is own[1] for pair in seen)
    assert not layer.losses


def test_adjoints_made_in_threads_are_right_and_have_names_of_their_own():
    layer = dense()
    y = np.random.default_rng(1).normal(size=(2, 5)).astype("float32")
    made = [adjoint for found in in_threads(lambda: [linear_adjoint(layer) for _ in range(10)]) for adjoint in found]
    assert len({adjoint.name for adjoint in made}) == len(made)
    for adjoint in made:
        np.testing.assert_allclose(values(adjoint(y)), y @ values(layer.kernel).T, rtol=1e-5, atol=1e-6)


def test_one_adjoint_serves_many_threads():
    """Its plans for tensors of many shapes are made and given up by all of them."""
    layer = L.Conv1D(3, 3, padding="same")
    layer.build((None, None, 2))
    adjoint = ka.adjoint(layer)
    rows = [np.random.default_rng(size).normal(size=(1, size, 3)).astype("float32") for size in range(3, 9)]
    expected = [values(adjoint(y)) for y in rows]

    def work():
        return [values(adjoint(y)) for _ in range(3) for y in rows]

    for found in in_threads(work):
        for one, other in zip(found, expected * 3, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
