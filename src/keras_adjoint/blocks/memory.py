"""How many bytes a plan holds at once, and the largest block that a limit allows."""

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache

UNITS = {"": 1, "B": 1}
UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)}
DEFAULT = 2**30
FIXED = 2**27  # bytes for threads, the allocator and compiled programs, as measured on all backends


def bytes_of(memory: int | str | None) -> int:
    """A number of bytes, as in 1000000, "500MB" or "2GiB".

    Raises:
        ValueError: If it is none.
    """
    if memory is None:
        return DEFAULT
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", memory) if isinstance(memory, str) else None
    units = {name.lower(): value for name, value in UNITS.items()}
    if found and found[2].lower() in units:
        memory = int(float(found[1]) * units[found[2].lower()])
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise ValueError(
            f'`memory` is a number of bytes, as in 2000000000 or "2GB", in units of {", ".join(list(UNITS)[1:])}. '
            f"Received: memory={memory!r}"
        )
    return memory


def largest_block(
    sizes: Sequence[int], multiples: Sequence[int], fits: Callable[[tuple[int, ...]], bool]
) -> tuple[int, ...] | None:
    """The largest block that fits, as close to a cube as multiples of some sizes allow; `None` if none does.

    Args:
        sizes: The sizes of the whole.
        multiples: What the sizes of blocks are multiples of, unless they are those of the whole.
        fits: Whether a block does.
    """

    def block(edge: int) -> tuple[int, ...]:
        return tuple(
            min(size, -(-edge // multiple) * multiple) for size, multiple in zip(sizes, multiples, strict=True)
        )

    if not sizes:
        return () if fits(()) else None
    least, most = 1, max(sizes)
    if not fits(block(least)):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(block(middle)) else (least, middle - 1)
    return block(least)


def alike(sizes: Sequence[int], multiples: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """The smallest blocks of which there are no more than of `block`, so that the last ones are not much smaller."""
    found = []
    for size, multiple, most in zip(sizes, multiples, block, strict=True):
        even = -(-size // -(-size // most))
        found.append(min(size, -(-even // multiple) * multiple))
    return tuple(found)


def give_back() -> None:
    """Give memory that is free back to the system, which glibc would keep for each thread that had it."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
