"""The layout of the diagram: the encoder on the left, its mirror on the right, and each call in a row of its own.

The edges of the two graphs run in lanes on the outer sides, as in the history of a repository, and lines between the boxes
connect the layers of a pair.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from keras_adjoint.models.decisions import Decision, Decisions, Kind, Sharing
from keras_adjoint.models.text import shapes_text
from keras_adjoint.plots.diagram.labels import Labels, labels_of, role_of
from keras_adjoint.plots.diagram.shapes import Box, Dot, Drawing, Line, Row, Shape, Text
from keras_adjoint.plots.diagram.text import WIDE, BoxLine, Format, contents_of_boxes


def draw(decisions: Decisions, fmt: Format = WIDE) -> Drawing:
    """The `Drawing` of the `Decisions` about an encoder."""
    return Layout(decisions, fmt).drawing()


class Layout:
    """The places of everything in a diagram. Its rows are the encoder's inputs, its calls, and the code."""

    def __init__(self, decisions: Decisions, fmt: Format) -> None:
        self.decisions, self.fmt = decisions, fmt
        self.inputs, self.outputs = decisions.graph.inputs, decisions.graph.outputs
        readers, reached_readers = self.readers()
        self.lanes, self.edges = lanes_of(readers)
        self.backward_edges = {(start, end) for start, ends in enumerate(reached_readers) for end in ends}
        self.outer = fmt.lane * (1 + max([edge.lane for edge in self.edges] + self.lanes, default=0)) + fmt.inset
        self.width = 2 * (self.outer + fmt.box) + fmt.gap
        self.labels = [labels_of(decision) for decision in decisions]
        self.contents = [contents_of_boxes(*each, fmt) for each in zip(decisions, self.labels, strict=True)]
        self.middles, self.heights, self.height = self.place_rows()

    def drawing(self) -> Drawing:
        return Drawing(self.width, self.height, self.lines(), list(self.rows()))

    def readers(self) -> tuple[list[list[int]], list[list[int]]]:
        """For each row the later rows that read it, and those of them that give it a cotangent in the mirror."""
        first, last = len(self.inputs), len(self.inputs) + len(self.decisions)
        source = {id(tensor): row for row, tensor in enumerate(self.inputs)}
        source |= {id(tensor): row for row, one in enumerate(self.decisions, first) for tensor in one.call.outputs}
        readers: list[list[int]] = [[] for _ in range(last + 1)]
        reached: list[list[int]] = [[] for _ in range(last + 1)]
        for row, decision in enumerate(self.decisions, first):
            for number, tensor in enumerate(decision.call.inputs):
                readers[source[id(tensor)]].append(row)
                if decision.reached[number : number + 1] == (True,):
                    reached[source[id(tensor)]].append(row)
        for tensor in self.outputs:
            readers[source[id(tensor)]].append(last)
            reached[source[id(tensor)]].append(last)
        return readers, reached

    def place_rows(self) -> tuple[list[float], list[float], float]:
        """The middle of each row, its height, and the height of the diagram."""
        line = self.fmt.line
        calls = [line * (max(map(len, lines)) + 0.8) for lines in self.contents]
        heights = [*[1.9 * line] * len(self.inputs), *calls, 1.9 * line]
        top, middles = line * 1.8, []
        for height in heights:
            middles.append(top + height / 2)
            top += height + 0.7 * self.fmt.font_size
        return middles, heights, top

    # --- edges

    def lines(self) -> list[Line]:
        """The edges of the encoder, and of the mirror where it has them."""
        lines = []
        for edge in self.edges:
            points = self.points(edge)
            lines.append(Line(points, "edge"))
            if (edge.start, edge.end) in self.backward_edges:
                lines.append(Line(tuple((self.width - x, y) for x, y in points), "edge"))
        return lines

    def points(self, edge: "Edge") -> tuple[tuple[float, float], ...]:
        """The points of an edge: out of its row, along its lane, and into the other row."""
        top, bottom = self.middles[edge.start], self.middles[edge.end]
        bend = min(1.2 * self.fmt.line, (bottom - top) / 2)
        start, lane, end = (self.lane_x(number) for number in (self.lanes[edge.start], edge.lane, self.lanes[edge.end]))
        points = [(start, top), (lane, top + bend), (lane, bottom - bend), (end, bottom)]
        return (*(a for a, b in pairwise(points) if a != b), points[-1])

    def lane_x(self, number: int) -> float:
        return self.outer - self.fmt.inset - self.fmt.lane * number

    # --- rows

    def rows(self) -> Iterator[Row]:
        fmt, left, right = self.fmt, self.outer, self.width - self.outer
        size = fmt.font_size
        yield Row([Text(left, size, "encoder ↓", "head"), Text(right, size, "↑ mirror", "head", "end")], "")
        for row, tensor in enumerate(self.inputs):
            yield self.row_of_input(row, shapes_text([tensor.shape]))
        rows = enumerate(zip(self.decisions, self.labels, self.contents, strict=True), len(self.inputs))
        for row, (decision, labels, contents) in rows:
            yield self.row_of_call(row, decision, labels, contents)
        last, code = len(self.middles) - 1, shapes_text(y.shape for y in self.outputs)
        box = Box(left, self.middles[last] - self.heights[last] / 2, right - left, self.heights[last], "code")
        label = fmt.shortened(f"code {code}", right - left - 2 * fmt.inset, "name")
        text = Text(self.width / 2, self.middles[last] + 0.35 * size, label, "name", "middle")
        yield Row([*self.nodes(last), box, text], f"The code, {code}")

    def row_of_input(self, row: int, size: str) -> Row:
        fmt, base = self.fmt, self.middles[row] + 0.35 * self.fmt.font_size
        left, right = self.outer, self.width - self.outer - fmt.box
        shapes = [*self.nodes(row), *self.boxes(row, "end", "end"), *self.connection(row, "exact")]
        for x, text in ((left, f"input {size}"), (right, f"output {size}")):
            shapes.append(Text(x + fmt.inset, base, fmt.shortened(text, fmt.text_width, "name"), "name"))
        return Row(shapes, f"The input, {size}, and its reconstruction")

    def row_of_call(
        self, row: int, decision: Decision, labels: Labels, contents: tuple[list[BoxLine], list[BoxLine]]
    ) -> Row:
        fmt, middle = self.fmt, self.middles[row]
        shapes = [*self.nodes(row), *self.boxes(row, "encoder", role_of(decision))]
        if role_of(decision) in (Kind.EXACT, Kind.POLICY):
            shapes += self.connection(row, Sharing.TIED if decision.sharing else role_of(decision))
        for x, lines in zip((self.outer, self.width - self.outer - fmt.box), contents, strict=True):
            shapes += self.texts(x + fmt.inset, middle, lines)
        if fmt.labels_kernels and labels.kernel:
            kernel = fmt.shortened(labels.kernel, fmt.gap - fmt.font_size, "kernel")
            shapes.append(Text(self.width / 2, middle - 0.5 * fmt.font_size, kernel, "kernel", "middle"))
        return Row(shapes, labels.sentence, id(decision.call.operation))

    def texts(self, x: float, middle: float, lines: list[BoxLine]) -> Iterator[Text]:
        """The lines of text in a box, around its middle."""
        fmt = self.fmt
        first = middle + 0.35 * fmt.font_size - (len(lines) - 1) * fmt.line / 2
        for number, line in enumerate(lines):
            if line.text:
                yield Text(x, first + number * fmt.line, line.text, line.role)
            if line.size:
                yield Text(x + fmt.text_width, first + number * fmt.line, line.size, "size", "end")

    def nodes(self, row: int) -> list[Shape]:
        x, y = self.lane_x(self.lanes[row]), self.middles[row]
        return [Dot(x, y, "node"), Dot(self.width - x, y, "node")]

    def boxes(self, row: int, left: str, right: str) -> list[Shape]:
        top, height, width = self.middles[row] - self.heights[row] / 2, self.heights[row], self.fmt.box
        return [
            Box(self.outer, top, width, height, left),
            Box(self.width - self.outer - width, top, width, height, right),
        ]

    def connection(self, row: int, role: str) -> list[Shape]:
        """The line between the boxes of a row, with round ends if they share a kernel."""
        start, end, y = self.outer + self.fmt.box, self.width - self.outer - self.fmt.box, self.middles[row]
        ends = [Dot(start, y, "pair-end"), Dot(end, y, "pair-end")] if role == Sharing.TIED else []
        return [Line(((start, y), (end, y)), f"pair-{role}"), *ends]


