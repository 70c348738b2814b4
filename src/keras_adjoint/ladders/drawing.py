"""Where everything stands: the encoder on the left, downwards, its mirror on the right, upwards, each call on a row of its own.

Beside the boxes, on the outer sides, run the edges of the two graphs, and between them lie the rungs.
"""

from dataclasses import dataclass
from itertools import pairwise

from keras_adjoint.ladders.lanes import Edge, lanes_of
from keras_adjoint.ladders.rungs import BROKEN, EXACT, POLICY, TIED
from keras_adjoint.ladders.shapes import Box, Dot, Drawing, Line, Row, Text
from keras_adjoint.ladders.words import all_sizes, words_of


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

    def width_of(self, text, role="detail"):
        """About how wide a text is in a usual font."""
        return (0.64 if role in BOLD else 0.55) * self.letters * len(text)

    def shortened(self, text, width, role="detail"):
        """A text with an ellipsis, if it would be too wide otherwise: in the middle of names, at the end of all else."""
        most = max(3, int(width / self.width_of("x", role)))
        if len(text) <= most:
            return text
        if role != "name":
            return f"{text[: most - 1]}…"
        return f"{text[: most // 2]}…{text[len(text) - (most - 1 - most // 2) :]}"


BOLD = ("head", "name", "kernel")
WIDE = Format(box=272, gap=108, lane=14, letters=12, names_kernels=True)
NARROW = Format(box=146, gap=20, lane=7, letters=11, names_kernels=False)


def draw(ladder, form=WIDE):
    """The `Drawing` of a `Ladder`."""
    return Draughtsman(ladder, form).drawing


