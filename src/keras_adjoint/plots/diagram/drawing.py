"""Where everything stands: the encoder on the left, downwards, its mirror on the right, upwards, each call on a row of its own.

Beside the boxes, on the outer sides, run the edges of the two graphs, and between them lie the rungs.
"""

from dataclasses import dataclass
from itertools import pairwise

from keras_adjoint.models.decisions import Kind, Sharing
from keras_adjoint.models.text import shapes_text
from keras_adjoint.plots.diagram.lanes import Edge, lanes_of
from keras_adjoint.plots.diagram.lettering import WIDE
from keras_adjoint.plots.diagram.shapes import Box, Dot, Drawing, Line, Row, Text
from keras_adjoint.plots.diagram.words import role_of, words_of


def draw(decisions, form=WIDE):
    """The `Drawing` of the `Decisions` about an encoder."""
    return Draughtsman(decisions, form).drawing


class Draughtsman:
    """Lays the `Decisions` about an encoder out. Rows are its inputs, its calls, and the code."""

    def __init__(self, decisions, form):
        self.decisions, self.form = decisions, form
        self.inputs, self.outputs = decisions.graph.inputs, decisions.graph.outputs
        forth, back = self.targets()
        self.lanes, self.edges = lanes_of(forth)
        self.backs = {(start, end) for start, ends in enumerate(back) for end in ends}
        self.outer = form.lane * (1 + max([edge.lane for edge in self.edges] + self.lanes, default=0)) + form.inset
        self.width = 2 * (self.outer + form.box) + form.gap
        self.words = [words_of(decision) for decision in decisions]
        self.columns = [columns_of(*each, form) for each in zip(decisions, self.words, strict=True)]
        self.middles, self.heights, total = self.places()
        self.drawing = Drawing(self.width, total, self.behind(), list(self.rows()))

    # --- the graph as rows

    def targets(self):
        """For each row the later rows that read it, and for the mirror those that give it a cotangent."""
        first, last = len(self.inputs), len(self.inputs) + len(self.decisions)
        source = {id(tensor): row for row, tensor in enumerate(self.inputs)}
        source |= {id(tensor): row for row, one in enumerate(self.decisions, first) for tensor in one.call.outputs}
        forth, back = [[] for _ in range(last + 1)], [[] for _ in range(last + 1)]
        for row, decision in enumerate(self.decisions, first):
            for number, tensor in enumerate(decision.call.inputs):
                forth[source[id(tensor)]].append(row)
                if decision.reached[number : number + 1] == (True,):
                    back[source[id(tensor)]].append(row)
        for tensor in self.outputs:
            forth[source[id(tensor)]].append(last)
            back[source[id(tensor)]].append(last)
        return forth, back

    def places(self):
        """The middle of each row, its height, and the height of all."""
        ends = [self.form.line * 1.9]
        heights = [*ends * len(self.inputs), *map(self.height_of, self.columns), *ends]
        top, middles = self.form.line * 1.8, []
        for height in heights:
            middles.append(top + height / 2)
            top += height + 0.7 * self.form.letters
        return middles, heights, top

    def height_of(self, columns):
        return self.form.line * (max(map(len, columns)) + 0.8)

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
            size = shapes_text([tensor.shape])
            shapes = [*self.dots(row), *self.boxes(row, "end", "end"), *self.rung(row, "exact")]
            base = self.middles[row] + 0.35 * letters
            ends = ((left, f"input {size}"), (right - form.box, f"back to {size}"))
            shapes += [
                Text(x + form.inset, base, form.shortened(text, form.across, "name"), "name") for x, text in ends
            ]
            yield Row(shapes, f"The input, {size}, and its reconstruction")
        for row, each in enumerate(zip(self.decisions, self.words, self.columns, strict=True), len(self.inputs)):
            yield self.row_of(row, *each)
        last, code = len(self.middles) - 1, shapes_text(y.shape for y in self.outputs)
        box = Box(left, self.middles[last] - self.heights[last] / 2, right - left, self.heights[last], "code")
        text = form.shortened(f"code {code}", right - left - 2 * form.inset, "name")
        text = Text(self.width / 2, self.middles[last] + 0.35 * letters, text, "name", "middle")
        yield Row([*self.dots(last), box, text], f"The code, {code}")

    def row_of(self, row, decision, words, columns):
        form, middle = self.form, self.middles[row]
        shapes = [*self.dots(row), *self.boxes(row, "encoder", role_of(decision))]
        if role_of(decision) in (Kind.EXACT, Kind.POLICY):
            shapes += self.rung(row, Sharing.TIED if decision.sharing else decision.kind)
        for x, column in zip((self.outer, self.width - self.outer - form.box), columns, strict=True):
            shapes += self.texts(x + form.inset, middle, column)
        if form.names_kernels and words.kernel:
            kernel = form.shortened(words.kernel, form.gap - form.letters, "kernel")
            shapes.append(Text(self.width / 2, middle - 0.5 * form.letters, kernel, "kernel", "middle"))
        return Row(shapes, words.sentence, id(decision.call.operation))

    def texts(self, x, middle, column):
        """The lines of a column, around the middle of its box."""
        form = self.form
        first = middle + 0.35 * form.letters - (len(column) - 1) * form.line / 2
        for number, line in enumerate(column):
            if line.text:
                yield Text(x, first + number * form.line, line.text, line.role)
            if line.size:
                yield Text(x + form.across, first + number * form.line, line.size, "size", "end")

    def dots(self, row):
        x, y = self.lane(self.lanes[row]), self.middles[row]
        return [Dot(x, y, "node"), Dot(self.width - x, y, "node")]

    def boxes(self, row, left, right):
        top, form = self.middles[row] - self.heights[row] / 2, self.form
        yield Box(self.outer, top, form.box, self.heights[row], left)
        yield Box(self.width - self.outer - form.box, top, form.box, self.heights[row], right)

    def rung(self, row, role):
        start, end, y = self.outer + self.form.box, self.width - self.outer - self.form.box, self.middles[row]
        knobs = [Dot(start, y, "knob"), Dot(end, y, "knob")] if role == Sharing.TIED else []
        return [Line(((start, y), (end, y)), f"rung-{role}"), *knobs]


@dataclass(frozen=True)
class Written:
    """A line in a box: a text at its left, and at its right sizes, or nothing."""

    text: str
    role: str
    size: str = ""


def columns_of(decision, words, form):
    """What is written in the two boxes of a row, as lists of `Written`."""
    out, into = (words.out, words.into) if words.changes_size else ("", "")
    if decision.sharing is None and decision.kind != Kind.NEITHER:  # not worth a name
        return column([(words.type, "detail")], out, form), column([(words.how, "detail")], into, form)
    left = column([(words.name, "name"), (words.type, "detail")], out, form, sizes_last=True)
    return left, column([(words.mirror or "—", "name"), (words.how, "detail")], into, form)


def column(paragraphs, size, form, *, sizes_last=False):
    """Texts one below the other, and sizes beside the first or the last line that leaves room, or on a line of their own."""
    lines = [Written(line, role) for text, role in paragraphs for line in form.wrapped(text, role)]
    if not size:
        return lines
    size = form.shortened(size, form.across)
    numbers = range(len(lines))
    for number in reversed(numbers) if sizes_last else numbers:
        text, role = lines[number].text, lines[number].role
        if form.width_of(f"{text}  ", role) + form.width_of(size) <= form.across:
            lines[number] = Written(text, role, size)
            return lines
    return [*lines, Written("", "detail", size)]
