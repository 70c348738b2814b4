"""What devices exchange, read from a program that XLA has compiled for one of them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute", "reduce-scatter")
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "s32": 4, "u32": 4, "s64": 8, "u64": 8, "s8": 1, "u8": 1}
INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.+?) ({'|'.join(KINDS)})(-start)?\(", re.MULTILINE)
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """An operation by which a device gets so many bytes of others; for all-reduce, of each of them."""

    kind: str
    bytes: int


def collectives(program: str) -> list[Collective]:
    """The collective operations of a compiled program, in the text of XLA."""
    found = []
    for shapes, kind, starts in INSTRUCTION.findall(program):
        arrays = [
            BYTES[dtype] * math.prod(map(int, sizes.split(","))) if sizes else BYTES[dtype]
            for dtype, sizes in ARRAY.findall(shapes)
            if dtype in BYTES
        ]
        found.append(Collective(kind, max(arrays) if starts else sum(arrays)))
    return found


def by_kind(found: Sequence[Collective]) -> dict[str, int]:
    """The bytes of each kind."""
    return {kind: sum(each.bytes for each in found if each.kind == kind) for kind in sorted({e.kind for e in found})}


def compiled_collectives(function: Callable[..., Any], *arguments: Any) -> list[Collective]:
    """The collective operations of a function that `jax.jit` has made, for these arguments."""
    return collectives(function.lower(*arguments).compile().as_text())
