"""`python -m benchmarks.speed`: measure one backend, save the figures, and write the page and the notebook from all of them."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend

import keras
from rich.progress import track

from benchmarks.speed import convolutions, files, notebook, overhead, page, training, workspace
from benchmarks.speed.geometries import GEOMETRIES
from keras_adjoint_cli.console import make_console

LENGTHS = {
    "float32": len(GEOMETRIES),
    "bfloat16": len(GEOMETRIES),
    "training": len(training.ENCODERS),
    "overhead": 1 + len(overhead.LAYERS),
    "workspace": len(workspace.GEOMETRIES),
}
PARTS = tuple(LENGTHS)


def main():
    """Measure the parts that are asked for; the others stay as they were."""
    given = arguments()
    console = make_console()
    backend = keras.backend.backend()
    figures = files.read(given.out, backend, given.device)
    is_whole = set(given.parts) == set(PARTS)
    for number, part in enumerate(given.parts, 1):
        alone = () if is_whole else given.parts[:number]
        figures[part] = {}
        for name, row in track(measure(part, given.seconds), part, total=LENGTHS[part], console=console):
            figures[part][name] = row
            files.write(given.out, backend, given.device, figures, alone)  # a run that is cut off keeps what it has
    page.write(given.out)
    notebook.write(given.out)
    console.print(notebook.summary([files.read(given.out, backend, given.device)]), soft_wrap=True, markup=False)


def measure(part, seconds):
    """(name, figures) of one part, one after the other."""
    if part in ("float32", "bfloat16"):
        return convolutions.rows(part, seconds)
    if part == "training":
        return ((name, training.measure(name, 5 * seconds)) for name in training.ENCODERS)
    return overhead.measure(seconds) if part == "overhead" else workspace.rows()


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for every function that is timed")
    parser.add_argument("--out", type=Path, default=Path(), help="folder that gets docs/ and benchmarks/")
    parser.add_argument("--device", default="cpu", help="what to call this machine, which gets tables of its own")
    given = parser.parse_args()
    for part in given.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    return given


if __name__ == "__main__":
    main()
