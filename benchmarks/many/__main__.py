"""`python -m benchmarks.many`: run every program of this folder, each in a process of its own, and write docs/many.md.

It takes some minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_adjoint.atomic_write import atomic_write

ROOT = Path(__file__).parents[2]
SECONDS = 600
INTRODUCTION = """# Many devices, measured

<!-- Written by `python -m benchmarks.many`. Changes made by hand are lost. -->

What [many devices](how/many_devices.md) compute, compared with what one computes. Devices and processes are virtual: they share
two cores, so they prove that results are equal and show what is communicated, and say nothing about speed. Every row is run by
the command beside it. [Another table](blocks.md#interrupted) has what blocks lose where a worker or the process is killed, the
disk is full, or a chunk damaged: nothing.

## Training

Differences are the largest of any weight or state of the optimizer, relative to the farthest that training has moved a weight,
and the largest relative one of a loss.
"""
SPACE = """
## Space that is divided

8 virtual devices of JAX share the height of an image or volume, or the batch: what each device gets of others in the compiled
program, beside its halo, the rows that the device which reads most lacks. A gradient of the kernel is added up over all devices
on top of that. Memory is what a program holds on one of the devices, as a part of what it holds if there is only one.
`python -m benchmarks.many.space` prints this.
"""
ALGORITHMS = """
## Without the rule

The same for the adjoint by every algorithm, divided by [the rule](how/many_devices.md#an-image-that-is-divided), and by XLA
alone. `python -m benchmarks.many.space --algorithms` prints this.
"""


@dataclass(frozen=True)
class Row:
    """A row of the first table: what a program asserts, and where its figures are in what it prints."""

    engine: str
    asserted: str
    program: str
    part: str = ""
    backend: str = ""

    @property
    def command(self) -> str:
        """What a user types."""
        return f"{f'KERAS_BACKEND={self.backend} ' if self.backend else ''}python -m benchmarks.many.{self.program}"

    def figure(self, found: Mapping[str, Any]) -> str:
        """What was found, in words."""
        found = found[self.part] if self.part else found
        return (
            found if isinstance(found, str) else f"weights {short(found['weights'])}, losses {short(found['losses'])}"
        )


ROWS = (
    Row("JAX, 8 devices", "`DataParallel` trains as one device; tied", "devices", "data"),
    Row("JAX, 8 devices", "`ModelParallel` with `ka.layout_map` trains as one device; tied", "devices", "model"),
    Row("JAX, 8 devices, then 4", "a saved model is trained further; tied", "devices", "on four"),
    Row("JAX, 8 devices, then 1", "a saved model is trained further; tied", "devices", "on one"),
    Row("JAX, 2 processes", "`DataParallel` trains as one process; tied", "processes", "process 1"),
    Row("PyTorch, 2 ranks", "`DistributedDataParallel` trains as one rank; tied", "ranks", "rank 1"),
    Row("TensorFlow, 2 logical CPUs", "`MirroredStrategy` trains as one; tied", "replicas"),
    *(
        Row(engine, "killed in an epoch, it is resumed and ends as if it had not been; tied", "killed", backend=backend)
        for engine, backend in (("JAX", "jax"), ("PyTorch", "torch"), ("TensorFlow", "tensorflow"))
    ),
    Row("PyTorch", "`fully_shard`, which trains no Keras model, is refused", "refused", "fully_shard"),
    Row("PyTorch", "a `DTensor` divided along its rows is refused", "refused", "rows"),
)


def run(program: str, *arguments: str, backend: str = "") -> list[Any]:
    """What a program prints, line by line."""
    environment = {**os.environ, **({"KERAS_BACKEND": backend} if backend else {})}
    command = [sys.executable, "-m", f"benchmarks.many.{program}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def training(run: Callable[..., list[Any]] = run) -> list[str]:
    """The lines of the first table."""
    lines = ["| engine | asserted | figure | command |", "| --- | --- | --- | --- |"]
    results: dict[tuple[str, str], Any] = {}
    for row in ROWS:
        key = row.program, row.backend
        if key not in results:
            results[key] = run(row.program, backend=row.backend)[-1]
        lines.append(f"| {row.engine} | {row.asserted} | {row.figure(results[key])} | `{row.command}` |")
    return lines


def space(rows: list[Mapping[str, Any]]) -> list[str]:
    """The lines of the second table."""
    lines = ["| convolution | gradient | halo | exchanged | error | memory |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        halo, exchanged = kibibytes(row["halo"]), in_words(row["exchanged"])
        figures = f"{halo} | {exchanged} | {short(row['error'])} | {row['memory']:.2f}"
        lines.append(f"| {row['case']} | {row['gradient']} | {figures} |")
    return lines


def algorithms(rows: list[Mapping[str, Any]]) -> list[str]:
    """The lines of the third table."""
    lines = ["| convolution | algorithm | by the rule | by XLA |", "| --- | --- | --- | --- |"]
    adjoints = [row for row in rows if row["gradient"] == "adjoint"]
    found = {(row["case"], row["algorithm"], row["rule"]): in_words(row["exchanged"]) for row in adjoints}
    for case, algorithm, rule in found:
        if rule:
            exchanged = found[case, algorithm, True], found[case, algorithm, False]
            lines.append(f"| {case} | {algorithm} | {' | '.join(exchanged)} |")
    return lines


def in_words(exchanged: Mapping[str, int]) -> str:
    """Kinds of collective operations and what they exchange."""
    return ", ".join(f"{kind} {kibibytes(size)}" for kind, size in exchanged.items()) or "nothing"


def short(error: float) -> str:
    return f"{error:.0e}" if error else "0"


def kibibytes(size: int) -> str:
    value = size / 1024
    return f"{value:{'.0f' if value >= 100 else '.3g'}} KiB" if size else "0"


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for many.md")
    given = parser.parse_args()
    parts = [
        *(INTRODUCTION, *training()),
        *(SPACE, *space(run("space"))),
        *(ALGORITHMS, *algorithms(run("space", "--algorithms"))),
    ]
    with atomic_write(given.out / "many.md") as beside:
        beside.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
