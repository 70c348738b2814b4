"""Lines, boxes and words as SVG.

The colours are those of the page's theme, light or dark; a file on its own falls back to greys that are legible on either. The
width is that of a phone's page and grows with it.
"""

from html import escape

WIDTH = 460
INK = "var(--color-foreground-primary, #6b7785)"
SOFT = "var(--color-foreground-muted, #7b8694)"
EDGE = "var(--color-foreground-border, #8a94a0)"
PAPER = "var(--color-background-primary, none)"
TAPS = ("#12907f", "#d0741c", "#8b6be0", "#d6537d")  # distinct on light and on dark paper
TEXT = 15  # the size of letters
FONT = "var(--font-stack, sans-serif)"


class Drawing:
    """An SVG that is drawn from the top, `height` units high.

    Args:
        name: Name of the file, without ending.
        height: In units of which the page is 460 wide.
        says: The description for readers who do not see it.
    """

    def __init__(self, name, height, says):
        self.name, self.height, self.says, self.parts = name, height, says, []

    def line(self, start, end, colour=EDGE, *, width=2, arrow=False, dashed=False, opacity=1):
        """A straight line, or an arrow to `end`."""
        (x1, y1), (x2, y2) = start, end
        extra = f' marker-end="url(#{self.name}-{tip(colour)})"' if arrow else ""
        extra += ' stroke-dasharray="4 4"' if dashed else ""
        extra += f' opacity="{opacity}"' if opacity < 1 else ""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"{extra}/>'
        )

    def box(self, left, top, width, height, colour=EDGE, *, filled=False, dashed=False, opacity=1, round_by=4):
        """A rectangle."""
        extra = ' stroke-dasharray="4 4"' if dashed else ""
        extra += f' opacity="{opacity}"' if opacity < 1 else ""
        self.parts.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="{round_by:g}" '
            f'fill="{colour if filled else PAPER}" stroke="{colour}" stroke-width="1.5"{extra}/>'
        )

    def text(self, x, y, text, colour=INK, *, anchor="middle", bold=False, size=TEXT):
        """One line of text with its middle at the height y."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y + 0.35 * size:g}" fill="{colour}" font-family="{FONT}" font-size="{size:g}" '
            f'text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def cells(self, left, top, labels, *, side=34, gap=8):
        """A row of boxes with a word in each, dashed if there is a zero or nothing in them; the middles of the boxes."""
        middles = []
        for number, label in enumerate(labels):
            x = left + number * (side + gap)
            empty = label in ("", "0")
            self.box(x, top, side, side, dashed=empty)
            self.text(x + side / 2, top + side / 2, label, SOFT if empty else INK)
            middles.append(x + side / 2)
        return middles

    def svg(self):
        """The whole file."""
        tips = [
            f'<marker id="{self.name}-{tip(colour)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            for colour in (EDGE, *TAPS)
        ]
        used = [marker for marker in tips if marker.split('"')[1] in "".join(self.parts)]
        body = "\n".join([f"<defs>{''.join(used)}</defs>" if used else "", *self.parts]).strip()
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
            f'aria-label="{escape(self.says, quote=True)}">\n{body}\n</svg>\n'
        )


def tip(colour):
    """The name of an arrow's tip."""
    return "tip" if colour == EDGE else f"tip{TAPS.index(colour)}"


def subscript(letter, number):
    """A letter with a small number, such as x₃."""
    return letter + "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))
