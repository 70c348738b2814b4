"""The demo's picture: held-out photographs, their reconstructions by either autoencoder, and the kernels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keras_adjoint.demo.models import PATCH, convolutions
from keras_adjoint.demo.training import Trained, as_picture
from keras_adjoint.plots.figures import INK, SOFT, TIED
from keras_adjoint.plots.tiles import mosaic

UNTIED = "#a7b1bd"
ACROSS = 8  # kernels in a row
WIDTH = 13.2  # inches
MARGIN, GAP = 0.30, 0.16  # inches
HEADER, SETS, FOOTER = 1.28, 3.12, 0.30
SECOND_SET, TILES = 1.46, 1.02


def draw(file: Path, held_out: Mapping[str, np.ndarray], tied: Trained, untied: Trained) -> None:
    """Write the picture.

    Args:
        file: Its file.
        held_out: The original photographs by name.
        tied: The tied autoencoder.
        untied: The untied one.
    """
    column = (WIDTH - 2 * MARGIN - 2 * GAP) / 3
    heights = {name: column * photograph.shape[0] / photograph.shape[1] for name, photograph in held_out.items()}
    height = HEADER + sum(heights.values()) + GAP * len(heights) + SETS + FOOTER
    figure = Figure((WIDTH, height), facecolor="white")
    with matplotlib.rc_context({"font.family": "sans-serif", "text.color": INK}):
        page = Page(figure, WIDTH, height)
        lefts = [MARGIN + number * (column + GAP) for number in range(3)]
        headline(page, lefts, tied, untied)
        top = HEADER
        for name, original in held_out.items():
            where = interesting_patch(original)
            versions = (original, tied.reconstructions[name], untied.reconstructions[name])
            for left, version, trained in zip(lefts, versions, (None, tied, untied), strict=True):
                axes = page.axes(left, top, column, heights[name])
                show_photograph(axes, version, where)
                height, width = original.shape[:2]
                label(axes, f"{width} × {height} pixels" if trained is None else f"{trained.psnr[name]:.2f} dB")
            top += heights[name] + GAP
        bars(page, lefts[0], top, column, tied, untied)
        kernels_of_both(page, lefts[1:], top, column, tied, untied)
        figure.savefig(file, format="png", dpi=120)


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes without frame or ticks."""
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, va="baseline", **style)


def headline(page: Page, lefts: Sequence[float], tied: Trained, untied: Trained) -> None:
    page.text(lefts[0], 0.50, "A decoder made of the encoder's own kernels", size=21, weight="bold")
    columns = [
        ("held-out photograph", "neither model has seen any of it", INK),
        ("tied decoder", f"ka.adjoint(layer) · {tied.parameters:,} parameters", TIED),
        ("untied decoder", f"Conv2DTranspose · {untied.parameters:,} parameters", SOFT),
    ]
    for left, (title, detail, color) in zip(lefts, columns, strict=True):
        page.text(left, 0.94, title, size=13, weight="bold", color=color)
        page.text(left, 1.17, detail, size=10.5, color=SOFT)


