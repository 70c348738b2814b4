"""How much a file may ask for, held against what it claims before anything is built; `--limit` adjusts it.

A file of a few kilobytes can claim terabytes: in a compressed archive, by the size of a kernel, or by that of an input.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from zipfile import ZipFile

from keras_adjoint_cli.errors import Unusable

UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
MOST = 10**15  # bytes or calls, beyond which nobody needs to know how many
PARSED = 32  # bytes of Python's objects for each byte of JSON, about
BEYOND = "No machine has room for it."
ROOM, RATIO = 256 * 10**6, 100  # bytes that every file may take, and times its own size, unless the limit was given


def unpacked_size(archive: ZipFile) -> int:
    """The bytes of all members of a zip archive; reading one of them gives no more than the directory says."""
    return sum(member.file_size for member in archive.infolist())


@dataclass(frozen=True)
class Limits:
    """The limits that `--limit` has the names of.

    Attributes:
        memory: Bytes that what a file claims may take: its arrays or weights, and the tensors that go through a layer.
        layers: Layers of a model.
        calls: Calls of layers, those in a model that is called twice counted twice.
        lines: Lines of a script.
        given: The names of those that the user has given.
    """

    memory: int = 4 * 10**9
    layers: int = 5_000
    calls: int = 10_000
    lines: int = 20_000
    given: frozenset[str] = frozenset()

    def memory_for(self, size: int) -> int:
        """Bytes that a file of so many bytes may take."""
        return self.memory if "memory" in self.given else min(self.memory, max(ROOM, RATIO * size))

    def check_memory(self, file: Path, claimed: int, what: str, allowed: int | None = None) -> None:
        """Raise an `Unusable` if what a file claims takes too much memory.

        Args:
            file: The file.
            claimed: Bytes.
            what: What takes them, such as "its arrays".
            allowed: How many are allowed; `memory` if `None`.
        """
        allowed = self.memory if allowed is None else allowed
        if claimed > allowed:
            taken = memory_text(claimed) if claimed < MOST else f"more than {memory_text(MOST)}"
            enough = memory_text(rounded_up(claimed)).replace(" ", "").replace(",", "") if claimed < MOST else ""
            advice = f"If you trust it, raise the limit: --limit memory={enough}." if enough else BEYOND
            raise Unusable(
                f"{file} is too large: {what} would take {taken}, and the limit is {memory_text(allowed)}"
                f"{'' if allowed == self.memory else ' for a file of its size'}. {advice}"
            )

    def check_count(self, file: Path, name: str, count: int, counted: str = "") -> None:
        """Raise an `Unusable` if a file has too many layers, calls of them, or lines.

        Args:
            file: The file.
            name: The name of the limit.
            count: How many the file has.
            counted: What it has, if that is not so many of them.
        """
        if count > getattr(self, name):
            many = f"{count:,}" if count < MOST else f"more than {MOST:,}"
            has = counted or f"{many} {COUNTED.get(name, name)}"
            advice = f"If you trust it, raise the limit: --limit {name}={count}." if count < MOST else BEYOND
            raise Unusable(f"{file} is too large: it has {has}, and the limit is {getattr(self, name):,}. {advice}")


COUNTED = {"calls": "calls of layers, those in a model that is called twice counted twice"}
NAMES = tuple(field.name for field in fields(Limits) if field.name != "given")


def read_limits(texts: Sequence[str] | None) -> Limits:
    """`Limits` from texts such as "memory=16GB" and "layers=20000"."""
    values: dict[str, int] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if name not in NAMES or not equals:
            raise Unusable(f"A limit is {', '.join(NAMES)}, as in memory=16GB. Received: --limit {text}")
        unit = "|".join(filter(None, UNITS)) if name == "memory" else ""
        match = re.fullmatch(rf"(\d{{1,15}}(?:\.\d{{1,3}})?)\s*({unit})?", value, re.ASCII | re.IGNORECASE)
        number = float(match[1]) * UNITS[nearest_unit(match[2] or "")] if match else 0
        if not number >= 1:
            example = "a size such as 500MB or 16GB" if name == "memory" else "a number"
            raise Unusable(f"The limit {name} is {example}, and at least 1. Received: --limit {text}")
        values[name] = int(number)
    return replace(Limits(), **values, given=frozenset(values))


def nearest_unit(text: str) -> str:
    return next(unit for unit in UNITS if unit.lower() == text.lower())


def memory_text(size: int) -> str:
    """Bytes as in 4 GB or 12.3 GB."""
    unit = next((unit for unit in reversed(UNITS) if size >= UNITS[unit]), "")
    return f"{size / UNITS[unit]:,.1f}".removesuffix(".0") + f" {unit or 'bytes'}"


def rounded_up(size: int) -> int:
    """Bytes that `memory_text` does not round down."""
    unit = next(value for value in reversed(UNITS.values()) if size >= value)
    return -(-size * 10 // unit) * unit // 10
