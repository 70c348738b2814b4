"""Every bad input with every command that takes it: one line, exit status 2, in little time and memory, and nothing else."""

import contextlib
import itertools
import json
import re
import resource
import time
import unicodedata

import pytest
from bad_inputs import OPTIONS, arrays, good_files, heavy, pictures, scripts
from bad_models import good, models, npy, pixels
from command_line import run, run_in_new_process

pytestmark = pytest.mark.in_turn("torch")
SECONDS, MEMORY = (
    20,
    2 << 30,
)  # of one command, of which most take milliseconds; and of all beyond what Python has by now

MODEL_COMMANDS = itertools.cycle(
    [
        "inspect {}",
        "check {} --json",
        "spectrum {}",
        "doctor {}",
        "mirror {} -o out.keras",
        "deconv {} good.png --layer conv -o out.png",
        "report {} -o out.html",
        "doctor {} --fix -o out.keras",
    ]
)
PICTURE_COMMANDS = itertools.cycle(
    ["deconv good.keras {} --layer conv -o out.png", "report good.keras -o out.html --images {}"]
)
KINDS = {
    "model": (models, MODEL_COMMANDS),
    "arrays": (arrays, itertools.cycle(["kernel {} -o out.npz --kind flip"])),
    "picture": (pictures, PICTURE_COMMANDS),
    "script": (scripts, itertools.cycle(["doctor {}", "doctor {} --fix -o out.py"])),
}


def cases():
    """(name, a `Bad` file, a command) of every file; the commands take turns, for all of them read it in one way."""
    for kind, (inputs, commands) in KINDS.items():
        for (name, bad), command in zip(inputs(), commands, strict=False):
            yield pytest.param(bad, command, id=f"{kind}: {name}: {command.split()[0]}")


@contextlib.contextmanager
def little_memory():
    """Inside, this process gets no more than `MEMORY` beyond what it has."""
    with open("/proc/self/statm") as statm:
        had = int(statm.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (had + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_refused(status, stdout, stderr, words):
    """One line that ends in a sentence, and nothing in it that moves the cursor."""
    assert status == 2, stdout + stderr
    assert stdout == "" and stderr.startswith("keras-adjoint: ") and stderr.endswith("\n"), stdout + stderr
    line = stderr[:-1]
    assert words in line
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Zl", "Zp") for one in line), stderr
    assert not re.search(r"[\w)'\"][.?!]\.( |$)", line), line
    assert line.endswith((".", "?", '"')) or "Received: " in line or line.endswith("--help"), line
    assert "Traceback" not in line and len(line) < 1500, line


def entries(folder):
    return {
        path.relative_to(folder): path.lstat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")
    }


def refused(folder, command, words, monkeypatch):
    monkeypatch.chdir(folder)
    before, start = entries(folder), time.monotonic()
    with little_memory():
        result = run(*command)
    assert time.monotonic() - start < SECONDS
    check_refused(result.exit_code, result.stdout, result.stderr, words)
    assert entries(folder) == before


@pytest.mark.parametrize("bad, command", cases())
def test_a_bad_file(bad, command, tmp_path, monkeypatch):
    (tmp_path / "good.png").write_bytes(pixels())
    (tmp_path / "good.npy").write_bytes(npy())
    if "good.keras" in command:
        (tmp_path / "good.keras").write_bytes(good(".keras"))
    file = bad.write(tmp_path).relative_to(tmp_path)
    refused(tmp_path, [word.format(file) for word in command.split()], bad.words, monkeypatch)


@pytest.mark.parametrize("command, words", OPTIONS)
def test_a_bad_option(command, words, tmp_path, monkeypatch):
    good_files(tmp_path)
    refused(tmp_path, command.split(), words, monkeypatch)


IN_LITTLE = """
import json, resource, sys, time
from typer.testing import CliRunner
from keras_adjoint_cli.app import app
import keras, keras_adjoint, torch
results = []
had = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (had + (2 << 30),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
for arguments in json.loads(sys.argv[1]):
    start = time.process_time()
    result = CliRunner().invoke(app, arguments)
    results.append([result.exit_code, result.stdout, result.stderr, time.process_time() - start])
print(json.dumps(results))
"""


def test_what_asks_for_memory_or_time_without_end(tmp_path, monkeypatch):
    """In a process of its own, which ends if it takes too much of either."""
    asked = list(heavy(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = entries(tmp_path)
    ran = run_in_new_process("-c", IN_LITTLE, json.dumps([command for command, _ in asked]), KERAS_BACKEND="torch")
    assert ran.returncode == 0, ran.stderr[-2000:]
    for (command, words), (status, stdout, stderr, seconds) in zip(asked, json.loads(ran.stdout), strict=True):
        assert seconds < SECONDS, command
        if words:
            check_refused(status, stdout, stderr, words)
        else:
            assert status in (0, 1) and stderr == "", (command, stderr)
    assert entries(tmp_path) == before


def test_there_are_enough_of_them():
    assert len(list(cases())) + len(OPTIONS) >= 200