class Draughtsman:
    """Lays a `Ladder` out. Rows are its inputs, its rungs, and the code."""

    def __init__(self, ladder, form):
        self.ladder, self.form = ladder, form
        self.inputs, self.outputs = ladder.graph.inputs, ladder.graph.outputs
        forth, back = self.targets()
        self.lanes, self.edges = lanes_of(forth)
        self.backs = {(start, end) for start, ends in enumerate(back) for end in ends}
        self.outer = form.lane * (1 + max([edge.lane for edge in self.edges] + self.lanes, default=0)) + form.inset
        self.width = 2 * (self.outer + form.box) + form.gap
        self.middles, self.heights, total = self.places()
        self.drawing = Drawing(self.width, total, self.behind(), list(self.rows()))

    # --- the graph as rows

    def targets(self):
        """For each row the later rows that read it, and for the mirror those that something comes back from."""
        first, calls, last = len(self.inputs), self.ladder.rungs, len(self.inputs) + len(self.ladder.rungs)
        source = {id(tensor): row for row, tensor in enumerate(self.inputs)}
        source |= {id(tensor): row for row, rung in enumerate(calls, first) for tensor in rung.call.outputs}
        forth, back = [[] for _ in range(last + 1)], [[] for _ in range(last + 1)]
        for row, rung in enumerate(calls, first):
            for number, tensor in enumerate(rung.call.inputs):
                forth[source[id(tensor)]].append(row)
                if rung.returned[number : number + 1] == (True,):
                    back[source[id(tensor)]].append(row)
        for tensor in self.outputs:
            forth[source[id(tensor)]].append(last)
            back[source[id(tensor)]].append(last)
        return forth, back

    def places(self):
        """The middle of each row, its height, and the height of all."""
        ends = [self.form.line * 1.9]
        heights = [*ends * len(self.inputs), *map(self.height_of, self.ladder.rungs), *ends]
        top, middles = self.form.line * 1.8, []
        for height in heights:
            middles.append(top + height / 2)
            top += height + 0.7 * self.form.letters
        return middles, heights, top

    def height_of(self, rung):
        return self.form.line * (2.8 if has_two_lines(rung) else 1.8)

    # --- the edges

    def behind(self):
        lines = []
        for edge in self.edges:
            points = self.bent(edge)
            lines.append(Line(points, "stile"))
            if (edge.start, edge.end) in self.backs:
                lines.append(Line(tuple((self.width - x, y) for x, y in points), "stile"))
        return lines

    def bent(self, edge: Edge):
        """The points of an edge: out of its row, along its lane, and into the other row."""
        top, bottom = self.middles[edge.start], self.middles[edge.end]
        bend = min(1.2 * self.form.line, (bottom - top) / 2)
        start, lane, end = (self.lane(number) for number in (self.lanes[edge.start], edge.lane, self.lanes[edge.end]))
        points = [(start, top), (lane, top + bend), (lane, bottom - bend), (end, bottom)]
        return tuple(a for a, b in pairwise([*points, None]) if a != b)

    def lane(self, number):
        return self.outer - self.form.inset - self.form.lane * number

    # --- the rows

    def rows(self):
        letters, form = self.form.letters, self.form
        left, right = self.outer, self.width - self.outer
        yield Row([Text(left, letters, "encoder ↓", "head"), Text(right, letters, "↑ mirror", "head", "end")], "")
        for row, tensor in enumerate(self.inputs):
            size = all_sizes([tensor])
            shapes = [*self.dots(row), *self.boxes(row, "end", "end"), *self.rung(row, "exact")]
            base = self.middles[row] + 0.35 * letters
            shapes.append(Text(left + form.inset, base, f"input {size}", "name"))
            shapes.append(Text(right - form.box + form.inset, base, f"back to {size}", "name"))
            yield Row(shapes, f"The input, {size}, and what comes back for it")
        for row, rung in enumerate(self.ladder.rungs, len(self.inputs)):
            yield self.row_of(row, rung, words_of(rung))
        last, code = len(self.middles) - 1, all_sizes(self.outputs)
        box = Box(left, self.middles[last] - self.heights[last] / 2, right - left, self.heights[last], "code")
        text = Text(self.width / 2, self.middles[last] + 0.35 * letters, f"code {code}", "name", "middle")
        yield Row([*self.dots(last), box, text], f"The code, {code}")

    def row_of(self, row, rung, words):
        form, middle = self.form, self.middles[row]
        shapes = [*self.dots(row), *self.boxes(row, "encoder", rung.how)]
        shapes += self.rung(row, TIED if rung.shared else rung.how) if rung.how in (EXACT, POLICY) else []
        out, into = (words.out, words.into) if words.changes_size else ("", "")
        left, right = self.outer + form.inset, self.width - self.outer - form.box + form.inset
        if has_two_lines(rung):
            upper = middle - 0.35 * form.letters
            lower = upper + form.line
            shapes += self.texts(left, upper, words.name, "", "name")
            shapes += self.texts(left, lower, words.type, out, "detail")
            shapes += self.texts(right, upper, words.mirror or "—", into, "name")
            shapes += self.texts(right, lower, words.how, "", "detail")
        else:
            base = middle + 0.35 * form.letters
            shapes += self.texts(left, base, words.type, out, "detail")
            shapes += self.texts(right, base, words.how, into, "detail")
        if form.names_kernels and words.kernel:
            shapes.append(Text(self.width / 2, middle - 0.5 * form.letters, words.kernel, "kernel", "middle"))
        return Row(shapes, words.sentence, id(rung.call.operation))

    def texts(self, x, y, text, size, role):
        """A text at the left of a box, and at its right sizes, if there is room for both."""
        across = self.form.box - 2 * self.form.inset
        if self.form.width_of(f"{text}  ", role) + self.form.width_of(size) > across:
            size = ""
        yield Text(x, y, self.form.shortened(text, across, role), role)
        if size:
            yield Text(x + across, y, size, "size", "end")

    def dots(self, row):
        x, y = self.lane(self.lanes[row]), self.middles[row]
        return [Dot(x, y, "node"), Dot(self.width - x, y, "node")]

    def boxes(self, row, left, right):
        top, form = self.middles[row] - self.heights[row] / 2, self.form
        yield Box(self.outer, top, form.box, self.heights[row], left)
        yield Box(self.width - self.outer - form.box, top, form.box, self.heights[row], right)

    def rung(self, row, role):
        start, end, y = self.outer + self.form.box, self.width - self.outer - self.form.box, self.middles[row]
        knobs = [Dot(start, y, "knob"), Dot(end, y, "knob")] if role == TIED else []
        return [Line(((start, y), (end, y)), f"rung-{role}"), *knobs]


def has_two_lines(rung):
    """Whether a rung is worth two lines: those that share a kernel, and those that there is no way over."""
    return rung.shared is not None or rung.how == BROKEN
