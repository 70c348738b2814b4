"""What was measured on each backend and machine, in a JSON file of its own, written in full or not at all."""

import datetime
import json
import os
import platform
from pathlib import Path

from benchmarks.zoo.files import versions
from keras_adjoint.atomic_write import atomic_write

BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
RESULTS = Path("benchmarks", "speed", "results")


def file_of(root, backend, device):
    """Where the figures of a backend on a machine are."""
    return root / RESULTS / f"{backend}-{device}.json"


def read(root, backend, device):
    """The figures of a backend; none if it has not been run."""
    file = file_of(root, backend, device)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write(root, backend, device, figures, alone=()):
    """Replace the file of a backend. Of parts that were measured alone, beside older figures, it says when that was."""
    run = {
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "versions": versions(backend),
    }
    facts = {"backend": backend, "device": device}
    if alone and "date" in figures:
        facts |= {"alone": figures.get("alone", {}) | dict.fromkeys(alone, run)}
    else:
        facts |= run | {"alone": {}}
    data = {**facts, **figures, **facts}  # in this order, and never with the facts of an earlier run
    with atomic_write(file_of(root, backend, device)) as beside:
        beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def processor():
    """The processor's name, as far as the system says."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def everything(root):
    """The figures of every machine by its name: those of the backends that have been run there, in the order of `BACKENDS`."""
    devices = sorted({file.stem.split("-", 1)[1] for file in (root / RESULTS).glob("*-*.json")})
    found = {device: [read(root, backend, device) for backend in BACKENDS] for device in devices}
    return {device: [figures for figures in of_device if figures] for device, of_device in found.items()}
