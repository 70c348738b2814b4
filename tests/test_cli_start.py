"""The command answers before Keras is imported, and says in one line when that cannot be done, or is interrupted."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import SOONEST, run, run_in_new_process
from PIL import Image

pytestmark = pytest.mark.any_backend
HEAVY = ("keras", "tensorflow", "jax", "torch", "matplotlib")
MAIN = "from keras_adjoint_cli import main; main()"
REPORTING = f"""
import atexit, sys
atexit.register(lambda: print("imported:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr))
sys.argv = ["keras-adjoint", *sys.argv[1:]]
{MAIN}
"""


def imported(*arguments, status=0, **environment):
    """(what of `HEAVY` a command imports, its output)."""
    result = run_in_new_process("-c", REPORTING, *arguments, **environment)
    assert result.returncode == status, result.stderr
    return result.stderr.rpartition("imported:")[2].split(), result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["mirror", "--help"], ["doctor", "-h"]], ids=str)
def test_help_imports_neither_keras_nor_numpy(arguments):
    found, output = imported(*arguments)
    assert output and found == []


def test_the_module_starts_as_light_as_the_command():
    result = run_in_new_process("-X", "importtime", "-m", "keras_adjoint", "--version")
    assert result.stdout.startswith("keras-adjoint ")
    modules = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "keras_adjoint_cli.app" in modules and not modules & {*HEAVY, "numpy"}


@pytest.mark.parametrize("words, offered", [("mirror m.keras --policy nor", "norm="), ("kernel a --kind fl", "flip")])
def test_completion_imports_no_keras(words, offered):
    environment = {"COMP_WORDS": f"keras-adjoint {words}", "COMP_CWORD": str(len(words.split()))}
    found, output = imported(_KERAS_ADJOINT_COMPLETE="complete_bash", **environment)
    assert offered in output and found == []


def test_kernels_and_scripts_are_examined_without_keras(tmp_path):
    np.savez(tmp_path / "in.npz", a=np.zeros((3, 3, 2, 4)))
    script = tmp_path / "script.py"
    script.write_text("import keras\nkeras.layers.Conv2DTranspose(4, 3, strides=2)\n")
    found, output = imported("kernel", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--kind", "conv")
    assert "1 array rearranged" in output and found == []
    found, output = imported("doctor", script)
    assert "checkerboard" in output and found == []


def test_the_library_is_whole_in_the_process_of_the_command():
    script = """
import keras_adjoint_cli
keras_adjoint_cli.running = True
import sys, keras_adjoint
assert "keras" not in sys.modules and "AdjointConv" not in dir()
names = {name: getattr(keras_adjoint, name) for name in keras_adjoint.__all__}
assert names["adjoint"].__module__ == "keras_adjoint.models.adjoint"
"""
    result = run_in_new_process("-c", script)
    assert result.returncode == 0, result.stderr


def test_files_are_looked_at_before_keras_is_imported(tmp_path):
    """The picture of deconv, too, and before the model is loaded."""
    model, picture, text = a_file(tmp_path), tmp_path / "photo.png", a_file(tmp_path, "text.png")
    Image.fromarray(np.zeros((8, 8), "uint8")).save(picture)
    for arguments in (
        ("check", tmp_path / "none.keras"),
        ("inspect", tmp_path),
        ("mirror", model, "-o", model),
        ("report", model, "-o", tmp_path / "page.txt"),
        ("deconv", model, text, "--layer", "conv", "-o", tmp_path / "out.png"),
        ("deconv", model, tmp_path / "none.png", "--layer", "conv", "-o", tmp_path / "out.png"),
    ):
        found, _ = imported(*arguments, status=2)
        assert found == []


def a_file(folder, name="model.keras"):
    file = folder / name
    file.write_text("kernels")
    return file


# --- the backend


@pytest.mark.parametrize(
    "backend, words",
    [
        ("tensorflwo", "The backends are tensorflow, jax, torch"),
        ("torch", 'torch is not installed: pip install "keras-adjoint[torch]"'),
    ],
)
def test_a_backend_that_is_misspelled_or_missing(backend, words, tmp_path):
    arguments = ["keras-adjoint", "check", str(a_file(tmp_path))]
    script = f"import sys; sys.modules['torch'] = None; sys.argv = {arguments!r}; {MAIN}"
    result = run_in_new_process("-c", script, KERAS_BACKEND=backend)
    assert result.returncode == 2 and result.stdout == ""
    assert words in result.stderr and f"Received: KERAS_BACKEND={backend}" in result.stderr
    assert result.stderr.startswith("keras-adjoint: ") and len(result.stderr.splitlines()) == 1


def test_a_backend_that_cannot_be_imported(tmp_path):
    """As where a shared library is missing."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ImportError('libjax.so: no such file')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    script = f"import sys; sys.argv = ['keras-adjoint', 'check', {str(a_file(tmp_path))!r}]; {MAIN}"
    result = run_in_new_process("-c", script, PYTHONPATH=path)
    assert result.returncode == 2
    assert result.stderr == "keras-adjoint: Keras cannot be imported: ImportError: libjax.so: no such file.\n"


# --- interruption and time


@pytest.mark.parametrize("where", ["keras_adjoint_cli.session", "keras_adjoint_cli.app", "keras.src.backend"])
@pytest.mark.parametrize("command", ["check", "doctor"])
def test_control_c_while_python_imports_ends_with_one_line(where, command, tmp_path):
    """Pressed in the middle of an import, which would turn the exception into another one."""
    arguments = [command, str(a_file(tmp_path))]
    script = f"""
import importlib.abc, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background does not have
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {where!r}:
            print("importing", flush=True)
            try:
                time.sleep(60)
            except BaseException:
                raise ImportError("broken")
sys.meta_path.insert(0, Slow())
sys.argv = ["keras-adjoint", *{arguments!r}]
{MAIN}
"""
    environment = os.environ | SOONEST
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True, env=environment) as process:
        assert process.stdout.readline() == "importing\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "keras-adjoint: interrupted\n")


@pytest.mark.parametrize("cooperates", [True, False])
def test_the_time_limit_stops_the_work(cooperates, tmp_path):
    """Also where the work takes the exception for one of its own; what is half-written is removed where it does not."""
    out = tmp_path / "out.npz"
    np.savez(tmp_path / "in.npz", a=np.zeros((3, 3, 2, 4)))
    script = f"""
import sys, time
import keras_adjoint_cli.files.arrays as arrays, keras_adjoint_cli.session as session
session.GRACE = 0.2
def write(by_name, notes, file):
    file.write_text("half")
    start = time.monotonic()
    while time.monotonic() < start + 60:
        try:
            time.sleep(60)
        except BaseException:
            if {cooperates}:
                raise
arrays.WRITE[".npz"] = write
sys.argv = ["keras-adjoint", "kernel", {str(tmp_path / "in.npz")!r}, "-o", {str(out)!r}, "--timeout", "0.5"]
{MAIN}
"""
    result = run_in_new_process("-c", script)
    assert result.returncode == 124
    assert result.stderr.startswith("keras-adjoint: stopped after 0.5 s") and len(result.stderr.splitlines()) == 1
    if cooperates:
        assert [file.name for file in tmp_path.iterdir()] == ["in.npz"]
    assert not out.exists()


# --- readers that stop, and full disks


def piped(command, *arguments):
    script = f"import sys; sys.argv = ['keras-adjoint', *sys.argv[1:]]; {MAIN}"
    words = " ".join([sys.executable, "-c", f'"{script}"', *map(str, arguments)])
    line = f"set -o pipefail; {words} {command}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=os.environ | SOONEST)


def test_a_reader_that_stops_is_no_failure(tmp_path):
    np.savez(tmp_path / "in.npz", **{f"a{number}": np.zeros((3, 3, 2, 4)) for number in range(5000)})
    arguments = ("kernel", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--kind", "conv", "--json")
    result = piped("| head -n 1", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "{\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", ["--help", "doctor"])
def test_a_full_disk_is_one_line(command, tmp_path):
    (tmp_path / "script.py").touch()
    result = piped("> /dev/full", command, *([tmp_path] if command == "doctor" else []))
    assert result.returncode == 2
    assert result.stderr == "keras-adjoint: standard output cannot be written to: No space left on device.\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_standard_error_that_cannot_be_written_changes_no_exit_status(tmp_path):
    assert piped("2> /dev/full", "doctor", tmp_path / "missing").returncode == 2


def test_help_is_printed_in_every_encoding():
    result = run_in_new_process(
        "-c", f"import sys; sys.argv = ['keras-adjoint', 'report', '--help']; {MAIN}", PYTHONIOENCODING="ascii"
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_failure(closed, tmp_path):
    (tmp_path / "script.py").touch()
    result = piped(closed, "doctor", tmp_path)
    assert result.returncode == 0 and "keras-adjoint" not in result.stdout + result.stderr


def test_a_time_limit_of_centuries_is_none(tmp_path):
    (tmp_path / "script.py").touch()
    assert run("doctor", tmp_path, "--timeout", "1e20").exit_code == 0
