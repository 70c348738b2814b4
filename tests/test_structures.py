"""Decoders take the structure that the encoder gives, and give the one that it takes."""

import keras
import numpy as np
import pytest
from keras import ops, tree

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend

L = keras.layers


def encoder():
    x, z = keras.Input((3,), name="x"), keras.Input((2, 3), name="b")
    return keras.Model({"x": x, "b": z}, {"u": L.Dense(2)(x), "a": L.Dense(4)(z)}, name="net")


def batch():
    return {"x": np.ones((4, 3), "float32"), "b": np.ones((4, 2, 3), "float32")}


def shapes(tensors):
    return tree.map_structure(lambda tensor: tuple(tensor.shape), tensors)


def test_a_mirror_takes_the_dictionary_that_the_encoder_gives():
    model, x = encoder(), batch()
    decoder = ka.mirror(model)
    assert shapes(decoder.input) == shapes(model.output) and shapes(decoder.output) == shapes(model.input)
    assert {key: tuple(value.shape) for key, value in decoder(model(x)).items()} == {"x": (4, 3), "b": (4, 2, 3)}


@pytest.mark.parametrize("names", ["ab", "ba", "ax", "uv"])
def test_the_inputs_of_a_mirror_have_the_keys_of_a_dictionary_as_names(names):
    x = keras.Input((3,), name="x")
    layers = L.Dense(2, name="a"), L.Dense(4, name="b")
    model = keras.Model(x, {name: layer(x) for name, layer in zip(names, layers, strict=True)})
    for decoder in (ka.mirror(model, bias="none"), ka.adjoint(model)):
        assert {key: tensor.name for key, tensor in decoder.input.items()} == {name: name for name in names}
        again = ka.adjoint(keras.Model(decoder.input, decoder(decoder.input)))  # which brings the layers back
        assert len({layer.name for layer in again.layers}) == len(again.layers)


def test_dictionaries_are_distributed_by_name():
    model = encoder()
    adjoint = ka.adjoint(model)
    found = adjoint({"u": np.ones((1, 2)), "a": np.zeros((1, 2, 4))})
    assert np.any(ops.convert_to_numpy(found["x"])) and not np.any(ops.convert_to_numpy(found["b"]))
    ka.assert_adjoint(model)
    ka.assert_adjoint(model, input_shape={"x": (5, 3), "b": (5, 2, 3)})


@pytest.mark.every_backend
def test_an_autoencoder_of_dictionaries_is_fitted_to_its_inputs(tmp_path):
    autoencoder, x = ka.autoencoder(encoder()), batch()
    autoencoder.compile("sgd", "mse")
    autoencoder.fit(x, x, verbose=0)
    autoencoder.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in autoencoder(x).items():
        np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)[key]), ops.convert_to_numpy(value), rtol=1e-6)


def test_structures_may_be_nested_and_of_one_entry():
    x, z = keras.Input((3,), name="x"), keras.Input((2, 3), name="z")
    nested = keras.Model([x, z], {"o": [L.Dense(2)(x), {"p": L.Dense(4)(z)}]})
    single = keras.Model({"x": x}, {"u": L.Dense(2)(x)})
    for model in (nested, single):
        assert shapes(ka.mirror(model).input) == shapes(model.output)
        assert shapes(ka.mirror(model).output) == shapes(model.input)
        ka.assert_adjoint(model)


class Weighted(L.Layer):
    """The sum of what it is called with, in whatever structure, each with a weight by the path to it."""

    def call(self, structure):
        return sum((1 + sum(map(weight, path))) * x for path, x in tree.flatten_with_path(structure))


def weight(key):
    return 3 + (key if isinstance(key, int) else ord(key) - ord("a"))


STRUCTURES = {
    "a dictionary": lambda x, z: {"c": x, "b": z},
    "a list in a list": lambda x, z: [x, [z]],
    "a tuple of dictionaries": lambda x, z: ({"u": x}, {"u": z}),
    "a list of one": lambda x, z: [x],
    "a dictionary of one": lambda x, z: {"u": x},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_the_adjoint_of_an_adjoint_calls_the_source_with_the_structure_that_it_takes(structure, tied):
    x = keras.Input((3,))
    taken = structure(x, L.Dense(3, bias_initializer="ones")(x))  # with the bias the model itself does not come back
    model = keras.Model(x, L.Dense(2, bias_initializer="ones")(Weighted()(taken)))
    again = ka.adjoint(ka.adjoint(model, tied=tied), tied=tied)
    assert again is not model
    rows, shift = (ops.convert_to_numpy(model(rows)) for rows in (np.eye(3, dtype="float32"), np.zeros((1, 3))))
    np.testing.assert_allclose(
        ops.convert_to_numpy(again(np.eye(3, dtype="float32"))), rows - shift, rtol=1e-5, atol=1e-5
    )
