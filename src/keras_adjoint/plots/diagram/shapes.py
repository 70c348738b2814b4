"""The shapes that a diagram is made of. Their roles stand for colours and strokes, which the page and the figure choose."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Line:
    """A line through points, round at its corners."""

    points: tuple[tuple[float, float], ...]
    role: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    role: str


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    role: str


@dataclass(frozen=True)
class Text:
    """Text on a base line, of which x is the "start", the "middle" or the "end"."""

    x: float
    y: float
    text: str
    role: str
    anchor: str = "start"


Shape: TypeAlias = Line | Dot | Box | Text


@dataclass(frozen=True)
class Row:
    """A pair of layers, or the input or code of encoder and mirror.

    Attributes:
        shapes: Its shapes.
        sentence: The row in words.
        operation: The `id` of the encoder's layer; `None` for an input or the code.
    """

    shapes: list[Shape]
    sentence: str
    operation: int | None = None


@dataclass(frozen=True)
class Drawing:
    """A diagram, measured in pixels from its top left corner.

    Attributes:
        width: Its width.
        height: Its height.
        lines: The edges of both graphs, behind the rows.
        rows: The rows from top to bottom.
    """

    width: float
    height: float
    lines: list[Line]
    rows: list[Row]
