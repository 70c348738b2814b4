"""`plot_kernels`: what the kernels of a layer look like, as they are or transposed."""

from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_adjoint.errors import one_of
from keras_adjoint.kernels.layouts import KINDS
from keras_adjoint.layers.registry import describe
from keras_adjoint.models.text import size_text
from keras_adjoint.ops.backend import untraced
from keras_adjoint.plots.figures import INK, SOFT, TIED, hide_frame, new_figure
from keras_adjoint.plots.kernel_arrays import KernelArray, kernels_of
from keras_adjoint.plots.tiles import arranged, extent, mosaic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, TILE = 24, 0.5  # the width of a tile in pixels and in inches
NARROWEST, WIDEST, HIGHEST, MARGIN = 5.6, 7.0, 9.0, 0.7  # inches


@untraced
def plot_kernels(
    layer: keras.layers.Layer,
    *,
    kind: str | None = None,
    filters: int | None = 24,
    channels: int | None = 8,
    across: int = 8,
) -> "Figure":
    """Draw the kernels of a layer.

    The figure is a table of small pictures, with a row for each input channel and a column for each filter. A picture has a
    cell for each tap: orange where the kernel is positive, blue where it is negative. Filters of red, green and blue are
    drawn in these colours, around grey, and fill the rows one after the other, like filters of a single channel.
    One-dimensional kernels are drawn as curves and three-dimensional ones slice by slice, with filters in rows; matrices
    are drawn as they are. Each picture has its own contrast, unless it is a single number.

    Args:
        layer: A built layer with kernels: a convolution of any kind, `Dense`, `EinsumDense`, `Embedding`, or the adjoint of
            one, which has the kernels of its source.
        kind: Draw the kernels after `keras_adjoint.transpose_kernel` of this kind: "conv_transpose", "conv", "flip",
            "swap_spatial" or "swap_channels". By default they are drawn as they are.
        filters: The largest number of filters drawn; of grouped kernels those of whole groups. `None` draws all.
        channels: The largest number of input channels drawn of each filter.
        across: The number of filters in a row, where a filter is one picture.

    Returns:
        A `matplotlib.figure.Figure` that pyplot does not keep: save it with its `savefig`, or show it in a notebook.

    Raises:
        ImportError: If matplotlib is missing.
        TieError: If the layer is not built, or its kernel cannot be read.
        ValueError: If the layer has no kernels to draw, or there is no such kind.

    Example:

    >>> conv = keras.layers.Conv2D(16, 5)
    >>> conv.build((None, 32, 32, 3))
    >>> figure = ka.plot_kernels(conv)
    >>> [axes.get_title("left") for axes in figure.axes]
    ['kernel, 5×5×3×16']
    """
    if kind is not None:
        one_of("kind", kind, KINDS)
    kernels = kernels_of(layer, filters=filters, channels=channels)
    if not kernels:
        raise ValueError(
            f"`plot_kernels` draws the kernels of convolutions, `Dense`, `EinsumDense`, `Embedding` and their adjoints. Of a "
            f"model, pass one of its layers. Received: {describe(layer)}"
        )
    pictures = [Picture(kernel.transposed(kind), across) for kernel in kernels]
    widths, heights = zip(*(picture.size for picture in pictures), strict=True)
    size = max(NARROWEST, max(widths) + MARGIN), sum(heights) + MARGIN * (len(pictures) + 0.5)
    figure = new_figure(*size, layout="constrained")
    grid = figure.subplots(len(pictures), squeeze=False, height_ratios=[height + MARGIN for height in heights])
    for axes, picture in zip(grid.flat, pictures, strict=True):
        picture.draw(axes, kind)
    figure.suptitle(f"{layer.name}, {type(layer).__name__}", x=0.02, ha="left", weight="bold", color=INK)
    return figure


class Picture:
    """The picture of one kernel, and its `size` in inches."""

    def __init__(self, kernel: KernelArray, across: int) -> None:
        self.kernel, self.across = kernel, across
        if len(kernel.taps) == 1:
            self.curves = arranged(kernel.values, across=across)
            rows, columns = self.curves.shape[:2]
            height, width = rows * TILE, min(columns * 4 * TILE, WIDEST)
        else:
            self.pixels = mosaic(kernel.values, colours=kernel.colours, across=across)
            height, width = (TILE / SIDE * size for size in self.pixels.shape[:2])
        scale = min(1, WIDEST / width, HIGHEST / height)
        self.size = width * scale, height * scale

    def draw(self, axes: "Axes", kind: str | None) -> None:
        if len(self.kernel.taps) == 1:
            draw_curves(axes, self.curves)
        else:
            axes.imshow(self.pixels, interpolation="nearest")
        hide_frame(axes)
        how = f', transposed by "{kind}"' if kind else ""
        axes.set_title(f"{self.kernel.name}, {size_text(self.kernel.shape)}{how}", loc="left", size=10, color=INK)
        signs = self.kernel.colours is None and len(self.kernel.taps) != 1
        caption = extent(self.kernel) + (" · orange above zero, blue below" if signs else "")
        axes.set_xlabel(caption, loc="left", size=9, color=SOFT)


def draw_curves(axes: "Axes", table: np.ndarray) -> None:
    """A curve over the taps for each tile, around a line for zero."""
    rows, columns, taps = table.shape
    along = np.linspace(0, 0.85, taps)
    for row in range(rows):
        for column in range(columns):
            if not np.isnan(table[row, column]).any():
                axes.plot([column, column + 0.85], [row, row], color=SOFT, linewidth=0.5)
                curve = row - 0.45 * table[row, column]
                axes.plot(column + along, curve, color=TIED, linewidth=1, marker="." if taps < 16 else "", markersize=3)
    axes.set(xlim=(-0.1, columns), ylim=(rows - 0.4, -0.6))
