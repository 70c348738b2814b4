"""`KERAS_BACKEND=torch python -m benchmarks.blocks [PART …]`: measure, and write docs/blocks.md.

The parts are `resources` (volumes up to 4 GiB, which take twice as much room on the disk for some minutes), `throughput`,
`cluster` and `chaos`. What is not measured now keeps its figures, which are in results.json beside this file.
"""

import argparse
import datetime
import json
import os
from pathlib import Path

import keras

from benchmarks.blocks import chaos, cluster, page, resources, throughput
from benchmarks.speed.files import BACKENDS, processor
from keras_adjoint.atomic_write import atomic_write

MEMORY = "1GiB"


def main():
    """Measure the parts that are asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure; by default everything")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[128, 256, 512], help="edges of the volumes of `resources`"
    )
    parser.add_argument("--size", type=int, default=256, help="edge of the volume of `throughput`")
    parser.add_argument("--turns", type=int, default=7, help="how often each way of `throughput` is timed")
    parser.add_argument(
        "--of-cluster", type=int, nargs=2, default=[128, 32], help="edges of the volume and block of `cluster`"
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder with benchmarks/ and docs/")
    given = parser.parse_args()
    measure = {
        "resources": lambda: resources.rows(given.sizes, MEMORY),
        "throughput": lambda: throughput.rows(given.size, MEMORY, given.turns),
        "cluster": lambda: with_growth(cluster.rows(*given.of_cluster)),
        "chaos": chaos.rows,
    }
    unknown = sorted(set(given.parts) - set(measure))
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(measure)}")
    for part in given.parts or measure:
        found = {"figures": measure[part](), "facts": facts()}
        results = {**page.read(given.out), part: found}
        with atomic_write(given.out / page.RESULTS) as beside:
            beside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    with atomic_write(given.out / page.PAGE) as beside:
        beside.write_text(page.text(page.read(given.out)), encoding="utf-8")


def with_growth(figures):
    """The figures of the cluster, with what follows for larger ones."""
    return {**figures, "growth": page.simulated(page.mean_rates(figures))}


def facts():
    """With what and when a part was measured."""
    backend = BACKENDS[keras.backend.backend()]
    return {
        "with": f"{backend}, Keras {keras.__version__}, {processor()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[1]) if hasattr(os, "getloadavg") else None,
    }


if __name__ == "__main__":
    main()