def interesting_patch(photograph: np.ndarray) -> tuple[int, int]:
    """Top and left of the patch with the strongest edges, well inside the photograph."""
    edges = sum(np.abs(slope) for slope in np.gradient(photograph.mean(-1)))
    rows, columns = (range(PATCH, size - 2 * PATCH, PATCH // 5) for size in edges.shape)
    places = [(top, left) for top in rows for left in columns]
    return max(places, key=lambda place: edges[place[0] : place[0] + PATCH, place[1] : place[1] + PATCH].sum())


def show_photograph(axes: Axes, photograph: np.ndarray, where: tuple[int, int]) -> None:
    """The photograph, with one patch of it magnified in the corner."""
    picture, (top, left) = as_picture(photograph), where
    axes.imshow(picture, interpolation="lanczos", aspect="auto")
    axes.add_patch(Rectangle((left, top), PATCH, PATCH, fill=False, ec="white", lw=1.2))
    ratio = picture.shape[1] / picture.shape[0]
    inset = axes.inset_axes((1 - 0.42 / ratio - 0.02 / ratio, 0.02, 0.42 / ratio, 0.42))
    inset.imshow(picture[top : top + PATCH, left : left + PATCH], interpolation="nearest")
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(color="white", linewidth=1.6)


def label(axes: Axes, text: str) -> None:
    """White letters in the upper left corner, readable on any photograph."""
    outline = [patheffects.withStroke(linewidth=3, foreground="#00000099")]
    options: dict[str, Any] = {"size": 13, "weight": "bold", "color": "white", "va": "top", "path_effects": outline}
    axes.text(0.02, 0.965, text, transform=axes.transAxes, **options)


def bars(page: Page, left: float, top: float, width: float, tied: Trained, untied: Trained) -> None:
    """The cost of the tied autoencoder, relative to that of the untied one."""
    page.text(left, top + 0.30, "what it takes", size=13, weight="bold")
    rows = [
        ("parameters", tied.parameters, untied.parameters, "{:,.0f}"),
        ("optimizer slots", tied.slot_numbers, untied.slot_numbers, "{:,.0f}"),
        ("file", tied.file_bytes / 1000, untied.file_bytes / 1000, "{:,.0f} kB"),
        ("training", tied.seconds, untied.seconds, "{:,.1f} s"),
    ]
    names = 1.22
    axes = page.axes(left + names, top + 0.42, width - names, SETS - 0.42)
    longest = max(max(ours / theirs, 1) for _, ours, theirs, _ in rows)
    for row, (name, ours, theirs, form) in enumerate(rows):
        axes.barh([row - 0.17, row + 0.17], [ours / theirs, 1], 0.3, color=[TIED, UNTIED])
        axes.text(-0.03, row, name, ha="right", va="center", size=10.5)
        axes.text(ours / theirs + 0.02, row - 0.18, form.format(ours), va="center", size=9.5, color=TIED, weight="bold")
        axes.text(1.02, row + 0.18, form.format(theirs), va="center", size=9.5, color=SOFT)
    axes.set(xlim=(0, longest * 1.32), ylim=(len(rows) - 0.5, -0.5))


def kernels_of_both(
    page: Page, lefts: Sequence[float], top: float, width: float, tied: Trained, untied: Trained
) -> None:
    """One set of kernels under the tied reconstructions, two under the untied ones."""
    sets = (
        (lefts[0], top, "one set of kernels", TIED, "encoder", first_kernels(tied)),
        (lefts[0], top + SECOND_SET, None, TIED, "decoder", None),
        (lefts[1], top, "two sets of kernels", SOFT, "encoder", first_kernels(untied)),
        (lefts[1], top + SECOND_SET, None, SOFT, "decoder", last_kernels(untied)),
    )
    for left, top, title, color, owner, kernels in sets:
        if title:
            page.text(left, top + 0.30, title, size=13, weight="bold", color=color)
        page.text(left, top + 0.56, owner, size=10, color=SOFT)
        axes = page.axes(left, top + 0.64, width, TILES)
        if kernels is not None:
            pixels = mosaic(kernels, colours=-2, across=ACROSS, side=12 * len(kernels))  # a tap is 12 pixels wide
            axes.imshow(pixels, interpolation="nearest", aspect="auto")
        else:
            frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=color, ls=(0, (4, 3)), lw=1.4)
            axes.add_patch(frame)
            style: dict[str, Any] = {"ha": "center", "va": "center", "size": 11.5, "color": color}
            axes.text(0.5, 0.5, "none of its own: it reads those above", **style)


def first_kernels(trained: Trained) -> np.ndarray:
    """Kernels of shape (taps, taps, colours, filters) that read the photograph."""
    return keras.ops.convert_to_numpy(convolutions(trained.encoder)[0].kernel)


def last_kernels(trained: Trained) -> np.ndarray:
    """Kernels of the same shape that make the reconstruction in an untied decoder."""
    transposed = [layer for layer in trained.decoder.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    return keras.ops.convert_to_numpy(transposed[-1].kernel)
