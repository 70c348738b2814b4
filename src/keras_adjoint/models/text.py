"""Sizes and choices as text, the same in every table, picture and message."""

from collections import Counter
from collections.abc import Iterable
from typing import Any


def size_text(sizes: Iterable[int | None]) -> str:
    """Sizes along axes, as in 28×28×3; "?" where a size is not known."""
    return "×".join("?" if size is None else str(size) for size in sizes) or "one number"


def shapes_text(shapes: Iterable[Iterable[int | None]]) -> str:
    """The shapes of several tensors without their batch axes, as in 28×28×3 + 2 of 14×14×8."""
    counts = Counter(size_text(tuple(shape)[1:]) for shape in shapes)
    return " + ".join(f"{count} of {text}" if count > 1 else text for text, count in counts.items())


def choice_text(choice: Any) -> str:
    """What a policy chose, also where that is a function or a layer."""
    return choice if isinstance(choice, str) else getattr(choice, "__name__", type(choice).__name__)
