"""What this package takes from Keras' way to write and read files: identities of layers, and who asks for a config."""

import copy
import json
import pickle

import h5py
import keras
import pytest
from keras import layers as L
from keras import ops

from keras_adjoint.keras_files import (
    announce_to_file,
    kept_with_file,
    legacy_layer,
    models_being_written,
    named_object,
    read_from_file_before,
    reads_file,
    reads_hdf5,
    restores_copy,
    sequential_models_built_once,
    shared_while_saving,
    watched_building,
    with_code_from_memory,
    without_code_from_files,
    without_compiling,
    without_training,
)


def test_no_code_from_files(tmp_path):
    keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: 2 * x)]).save(tmp_path / "model.h5")
    with without_code_from_files(), pytest.raises(ValueError, match="Lambda"):
        keras.saving.load_model(tmp_path / "model.h5", compile=False)


def test_code_from_memory():
    config = keras.saving.serialize_keras_object(L.Lambda(lambda x: 2 * x))
    with pytest.raises(ValueError, match="Lambda"):
        keras.saving.deserialize_keras_object(config)
    with with_code_from_memory():
        assert keras.saving.deserialize_keras_object(config).function(2) == 4


def test_a_layer_that_is_met_twice_in_a_file_is_one_layer_again():
    dense = L.Dense(2)
    dense.build((None, 3))
    with shared_while_saving():
        configs = [keras.saving.serialize_keras_object(dense) for _ in range(2)]
    assert configs[0]["shared_object_id"] == configs[1]["shared_object_id"]
    assert not reads_file()
    with shared_while_saving():
        assert reads_file()
        first, second = map(keras.saving.deserialize_keras_object, configs)
    assert first is second
    assert keras.saving.deserialize_keras_object(configs[0]) is not first


def test_an_announced_layer_has_an_identity_when_it_is_met_first():
    dense = L.Dense(2)
    announce_to_file(dense)  # no file is written now
    with shared_while_saving():
        assert "shared_object_id" not in keras.saving.serialize_keras_object(L.Dense(2))
        announce_to_file(dense)
        assert "shared_object_id" in keras.saving.serialize_keras_object(dense)


class Reporting(L.Layer):
    """A layer that notes how Keras came to make it from a config."""

    found = []

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return x

    def get_config(self):
        announce_to_file(self.inner)
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        cls.found.append((read_from_file_before(config["inner"]), reads_hdf5(), restores_copy()))
        return cls(**{**config, "inner": keras.saving.deserialize_keras_object(config["inner"])})


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_layer_can_tell_how_it_is_made_from_its_config(tmp_path):
    inner = L.Dense(2)
    inner.build((None, 2))
    x = keras.Input((2,))
    model = keras.Model(x, Reporting(inner)(Reporting(inner)(x)))
    model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")
    ways = {
        "file": lambda: keras.saving.load_model(tmp_path / "m.keras"),
        "HDF5": lambda: keras.saving.load_model(tmp_path / "m.h5"),
        "copy": lambda: copy.deepcopy(model),
        "pickle": lambda: pickle.loads(pickle.dumps(model)),
        "clone": lambda: keras.models.clone_model(model),
    }
    found = {}
    with keras.saving.custom_object_scope({"Reporting": Reporting}):
        for name, make in ways.items():
            Reporting.found.clear()
            make()
            found[name] = list(Reporting.found)
    assert found == {
        "file": [(False, False, False), (True, False, False)],
        "HDF5": [(False, True, False)] * 2,
        "copy": [(False, False, True), (True, False, True)],
        "pickle": [(False, False, True), (True, False, True)],
        "clone": [(False, False, False)] * 2,
    }


class Asked(L.Layer):
    """A layer that notes which models are written when it is asked for its config."""

    found = []

    def call(self, x):
        return x

    def get_config(self):
        names = [model.name for model in models_being_written()]
        self.found.append((names, kept_with_file("test", list)))
        return super().get_config()


