"""The format of a diagram, and how text is fitted into its boxes: on several lines, and shortened only as a last resort."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from keras_adjoint.models.decisions import Decision, Kind
from keras_adjoint.plots.diagram.labels import Labels

BOLD = ("head", "name", "kernel")
MOST_LINES = 4  # of one text
# Where lines may break, best first: after commas, between words, inside names_likeThese, anywhere.
BREAKS: tuple[str, ...] = (
    r"(?<=[,;] )",
    r"(?<= )",
    r"(?<=[_./-])|(?<=[a-z])(?=[A-Z])|(?<=[0-9]D)(?=[A-Z])",
    r"(?<=.)(?=.)",
)


@dataclass(frozen=True)
class Format:
    """Measures of a diagram, in pixels.

    Attributes:
        box: The width of a box.
        gap: The distance between the two boxes of a row.
        lane: The distance between two lanes.
        font_size: The size of the text.
        labels_kernels: Whether the shape of a shared kernel is shown.
    """

    box: float
    gap: float
    lane: float
    font_size: float
    labels_kernels: bool

    @property
    def line(self) -> float:
        """The height of a line."""
        return 1.4 * self.font_size

    @property
    def inset(self) -> float:
        """The distance between a box and its text."""
        return 0.7 * self.font_size

    @property
    def text_width(self) -> float:
        """The largest width of a text in a box."""
        return self.box - 2 * self.inset

    def width_of(self, text: str, role: str = "detail") -> float:
        """About the width of a text in a usual font."""
        return (0.64 if role in BOLD else 0.55) * self.font_size * sum(map(cells, text))

    def shortened(self, text: str, width: float, role: str = "detail") -> str:
        """A text that is not wider than this, with an ellipsis in the middle of a name, at the end of anything else."""
        return longest_fitting(text, lambda part: self.width_of(part, role) <= width, role)

    def wrapped(self, text: str, role: str = "detail") -> list[str]:
        """A text as lines that fit into a box, shortened if they were too many."""
        text = " ".join(text.split())
        kept = longest_fitting(text, lambda part: len(self.lines_of(part, role)) <= MOST_LINES, role)
        return self.lines_of(kept, role)

    def lines_of(self, text: str, role: str) -> list[str]:
        return [line.strip() for line in self.broken(text, role, BREAKS) if line.strip()]

    def broken(self, text: str, role: str, breaks: tuple[str, ...]) -> list[str]:
        lines = [""]
        for piece in re.split(breaks[0], text):
            if self.fits(lines[-1] + piece, role):
                lines[-1] += piece
            elif self.fits(piece, role) or not breaks[1:]:
                lines.append(piece)
            else:
                lines += self.broken(piece, role, breaks[1:])
        return lines

    def fits(self, text: str, role: str) -> bool:
        return self.width_of(text.rstrip(), role) <= self.text_width


WIDE = Format(box=272, gap=108, lane=14, font_size=12, labels_kernels=True)
NARROW = Format(box=146, gap=20, lane=7, font_size=11, labels_kernels=False)


def cells(letter: str) -> int:
    """The width of a letter, in usual letters."""
    if unicodedata.category(letter) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def longest_fitting(text: str, fits: Callable[[str], bool], role: str) -> str:
    """As much of a text as fits, with an ellipsis for the rest."""
    if fits(text):
        return text
    low, high = 2, len(text)  # the largest number of letters that fits lies between them
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(truncated(text, middle, role)) else (low, middle)
    return truncated(text, low, role)


def truncated(text: str, kept: int, role: str) -> str:
    """So many letters of a text: of a name its beginning and its end, of anything else its beginning."""
    if role != "name":
        return f"{text[:kept]}…"
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


# --- what is in the boxes


@dataclass(frozen=True)
class BoxLine:
    """A line in a box: text at its left, and at its right sizes, or nothing."""

    text: str
    role: str
    size: str = ""


def contents_of_boxes(decision: Decision, labels: Labels, fmt: Format) -> tuple[list[BoxLine], list[BoxLine]]:
    """(the lines in the encoder's box, the lines in the mirror's box)."""
    out, into = (labels.out, labels.into) if labels.changes_size else ("", "")
    if decision.sharing is None and decision.kind != Kind.NEITHER:  # its type says enough
        return box_lines([(labels.type, "detail")], out, fmt), box_lines([(labels.how, "detail")], into, fmt)
    left = box_lines([(labels.name, "name"), (labels.type, "detail")], out, fmt, sizes_last=True)
    return left, box_lines([(labels.mirror or "—", "name"), (labels.how, "detail")], into, fmt)


def box_lines(paragraphs: list[tuple[str, str]], size: str, fmt: Format, *, sizes_last: bool = False) -> list[BoxLine]:
    """Texts one below the other, and sizes at the first or the last line with room for them, or on a line of their own."""
    lines = [BoxLine(line, role) for text, role in paragraphs for line in fmt.wrapped(text, role)]
    if not size:
        return lines
    size = fmt.shortened(size, fmt.text_width)
    numbers = range(len(lines))
    for number in reversed(numbers) if sizes_last else numbers:
        text, role = lines[number].text, lines[number].role
        if fmt.width_of(f"{text}  ", role) + fmt.width_of(size) <= fmt.text_width:
            lines[number] = BoxLine(text, role, size)
            return lines
    return [*lines, BoxLine("", "detail", size)]
