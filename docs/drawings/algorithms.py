"""Drawings of the algorithms: each computes seven numbers from four, with three taps at stride 2."""

from canvas import EDGE, SOFT, TAPS, WIDTH, Drawing, subscript
from convolutions import GAP, SIDE, STEP

from keras_adjoint.ops.algorithms.polyphase import blocks_of, phases_of
from keras_adjoint.ops.geometry import Window

AXIS = Window(taps=3, stride=2, padding="same").at(7)
LEFT = (WIDTH - 7 * STEP + GAP) / 2  # of the seven results
Y = [subscript("y", i + 1) for i in range(AXIS.outputs)]
Z = [subscript("z", i + 1) for i in range(AXIS.size)]


def place(position):
    """The left edge of a result."""
    return LEFT + position * STEP


def inputs(drawing, top=4):
    """The four numbers that come in, side by side."""
    return drawing.cells((WIDTH - 4 * STEP + GAP) / 2, top, Y, side=SIDE, gap=GAP)


def results(drawing, top):
    """The seven numbers that come out; their middles."""
    return drawing.cells(LEFT, top, Z, side=SIDE, gap=GAP)


def kernel(drawing, x, y, used, *, side=13):
    """A small kernel around x, in which the taps that are used have their colours."""
    for tap, colour in enumerate(TAPS[: AXIS.taps]):
        left = x + (tap - AXIS.taps / 2) * (side + 3)
        drawing.box(left, y - side / 2, side, side, colour if tap in used else EDGE, filled=tap in used, round_by=2)


def native():
    """Zeros between the numbers, then a convolution at stride 1 with the taps in reverse order."""
    drawing = Drawing(
        "native",
        150,
        "Zeros stand between the four numbers. A convolution at stride one, its taps in reverse order, makes seven of them.",
    )
    stuffed = drawing.cells(LEFT, 4, [Y[i // 2] if i % 2 == 0 else "0" for i in range(7)], side=SIDE, gap=GAP)
    z = results(drawing, 112)
    for position, x in enumerate(z):
        for tap in range(AXIS.taps):
            i = position + 1 - tap
            if 0 <= i < len(stuffed):
                drawing.line((stuffed[i], 40), (x, 110), TAPS[tap], width=2.2, arrow=True, opacity=0.25 if i % 2 else 1)
    return drawing


def phase_rows(drawing, top):
    """The two phases side by side, and how they are interleaved; for each phase the middle of its row."""
    blocks, middles = blocks_of(AXIS), []
    z = [place(position) + SIDE / 2 for position in range(AXIS.size)]
    for phase in range(AXIS.stride):
        left = 38 + phase * 220
        for block in range(blocks.count):
            position = (blocks.first + block) * AXIS.stride + phase - AXIS.pad_before
            inside = 0 <= position < AXIS.size
            (x,) = drawing.cells(left + block * STEP, top, [Z[position] if inside else ""], side=SIDE, gap=GAP)
            if inside:
                drawing.line((x, top + SIDE + 2), (z[position], top + 96), EDGE, width=1.6, arrow=True)
        middles.append(left + (blocks.count * STEP - GAP) / 2)
    results(drawing, top + 98)
    return middles


def subpixel():
    """One convolution for both phases, which are then interleaved."""
    drawing = Drawing(
        "subpixel",
        262,
        "One convolution makes both phases at once, side by side. They are then interleaved into seven numbers.",
    )
    inputs(drawing)
    drawing.line((WIDTH / 2, 42), (WIDTH / 2, 110), EDGE, width=3, arrow=True)
    for x, phase in zip((44, 110), (0, 1), strict=True):
        kernel(drawing, WIDTH / 2 + x, 76, taps_of(phase))
    drawing.text(WIDTH / 2 - 14, 76, "one convolution", SOFT, anchor="end", size=14)
    drawing.box(26, 112, WIDTH - 52, 50, EDGE, dashed=True)
    phase_rows(drawing, 120)
    return drawing


def phases():
    """One convolution for each phase, with its own taps alone."""
    drawing = Drawing(
        "phases",
        254,
        "Two convolutions, one with the outer taps and one with the middle tap, compute one phase each. They are interleaved.",
    )
    y = inputs(drawing)
    for phase, x in enumerate(phase_rows(drawing, 112)):
        start = (y[1] + y[0]) / 2 if phase == 0 else (y[2] + y[3]) / 2
        drawing.line((start, 42), (x, 108), EDGE, width=3, arrow=True)
        kernel(drawing, x + (-34 if phase == 0 else 34), 64, taps_of(phase))
    return drawing


def taps_of(phase):
    """The taps that meet the positions of a phase."""
    found = phases_of(AXIS)[phase]
    return range(AXIS.taps)[found.cut]


def overlapping(name, says, row_of, titles, top):
    """Products in rows, one below the other, each where it belongs, and their sums."""
    drawing = Drawing(name, top + len(titles) * 34 + 66, says)
    bottom = top + len(titles) * 34
    for row, title in enumerate(titles):
        drawing.text(36, top + row * 34 + 13, title, SOFT, anchor="end", size=14)
    for output in range(AXIS.outputs):
        for tap in range(AXIS.taps):
            position = output * AXIS.stride + tap - AXIS.pad_before
            inside = 0 <= position < AXIS.size
            y = top + row_of(output, tap) * 34
            drawing.box(
                place(position), y, SIDE, 26, TAPS[tap], filled=inside, dashed=not inside, opacity=1 if inside else 0.6
            )
    for position in range(AXIS.size):
        x = place(position) + SIDE / 2
        drawing.line((x, bottom + 2), (x, bottom + 24), EDGE, width=1.6, arrow=True)
    results(drawing, bottom + 26)
    return drawing


def columns():
    """One matrix product, whose columns overlap and are added."""
    says = (
        "One matrix product turns each of the four numbers into three, which are placed at their positions and added."
    )
    return overlapping("columns", says, lambda output, tap: output, Y, 4)


def shifts():
    """One product for each tap, shifted to its position."""
    says = (
        "The four numbers are multiplied by the first, the second and the third tap; the results are shifted and added."
    )
    return overlapping("shifts", says, lambda output, tap: tap, ("tap 1", "tap 2", "tap 3"), 4)


DRAWINGS = (native, subpixel, phases, columns, shifts)
