"""What all `--json` have in common: one style, and every key is in the documentation."""

import json

import keras
import numpy as np
import pytest
from broken_models import lost_tie
from command_line import run, saved
from json_style import ALL, check_style, documented
from keras import layers
from PIL import Image

from keras_adjoint_cli.app import app
from keras_adjoint_cli.console import print_json

pytestmark = pytest.mark.any_backend
COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def with_a_gap():
    image = keras.Input((9, 8, 3))
    x = layers.AutoContrast(name="contrast")(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    return keras.Model(image, layers.Conv2DTranspose(3, 3, name="back")(x), name="autoencoder")


def mirrorable():
    image = keras.Input((9, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    return keras.Model(image, layers.Conv2DTranspose(3, 3, name="back")(x), name="autoencoder")


CALLS = {
    "inspect": (with_a_gap, "model.keras"),
    "check": (with_a_gap, "model.keras"),
    "spectrum": (with_a_gap, "model.keras"),
    "mirror": (mirrorable, "model.keras", "-o", "out.keras", "--autoencoder"),
    "kernel": (mirrorable, "in.npy", "-o", "out.npz", "--kind", "conv"),
    "deconv": (mirrorable, "model.keras", "photo.png", "--layer", "conv", "-o", "out.png"),
    "apply": (mirrorable, "model.keras", "volume.npy", "-o", "out.npy"),
    "report": (with_a_gap, "model.keras", "-o", "out.html", "--images", "photo.png"),
    "doctor": (lost_tie, "model.keras", "--fix", "-o", "repaired.keras"),
}


@pytest.mark.parametrize("command", CALLS)
def test_keys_are_identifiers_values_have_types_and_the_page_names_every_key(command, tmp_path, monkeypatch):
    model, *arguments = CALLS[command]
    saved(model(), tmp_path)
    np.save(tmp_path / "in.npy", np.ones((3, 3, 2, 4), "float32"))
    np.save(tmp_path / "volume.npy", np.ones((9, 8, 3), "float32"))
    Image.fromarray(np.full((30, 40, 3), 128, "uint8")).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    check_style(command, json.loads(run(command, *arguments, "--json").stdout))


def test_every_command_has_json_and_a_test_here():
    assert {*CALLS, "demo"} == set(COMMANDS) == documented().keys() - {ALL}


def test_what_json_cannot_say_is_null(capsys):
    print_json(
        {"a": float("nan"), "b": "", "c": np.float32("inf"), "d": [np.int64(3), True, None], "e": np.float32(0.5)}
    )
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": None, "c": None, "d": [3, True, None], "e": 0.5}
