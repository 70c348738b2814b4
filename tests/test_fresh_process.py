"""Every kind of tied thing is saved in one process and loaded in another, which has imported Keras and this package alone."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_adjoint as ka

L = keras.layers

LOADING = """
import json, sys
import keras, keras_adjoint as ka, numpy as np
folder = sys.argv[1]
found = {}
for name in json.load(open(f"{folder}/names.json")):
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    x = np.load(f"{folder}/{name}_x.npy")
    before = keras.ops.convert_to_numpy(model(x))
    tied = ka.is_tied(model)
    kernel = next((w for w in model.weights if "kernel" in w.name), None)
    if kernel is not None:
        kernel.assign(keras.ops.square(kernel))
    np.savez(f"{folder}/{name}_y.npz", before=before, after=keras.ops.convert_to_numpy(model(x)))
    found[name] = [tied, model.count_params()]
json.dump(found, open(f"{folder}/found.json", "w"))
"""


def on(layer, shape, back):
    """A model of a layer and of what `back` makes of it, on an input of a shape."""
    x = keras.Input(shape)
    y = layer(x)
    return keras.Model(x, back(layer)(y))


def encoder():
    stages = [L.Conv2D(4, 3, strides=2, activation="relu"), L.AveragePooling2D(2), L.Flatten(), L.Dense(3)]
    return keras.Sequential([keras.Input((9, 9, 2)), *stages])


def with_mirror():
    model = encoder()
    return keras.Model(model.inputs[0], ka.mirror(model)(model.outputs[0]))


def conv(**options):
    return L.Conv2D(3, 3, use_bias=False, **options)


def sparse_coding(layer):
    return ka.SparseCoding(layer, dictionary="layer", weight=0.1)


KINDS = {
    "adjoint": lambda: on(conv(strides=2), (8, 8, 2), ka.adjoint),
    "adjoint_with_bias": lambda: on(conv(), (8, 8, 2), lambda layer: ka.adjoint(layer, bias="own")),
    "adjoint_of_model": lambda: on(keras.Sequential([keras.Input((5,)), L.Dense(4), L.Dense(3)]), (5,), ka.adjoint),
    "distributed": lambda: on(L.TimeDistributed(L.Dense(3)), (4, 5), ka.adjoint),
    "mirror": with_mirror,
    "autoencoder": lambda: ka.autoencoder(encoder()),
    "automatic": lambda: on(L.SimpleRNN(3, activation="linear", return_sequences=True), (4, 5), ka.adjoint),
    "automatic_without_weights": lambda: on(L.Resizing(4, 5), (8, 8, 2), ka.adjoint),
    "least_squares": lambda: on(L.Dense(3, use_bias=False), (5,), lambda layer: ka.LeastSquares(layer, ridge=0.1)),
    "lipschitz": lambda: on(ka.Lipschitz(conv()), (8, 8, 2), ka.adjoint),
    "regularized": lambda: on(ka.Regularized(L.Dense(3), spectral=0.1), (5,), ka.adjoint),
    "sparse_coding": lambda: on(L.Dense(3, use_bias=False), (5,), sparse_coding),
    "unroll": lambda: on(L.Dense(3, use_bias=False), (5,), lambda layer: ka.unroll(layer, steps=3, weight=0.1)),
}


@pytest.mark.any_backend
def test_what_another_process_loads_computes_the_same_and_is_tied(tmp_path):
    models = {name: make() for name, make in KINDS.items()}
    generator = np.random.default_rng(0)
    for name, model in models.items():
        np.save(tmp_path / f"{name}_x.npy", generator.normal(size=(2, *model.inputs[0].shape[1:])).astype("float32"))
        model.save(tmp_path / f"{name}.keras")
    (tmp_path / "names.json").write_text(json.dumps(list(models)))
    subprocess.run([sys.executable, "-c", LOADING, str(tmp_path)], check=True, cwd=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    for name, model in models.items():
        x, ys = np.load(tmp_path / f"{name}_x.npy"), np.load(tmp_path / f"{name}_y.npz")
        close = {"rtol": 1e-4, "atol": 1e-5, "err_msg": name}
        np.testing.assert_allclose(ys["before"], keras.ops.convert_to_numpy(model(x)), **close)
        kernel = next((weight for weight in model.weights if "kernel" in weight.name), None)
        assert found[name] == [ka.is_tied(model), model.count_params()], name
        assert found[name][0] == (kernel is not None), name
        if kernel is not None:  # what is assigned to the source is read by what is tied to it
            kernel.assign(keras.ops.square(kernel))
            np.testing.assert_allclose(ys["after"], keras.ops.convert_to_numpy(model(x)), **close)
            assert np.abs(ys["after"] - ys["before"]).max() > 1e-3, name