# --- lanes


@dataclass(frozen=True)
class Edge:
    """An edge from one row to a later one, beside the rows between them in a lane."""

    start: int
    end: int
    lane: int


def lanes_of(readers: Sequence[Iterable[int]]) -> tuple[list[int], list[Edge]]:
    """A lane for every row and every edge, as close to the boxes as there is room.

    A row is in the lane of the first edge that arrives, and the edge to its nearest reader stays in that lane, so that the
    longest chain is in lane 0, and edges that skip rows run beside it.

    Args:
        readers: For every row the later rows that read it.

    Returns:
        (the lane of each row, a list of every `Edge`).
    """
    open_edges: dict[int, tuple[int, int]] = {}  # lane: (start, end)
    lanes: list[int] = []
    edges: list[Edge] = []
    for row, ends in enumerate(readers):
        arriving = sorted(lane for lane, (_, end) in open_edges.items() if end == row)
        for lane in arriving:
            start, end = open_edges.pop(lane)
            edges.append(Edge(start, end, lane))
        own = arriving[0] if arriving else first_free(open_edges)
        lanes.append(own)
        for number, end in enumerate(sorted(set(ends))):
            open_edges[own if number == 0 else first_free({*open_edges, own})] = row, end
    return lanes, edges


def first_free(taken: Collection[int]) -> int:
    lane = 0
    while lane in taken:
        lane += 1
    return lane
