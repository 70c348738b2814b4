"""Drawings of a small convolution: with its adjoint, as matrices, at two sizes, and the checkerboard of a stride."""

from canvas import SOFT, TAPS, WIDTH, Drawing, subscript

from keras_adjoint.ops.geometry import Window

SIDE, GAP = 34, 8
STEP = SIDE + GAP


def reads(axis):
    """(output, tap, input) of every multiplication along an axis."""
    for output in range(axis.outputs):
        for tap in range(axis.taps):
            position = output * axis.stride + tap * axis.dilation - axis.pad_before
            if 0 <= position < axis.size:
                yield output, tap, position


def row(drawing, top, letter, count, across):
    """A row of `count` cells, centred over one of `across` cells; their middles."""
    left = (WIDTH - across * STEP + GAP) / 2 + (across - count) * STEP / 2
    return drawing.cells(left, top, [subscript(letter, i + 1) for i in range(count)], side=SIDE, gap=GAP)


def wires(drawing, axis, upper, lower, top, bottom, *, adjoint=False):
    """The lines of a convolution between two rows, with arrows in the direction in which numbers go."""
    for output, tap, position in reads(axis):
        x, y = (lower[position], upper[output]) if adjoint else (upper[position], lower[output])
        ends = ((y, top), (x, bottom)) if adjoint else ((x, top), (y, bottom))
        drawing.line(*ends, TAPS[tap], width=2.2, arrow=True)


def convolution_and_adjoint():
    """A convolution of stride 2, and its adjoint below."""
    axis = Window(taps=3, stride=2, padding="same").at(7)
    drawing = Drawing(
        "convolution_and_adjoint",
        322,
        "Seven inputs are joined to four outputs by lines in three colours, one for each tap of the kernel. Below, the same "
        "lines lead from four numbers back to seven.",
    )
    x = row(drawing, 4, "x", 7, 7)
    wires(drawing, axis, x, y := row(drawing, 128, "y", 4, 7), 40, 126)
    drawing.text(14, 84, "A", bold=True, size=20)
    drawing.text(16, 209, "Aᵀ", bold=True, size=20)
    z = row(drawing, 252, "z", 7, 7)
    wires(drawing, axis, y, z, 164, 250, adjoint=True)
    for tap, name in enumerate(("first tap", "second tap", "third tap")):
        drawing.line((62 + 125 * tap, 308), (86 + 125 * tap, 308), TAPS[tap], width=3)
        drawing.text(92 + 125 * tap, 308, name, SOFT, anchor="start", size=14)
    return drawing


def matrices():
    """The same convolution as a matrix, and the matrix of its adjoint."""
    axis = Window(taps=3, stride=2, padding="same").at(7)
    drawing = Drawing(
        "matrices",
        226,
        "The matrix of a convolution has one row for each output, with the taps of the kernel along it, moved by the stride "
        "from row to row. The matrix of the adjoint is its transpose.",
    )
    cell = 26
    entries = {(output, position): tap for output, tap, position in reads(axis)}
    for left, top, title, transposed in ((16, 78, "A", False), (WIDTH - 16 - 4 * cell, 39, "Aᵀ", True)):
        rows, columns = (axis.size, axis.outputs) if transposed else (axis.outputs, axis.size)
        drawing.text(left + columns * cell / 2, top - 18, f"{title}, {rows} × {columns}", bold=True)
        for i in range(rows):
            for j in range(columns):
                tap = entries.get((j, i) if transposed else (i, j))
                place = (left + j * cell + 1, top + i * cell + 1, cell - 2, cell - 2)
                if tap is None:
                    drawing.box(*place, opacity=0.3)
                else:
                    drawing.box(*place, TAPS[tap], filled=True)
    drawing.line((222, 130), (306, 130), arrow=True)
    drawing.text(264, 112, "transposed", SOFT, size=14)
    return drawing


def two_sizes():
    """Seven inputs give four outputs, and so do eight."""
    drawing = Drawing(
        "two_sizes",
        304,
        "With a stride of two, seven inputs give four outputs, and eight inputs give four outputs as well.",
    )
    for top, size in ((4, 7), (164, 8)):
        axis = Window(taps=3, stride=2, padding="same").at(size)
        x = row(drawing, top, "x", size, 8)
        y = row(drawing, top + 92, "y", axis.outputs, 8)
        wires(drawing, axis, x, y, top + 36, top + 90)
        drawing.text(60, top + 109, f"{size} → {axis.outputs}", bold=True)
    return drawing


def checkerboard():
    """How many taps contribute to each position of the adjoint."""
    drawing = Drawing(
        "checkerboard",
        250,
        "Bars for the number of outputs that contribute to each position. With three taps at stride two they alternate between "
        "one and two. With four taps all of them are two, except at the edges.",
    )
    for top, taps in ((36, 3), (162, 4)):
        axis = Window(taps=taps, stride=2, padding="same").at(14)
        counts = [0] * axis.size
        for _, _, position in reads(axis):
            counts[position] += 1
        drawing.text(12, top - 20, f"{taps} taps at stride 2", anchor="start", bold=True)
        for position, count in enumerate(counts):
            left = 12 + position * 31.4
            drawing.box(left, top + 56 - 24 * count, 24, 24 * count, TAPS[count - 1], filled=True, round_by=2)
            drawing.text(left + 12, top + 70, str(count), SOFT, size=14)
    return drawing


DRAWINGS = (convolution_and_adjoint, matrices, two_sizes, checkerboard)
