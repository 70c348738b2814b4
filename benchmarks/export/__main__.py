"""`python -m benchmarks.export`: export to every format on the backend of today, save what came of it, print the tables."""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend

import torch  # noqa: F401, I001  TensorFlow crashes if it is imported before PyTorch
import keras

from benchmarks.export import measure, page
from benchmarks.export.formats import FORMATS


def main():
    """Measure on one backend, and write the page from what was measured on all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for export.md and export/BACKEND.json")
    parser.add_argument("--page", action="store_true", help="measure nothing, and write the page again")
    given = parser.parse_args()
    folder = given.out / "export"
    if not given.page:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{keras.backend.backend()}.json"
        file.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    tables = page.tables(records)
    page.write(given.out / "export.md", tables)
    print(tables)


def measured():
    """Everything about every format that works here."""
    records = measure.formats()
    for kind in FORMATS:
        if not records[kind.name]["fails"]:
            for what in (measure.networks, measure.sizes, measure.layers):
                records[kind.name][what.__name__] = what(kind)
            print(kind.title, "done", flush=True)
    return records


if __name__ == "__main__":
    main()
