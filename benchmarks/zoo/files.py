"""The rows of each backend in a JSON file of its own, each written in full or not at all."""

import datetime
import json
import platform
from importlib import metadata

import keras

import keras_adjoint as ka
from benchmarks.zoo.networks import cases
from keras_adjoint.atomic_write import atomic_write

BACKENDS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}


def file_of(folder, backend):
    """Where the rows of a backend are."""
    return folder / "zoo" / f"{backend}.json"


def read(folder, backend):
    """The rows of a backend by their keys; none if it has not been run."""
    file = file_of(folder, backend)
    return json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else {}


def write(folder, backend, rows):
    """Replace the file of a backend, with its rows in the order of the table."""
    data = {
        "backend": BACKENDS[backend],
        "date": datetime.date.today().isoformat(),
        "versions": versions(backend),
        "rows": {case.key: rows[case.key] for case in cases() if case.key in rows},
    }
    with atomic_write(file_of(folder, backend)) as beside:
        beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def versions(backend):
    """What the rows were measured with."""
    return {
        "keras-adjoint": ka.__version__,
        "Keras": keras.__version__,
        BACKENDS[backend]: metadata.version(backend),
        "Python": platform.python_version(),
    }


def sections(folder):
    """The data of all backends that have been run."""
    files = [file_of(folder, backend) for backend in BACKENDS]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
