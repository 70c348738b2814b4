"""Nothing in the current folder is run: a file there of the name of any module is left alone, but for `--import`."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import SOONEST, run, saved
from keras import layers
from PIL import Image

from keras_adjoint.command import leave_out_current_folder

pytestmark = pytest.mark.any_backend
# By which Python itself finds the module that `-m` names, before anything of that module runs.
STARTS_MODULES = {
    *("importlib", "warnings", "contextlib", "collections", "keyword", "operator", "reprlib", "functools", "types"),
    *("runpy", "pkgutil", "io", "os", "sys", "threading", "_weakrefset"),
}
OPTIONAL = {"keras_hub", "keras_cv", "keras_nlp", "tf_keras", "usercustomize", "sitecustomize", "cupy"}
OURS = {"keras_adjoint", "keras_adjoint_cli"}
COMMAND = Path(sys.executable).with_name("keras-adjoint")


@pytest.fixture
def decoys(tmp_path, monkeypatch):
    """The current folder, with a file of the name of every module that could be imported, and a model and a picture."""
    names = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names, *OPTIONAL} - OURS
    for name in filter(str.isidentifier, names):
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/executed', 'a').write('{name} ')\n")
    image = keras.Input((9, 8, 1))
    saved(keras.Model(image, layers.Conv2D(3, 3, name="conv")(image)), tmp_path)
    Image.fromarray(np.zeros((9, 8), "uint8")).save(tmp_path / "photo.png")
    (tmp_path / "my_layers.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("open('imported', 'w')\n")
    # Settings of Matplotlib's are looked for in the current folder first, and this one starts LaTeX.
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*command):
    """A command in a new process; what ran in the current folder, besides."""
    ran = subprocess.run(command, env=os.environ | SOONEST, capture_output=True, text=True)
    return ran, Path("executed").read_text() if Path("executed").exists() else ""


@pytest.mark.skipif(not COMMAND.exists(), reason="the command is not installed beside this Python")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(
            ("deconv", "model.keras", "photo.png", "--layer", "conv", "-o", "out.png"),
            marks=pytest.mark.exhaustive,
            id="deconv",
        ),
        pytest.param(("report", "model.keras", "-o", "out.html"), id="report"),
    ],
)
def test_the_installed_command_runs_nothing_of_the_current_folder(decoys, arguments):
    ran, executed = called(COMMAND, *arguments)
    assert executed == "" and ran.returncode == 0, ran.stderr


def test_as_a_module_it_runs_nothing_beyond_what_python_starts_modules_with(decoys):
    for name in STARTS_MODULES:
        (decoys / f"{name}.py").unlink(missing_ok=True)
    ran, executed = called(sys.executable, "-m", "keras_adjoint", "inspect", "model.keras")
    assert executed == "" and ran.returncode == 0, ran.stderr


STARTED = {  # the command, sys.argv while the module is imported, whether the current folder is taken off
    "python -m keras_adjoint inspect -m": (["-m", "inspect", "-m"], True),
    "python -mkeras_adjoint": (["-m"], True),
    "python -Bmkeras_adjoint.__main__ inspect": (["-m", "inspect"], True),
    "python -X dev -m keras_adjoint.__main__": (["-m"], True),
    "python -m pytest -m keras_adjoint": (["-m", "-m", "keras_adjoint"], False),
    "python -m my_keras_adjoint": (["-m"], False),
    "python script.py -m keras_adjoint": (["script.py", "-m", "keras_adjoint"], False),
    "keras-adjoint inspect": (["keras-adjoint", "inspect"], False),
    "python": ([""], False),
}


@pytest.mark.parametrize("command", STARTED)
def test_the_current_folder_is_taken_off_where_this_package_is_what_runs(command, monkeypatch):
    argv, taken_off = STARTED[command]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", command.split())
    monkeypatch.setattr(sys, "path", ["/here", "/lib"])
    leave_out_current_folder("/here/.venv/lib/keras_adjoint/__init__.py")
    assert sys.path == (["/lib"] if taken_off else ["/here", "/lib"])
    monkeypatch.setattr(sys, "path", ["/here", "/lib"])
    leave_out_current_folder("/here/keras_adjoint/__init__.py")  # run from its own sources
    assert sys.path == ["/here", "/lib"]


def test_import_finds_modules_of_the_current_folder_behind_all_others(decoys):
    before = list(sys.path)
    result = run("inspect", "model.keras", "--import", "my_layers", "--import", "skimage")
    assert result.exit_code == 0, result.stderr
    assert Path("imported").exists() and not Path("executed").exists()
    assert sys.path == before
    for name in ("my_layers", "helper"):
        del sys.modules[name]


def test_a_module_that_fails_leaves_no_path_behind(decoys):
    Path("my_layers.py").write_text("1 / 0")
    before = list(sys.path)
    assert run("inspect", "model.keras", "--import", "my_layers").exit_code == 2
    assert sys.path == before
