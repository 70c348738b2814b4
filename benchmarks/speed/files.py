"""What was measured on each backend, in a JSON file of its own, written in full or not at all."""

import datetime
import json
import os
import platform

from benchmarks.zoo.files import versions
from keras_adjoint.atomic_write import atomic_write

BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def file_of(folder, backend, device):
    """Where the figures of a backend on a device are."""
    return folder / "speed" / f"{backend}-{device}.json"


def read(folder, backend, device):
    """The figures of a backend; none if it has not been run."""
    file = file_of(folder, backend, device)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write(folder, backend, device, figures):
    """Replace the file of a backend."""
    facts = {
        "backend": backend,
        "device": device,
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "versions": versions(backend),
    }
    data = {**facts, **figures, **facts}  # in this order, and never with the facts of an earlier run
    with atomic_write(file_of(folder, backend, device)) as beside:
        beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def processor():
    """The processor's name, as far as the system says."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def everything(folder):
    """The figures of every device by its name: those of the backends that have been run there, in the order of the page."""
    devices = sorted({file.stem.split("-", 1)[1] for file in (folder / "speed").glob("*-*.json")})
    found = {device: [read(folder, backend, device) for backend in BACKENDS] for device in devices}
    return {device: [figures for figures in of_device if figures] for device, of_device in found.items()}
