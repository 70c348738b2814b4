"""Files that are damaged at random, in processes of their own: at worst one line and exit status 2, and no crash."""

import json
import random

import pytest
from bad_models import archive_of, good, members
from command_line import run_in_new_process

pytestmark = [pytest.mark.any_backend, pytest.mark.exhaustive]
FILES, SEEDS = 60, range(6)  # of each kind, and of each process

SCRIPT = b"""import keras, numpy as np
conv = keras.layers.Conv2D(4, (3, 3), strides=2, padding="same")
x = conv(keras.Input((9, 9, 3)))
up = keras.layers.Conv2DTranspose(3, 3, strides=2, weights=[np.transpose(conv.get_weights()[0], (0, 1, 3, 2))])
model = keras.Model(x, up(x))
for layer in model.layers:
    w, b = layer.get_weights()
    layer.set_weights([w[::-1, ::-1], b])
model.save("model.keras")
"""
TOKENS = [
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"-",
    b"1" * 30,
    b"\0",
    b"\xff",
    b'"',
    b"lambda: ",
    b"*",
    b" if a else ",
    b"\n",
]
VALUES = [None, -1, 0, 1, 10**9, 10**18, 2.5, "", "valid", "\x1b[2K", [], [0], [[1]], {}, True, {"class_name": "Dense"}]


def bytes_changed(data, generator):
    """Some bytes, or blocks of them, are others, missing or doubled."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        start = generator.randrange(len(changed))
        length = generator.choice((1, 1, 4, 100))
        what = generator.randrange(3)
        if what == 0:
            changed[start : start + length] = generator.randbytes(length)
        elif what == 1:
            del changed[start : start + length]
        else:
            changed[start:start] = changed[start : start + length]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def json_changed(value, generator):
    """One value somewhere in a value of JSON's types is another one."""
    places = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, below in inner:
            places.append((one, key))
            waiting.append(below)
    for _ in range(generator.choice((1, 1, 3))):
        holder, key = generator.choice(places)
        holder[key] = generator.choice(VALUES)
    return json.dumps(value).encode()


def tokens_changed(data, generator):
    for _ in range(generator.choice((1, 2, 4))):
        start = generator.randrange(len(data))
        data = (
            data[:start]
            + generator.choice(TOKENS) * generator.choice((1, 1, 300))
            + data[start + generator.randrange(6) :]
        )
    return data


def archives(generator):
    return "model.keras", bytes_changed(good(".keras"), generator)


def configs(generator):
    return "model.keras", archive_of(
        members() | {"config.json": json_changed(json.loads(members()["config.json"]), generator)}
    )


def weights(generator):
    return "model.keras", archive_of(
        members() | {"model.weights.h5": bytes_changed(members()["model.weights.h5"], generator)}
    )


def hdf5(generator):
    return "model.h5", bytes_changed(good(".h5"), generator)


def scripts(generator):
    return "script.py", tokens_changed(SCRIPT, generator)


KINDS = {"archives": archives, "configs": configs, "weights": weights, "hdf5": hdf5, "scripts": scripts}

TRY_ALL = """
import json, pathlib, resource, sys, time
from typer.testing import CliRunner
from keras_adjoint_cli.app import app
import keras, keras_adjoint
had = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (had + (3 << 30),) * 2)
for file in sorted(pathlib.Path().glob("*/*")):
    print(file, file=sys.stderr, flush=True)  # what crashes is the last one
    start = time.process_time()
    result = CliRunner().invoke(app, ["doctor" if file.suffix == ".py" else "inspect", str(file)])
    took = time.process_time() - start
    print(json.dumps([str(file), result.exit_code, result.stdout, result.stderr, took]))
"""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind, seed, tmp_path, monkeypatch):
    generator = random.Random(f"{kind} {seed}")
    for number in range(FILES):
        name, data = KINDS[kind](generator)
        (tmp_path / f"{number:03}").mkdir()
        (tmp_path / f"{number:03}" / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ran = run_in_new_process("-c", TRY_ALL)
    assert ran.returncode == 0, ran.stderr[-2000:]
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(results) == FILES
    for file, status, _, stderr, took in results:
        assert status in (0, 1, 2) and took < 20, (file, status, stderr)
        if status == 2:
            assert stderr.startswith("keras-adjoint: ") and stderr.count("\n") == 1 and "\x1b" not in stderr, (
                file,
                stderr,
            )
    assert sorted(tmp_path.rglob("*")) == before
