"""How wide boxes and letters are, and how words are fitted into a box: on several lines rather than cut off."""

import re
import unicodedata
from dataclasses import dataclass

BOLD = ("head", "name", "kernel")
LINES = 4  # the most that one text has
# Where lines may end, best first: behind commas, between words, inside of names_likeThese, anywhere.
PLACES = (r"(?<=[,;] )", r"(?<= )", r"(?<=[_./-])|(?<=[a-z])(?=[A-Z])|(?<=[0-9]D)(?=[A-Z])", r"(?<=.)(?=.)")


@dataclass(frozen=True)
class Format:
    """Sizes in pixels.

    Attributes:
        box: How wide a box is.
        gap: How long a rung is.
        lane: How far two lanes are apart.
        letters: The size of letters.
        names_kernels: Whether the shape of a shared kernel stands on its rung.
    """

    box: float
    gap: float
    lane: float
    letters: float
    names_kernels: bool

    @property
    def line(self):
        return 1.4 * self.letters

    @property
    def inset(self):
        return 0.7 * self.letters

    @property
    def across(self):
        """How wide a text in a box may be."""
        return self.box - 2 * self.inset

    def width_of(self, text, role="detail"):
        """About how wide a text is in a usual font."""
        return (0.64 if role in BOLD else 0.55) * self.letters * sum(map(cells, text))

    def shortened(self, text, width, role="detail"):
        """A text with an ellipsis, if it would be too wide otherwise: in the middle of names, at the end of all else."""
        return shortest(text, lambda part: self.width_of(part, role) <= width, role)

    def wrapped(self, text, role="detail"):
        """A text as the lines that it has in a box, shortened if they would be too many."""
        text = " ".join(text.split())
        kept = shortest(text, lambda part: len(self.lines_of(part, role)) <= LINES, role)
        return self.lines_of(kept, role)

    def lines_of(self, text, role):
        return [line.strip() for line in self.broken(text, role, PLACES) if line.strip()]

    def broken(self, text, role, places):
        lines = [""]
        for piece in re.split(places[0], text):
            if self.fits(lines[-1] + piece, role):
                lines[-1] += piece
            elif self.fits(piece, role) or not places[1:]:
                lines.append(piece)
            else:
                lines += self.broken(piece, role, places[1:])
        return lines

    def fits(self, text, role):
        return self.width_of(text.rstrip(), role) <= self.across


WIDE = Format(box=272, gap=108, lane=14, letters=12, names_kernels=True)
NARROW = Format(box=146, gap=20, lane=7, letters=11, names_kernels=False)


def cells(letter):
    """How many usual letters wide a letter is."""
    if unicodedata.category(letter) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def shortest(text, fits, role):
    """As much of a text as fits, with an ellipsis for the rest."""
    if fits(text):
        return text
    low, high = 2, len(text)  # the largest number of letters that fits lies between them
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(without_some(text, middle, role)) else (low, middle)
    return without_some(text, low, role)


def without_some(text, kept, role):
    """So many letters of a text: its beginning and its end, if it is a name, else its beginning."""
    if role != "name":
        return f"{text[:kept]}…"
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