def test_the_models_that_are_written_are_known_from_the_innermost_on_and_one_file_from_another():
    x, y = keras.Input((2,)), keras.Input((2,))
    inner = keras.Sequential([keras.Input((2,)), Asked()], name="inner")
    outer = keras.Model(y, keras.Model(x, inner(x), name="middle")(Asked()(y)), name="outer")
    Asked.found.clear()
    for _ in range(2):
        with shared_while_saving():
            keras.saving.serialize_keras_object(outer)
    outer.get_config()
    names = [["outer"], ["inner", "middle", "outer"]]
    assert [each for each, _ in Asked.found] == 3 * names
    kept = [value for _, value in Asked.found]
    assert kept[0] is kept[1] and kept[2] is kept[3] and kept[0] is not kept[2] and kept[4] is kept[5] is None


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_models_inside_of_models_are_not_compiled_where_that_is_not_wanted(suffix, tmp_path):
    inner, file = keras.Sequential([keras.Input((3,)), L.Dense(2)]), tmp_path / f"model{suffix}"
    inner.compile("adam", loss="mse")
    keras.Sequential([keras.Input((3,)), inner]).save(file)
    if suffix == ".h5":  # Keras writes it into other files alone, and reads it there as well
        with h5py.File(file, "a") as opened:
            config = json.loads(opened.attrs["model_config"])
            config["config"]["layers"][1] = keras.saving.serialize_keras_object(inner)
            opened.attrs["model_config"] = json.dumps(config)
    with without_compiling():
        loaded = keras.saving.load_model(file, compile=False)
    assert getattr(loaded.layers[0], "optimizer", None) is None
    assert keras.saving.load_model(file, compile=False).layers[0].optimizer is not None


def test_what_says_how_a_model_was_trained_is_taken_out_wherever_it_stands():
    trained = {"class_name": "A", "config": {"layers": []}, "compile_config": {"loss": "mse"}}
    nested = trained | {"config": {"layers": [[trained], {"layer": trained}], "compile_config": 3}}
    plain = {"class_name": "A", "config": {"layers": []}}
    expected = plain | {"config": {"layers": [[plain], {"layer": plain}], "compile_config": 3}}
    assert without_training(copy.deepcopy(nested)) == expected
    assert without_training(None) is None


@pytest.mark.parametrize("first", [[keras.Input((3,))], []], ids=["with an input", "without"])
def test_sequential_models_are_built_once_when_they_are_read(first, monkeypatch):
    model = keras.Sequential([*first, L.Dense(4), keras.Sequential([L.Dense(2), L.ReLU()]), L.ReLU()])
    model.build((None, 3))
    config, build, built = model.get_config(), keras.Sequential.build, []
    monkeypatch.setattr(keras.Sequential, "build", lambda model, shape=None: built.append(model) or build(model, shape))
    with sequential_models_built_once():
        found = keras.Sequential.from_config(config)
    assert built.count(found) == 1
    assert found.input_shape == (None, 3)
    assert [layer.name for layer in found.layers] == [layer.name for layer in model.layers]
    keras.Sequential.from_config(keras.Sequential([keras.Input((3,)), L.Dense(4), L.ReLU()]).get_config())
    assert built.count(built[-1]) > 1  # by Keras alone


def test_building_says_what_it_makes_before_it_is_made():
    """Every variable of a layer and every symbolic tensor, by shape and dtype; an error keeps it from being made."""
    variables, tensors = [], []
    with watched_building(lambda *made: variables.append(made), lambda *made: tensors.append(made)):
        x = keras.Input((9, 8, 1), dtype="float16")
        L.Conv2D(3, 5, dtype="float16")(x)
    assert {(5, 5, 1, 3), (3,)} <= {shape for shape, _ in variables}
    assert {dtype for shape, dtype in variables if len(shape) == 4} == {"float16"}
    assert {(None, 9, 8, 1), (None, 5, 4, 3)} <= {tuple(shape) for shape, _ in tensors}
    known = len(variables), len(tensors)

    def refuse(shape, dtype):
        raise MemoryError(shape)

    with watched_building(refuse, lambda *made: None), pytest.raises(MemoryError):
        L.Dense(10**12).build((None, 10**6))
    L.Dense(3)(keras.Input((2,)))
    assert (len(variables), len(tensors)) == known


def test_names_in_files_are_looked_up_in_modules_that_are_imported():
    assert named_object("keras.layers", "Dense") is legacy_layer("Dense") is L.Dense
    assert named_object("keras.ops", "tanh") is ops.tanh
    for module, name in (("keras.layers", "Nothing"), ("keras.nothing", "Dense")):
        assert named_object(module, name) is None
    assert legacy_layer("Nothing") is None
