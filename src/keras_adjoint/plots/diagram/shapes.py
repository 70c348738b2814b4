"""The shapes that a drawing of two ladders is made of. Whoever draws them decides about colours and strokes by role."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """A line through points, round at its corners."""

    points: tuple
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
    """Words on a base line, beginning at x, ending there, or with their middle there ("start", "end", "middle")."""

    x: float
    y: float
    text: str
    role: str
    anchor: str = "start"


@dataclass(frozen=True)
class Row:
    """What belongs to one rung.

    Attributes:
        shapes: Its shapes.
        sentence: All of it in words.
        operation: The `id` of the encoder's layer; `None` for the ends of the ladders.
    """

    shapes: list
    sentence: str
    operation: int | None = None


@dataclass(frozen=True)
class Drawing:
    """Two ladders, measured in pixels from the top left corner.

    Attributes:
        width: Of the whole.
        height: Of the whole.
        lines: What lies behind the rows: the edges of both graphs.
        rows: The rows from top to bottom.
    """

    width: float
    height: float
    lines: list = field(default_factory=list)
    rows: list = field(default_factory=list)
