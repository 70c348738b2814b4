"""What `keras-adjoint deconv` has seen: a line for each feature, and a picture of the photograph beside its projections."""

import io
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keras_adjoint_cli.actions.deconv import Seen
from keras_adjoint_cli.console import make_console, print_table, say
from keras_adjoint_cli.printable import escape

INK, SOFT = "#16202b", "#5b6775"
COLOURS = ("#ffc43d", "#40c8ff", "#ff5e7d", "#78e678", "#be8cff", "#ff963c", "#3ddbc4", "#f5f06b", "#ff8ad8")
SIDE, MARGIN, GAP, HEADER = 4.2, 0.32, 0.34, 0.98  # inches
DOTS = 130  # per inch


def draw(file: Path, seen: Seen, model_name: str) -> None:
    """Write the picture in the format that the file's name says."""
    height, width = seen.photograph.shape[:2]
    first = SIDE * min(1.5, width / height)
    total = 2 * MARGIN + first + 2 * (GAP + SIDE)
    figure = Figure((total, HEADER + SIDE + MARGIN), facecolor="white")
    page = Page(figure)
    page.text(MARGIN, 0.46, f"What {seen.layer} of {model_name} sees", size=19, weight="bold", color=INK)
    lefts = [MARGIN, MARGIN + first + GAP, MARGIN + first + 2 * GAP + SIDE]
    count = len(seen.features)
    titles = (
        f"the photograph, {width}×{height} pixels",
        f"the {count} strongest features, projected back to pixels",
        "what they respond to",
    )
    for left, title in zip(lefts, titles, strict=True):
        page.text(left, HEADER - 0.14, title, size=11, color=SOFT)
    axes = page.axes(lefts[0], HEADER, first, SIDE)
    show_picture(axes, seen.photograph)
    axes.set_anchor("NW")
    for number, feature in enumerate(seen.features):
        outline(axes, feature.box, number)
    columns = math.ceil(math.sqrt(count))
    cell = SIDE / columns
    for number, feature in enumerate(seen.features):
        row, column = divmod(number, columns)
        top, left, bottom, right = feature.box
        pictures = (as_picture(feature.projection), seen.photograph)
        for start, picture in zip(lefts[1:], pictures, strict=True):
            axes = page.axes(start + column * cell, HEADER + row * cell, 0.97 * cell, 0.97 * cell)
            show_picture(axes, picture[top:bottom, left:right])
            label(axes, number, f"channel {feature.channel}" if picture is not seen.photograph else "")
    drawn = io.BytesIO()  # Matplotlib's writer of PDF says another thing than the system where the disk is full
    figure.savefig(drawn, format=file.suffix[1:].replace("jpg", "jpeg"), dpi=DOTS)
    file.write_bytes(drawn.getbuffer())


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes without frame or ticks."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, va="baseline", **style)


def as_picture(projection: np.ndarray) -> np.ndarray:
    """Signed numbers as colours from 0 to 1, scaled to the largest of them, with zero as grey."""
    largest = np.percentile(np.abs(projection[projection != 0]), 99.5) if projection.any() else 1
    return np.clip(0.5 + 0.5 * projection / largest, 0, 1)


def show_picture(axes: Axes, picture: np.ndarray) -> None:
    """A picture from 0 to 1, grey or in colour."""
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    axes.imshow(
        picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if max(picture.shape) < 64 else "antialiased"
    )


def outline(axes: Axes, box: tuple[int, ...], number: int) -> None:
    """Where in the photograph a feature looks."""
    top, left, bottom, right = box
    colour = COLOURS[number % len(COLOURS)]
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec=colour, lw=1.6))
    axes.text(left, top, str(number + 1), **letters(colour, 10), va="top")


def label(axes: Axes, number: int, text: str) -> None:
    """The number of a feature in a corner of its picture, and a text beside it."""
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "top"}
    axes.text(0.03, 0.97, str(number + 1), **letters(COLOURS[number % len(COLOURS)], 11), **place)
    axes.text(0.97, 0.97, text, **letters("white", 7.5), **place, ha="right")


def letters(colour: str, size: float) -> dict[str, Any]:
    """Bold letters that can be read on any picture."""
    stroke = [patheffects.withStroke(linewidth=2.5, foreground="#000000b0")]
    return {"color": colour, "size": size, "weight": "bold", "path_effects": stroke}


def show(file: Path, seen: Seen) -> None:
    """Print the features and what was written."""
    console = make_console()
    rows = [
        (str(number), str(one.channel), f"{one.strength:.3g}", ", ".join(map(str, one.unit)), place(one.box))
        for number, one in enumerate(seen.features, 1)
    ]
    unit = "unit: row, column" if all(len(one.unit) == 2 for one in seen.features) else "unit"
    columns = ("number", "channel", "strength", unit, "pixels: top, left, height×width")
    print_table(console, columns, rows, numbers=("number", "channel", "strength"))
    height, width = seen.photograph.shape[:2]
    low, high = seen.range
    console.print(
        f"The model saw {height}×{width} pixels, height×width, from {low:g} to {high:g}; --range says otherwise."
    )
    if seen.hint:
        say(console, f"[yellow]{escape(seen.hint)}[/]")
    say(console, f"Wrote {escape(str(file))}")


def as_data(model: Path, photograph: Path, file: Path, seen: Seen) -> dict[str, Any]:
    """A dictionary for JSON."""
    features = [
        {"channel": one.channel, "unit": one.unit, "strength": one.strength, "box": one.box} for one in seen.features
    ]
    return {
        "input": str(model),
        "photograph": str(photograph),
        "output": str(file),
        "backend": keras.backend.backend(),
        "layer": seen.layer,
        "range": seen.range,
        "size": seen.photograph.shape[:2],
        "features": features,
    }


def place(box: tuple[int, ...]) -> str:
    top, left, bottom, right = box
    return f"{top}, {left}, {bottom - top}×{right - left}"
