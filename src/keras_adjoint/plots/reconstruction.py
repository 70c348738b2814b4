"""`plot_reconstruction`: samples, their reconstructions by an autoencoder, and the differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_adjoint.ops.backend import untraced
from keras_adjoint.plots.comparison import Comparison, compare, drawable, in_decibels, is_curve, largest_difference
from keras_adjoint.plots.figures import INK, SOFT, TIED, colour, hide_frame, new_figure, relative

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, MARGIN = 2.3, 0.42  # inches
CURVES = 8  # the most that one pair of axes shows


@untraced
def plot_reconstruction(
    autoencoder: keras.Model,
    images: Any,
    *,
    limits: Sequence[float] | None = None,
    fit: bool = False,
    names: Sequence[str] | None = None,
) -> "Figure":
    """Draw originals, reconstructions, and their differences, with the peak signal-to-noise ratio of each.

    Args:
        autoencoder: A model with one input and one output of the same shape, such as `keras_adjoint.autoencoder` makes.
        images: A batch, as the model takes it, or a list of samples of different sizes. Signals are drawn as curves,
            volumes as their middle slice.
        limits: The smallest and the largest value that a sample may have, black and white in a picture. By default
            (0, 1), (-1, 1), (0, 255), whichever is the first that the samples fit into, or else their own range.
        fit: Give reconstructions the brightness and the contrast of their originals, that is, the mean and the standard
            deviation, which an untrained decoder cannot know.
        names: Names of the samples.

    Returns:
        A `matplotlib.figure.Figure` that pyplot does not keep: save it with its `savefig`, or show it in a notebook.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there are no samples, or the model does not return one tensor of the shape of its input.

    Example:

    >>> image = keras.Input((16, 16, 3))
    >>> encoder = keras.Model(image, keras.layers.Conv2D(4, 3, strides=2)(image))
    >>> figure = ka.plot_reconstruction(ka.autoencoder(encoder), np.zeros((2, 16, 16, 3)))
    >>> [axes.get_title("left") for axes in figure.axes[:3]]
    ['original', 'reconstruction', 'difference']
    """
    if not len(images):
        raise ValueError("There is nothing to reconstruct. Received: no images")
    comparisons = compare(autoencoder, images, None if limits is None else (limits[0], limits[1]))
    heights = [height_of(comparison.original) for comparison in comparisons]
    figure = new_figure(3 * COLUMN + 0.3, sum(heights) + MARGIN * (len(heights) + 1), layout="constrained")
    grid = figure.subplots(len(heights), 3, squeeze=False, height_ratios=[height + MARGIN for height in heights])
    for row, (axes, comparison) in enumerate(zip(grid, comparisons, strict=True)):
        draw_row(axes, comparison, fit=fit)
        axes[0].set_xlabel(names[row] if names is not None else "", loc="left", size=9, color=SOFT)
    titles = ("original", "reconstruction, fitted" if fit else "reconstruction", "difference")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, loc="left", size=11, weight="bold", color=INK)
    return figure


def height_of(sample: np.ndarray) -> float:
    """The height in inches of a sample's picture."""
    if is_curve(sample):
        return 0.5 * COLUMN
    height, width = drawable(sample).shape[:2]
    return float(min(COLUMN * height / width, 2 * COLUMN))


def draw_row(axes: "Sequence[Axes]", comparison: Comparison, *, fit: bool) -> None:
    reconstruction = comparison.fitted if fit else comparison.raw
    low, high = comparison.limits
    difference = drawable(reconstruction) - drawable(comparison.original)
    largest = float(np.abs(difference).max())
    scale = largest if np.isfinite(largest) else 0
    for each in axes:
        hide_frame(each)
    if is_curve(comparison.original):
        for each, curves in zip(
            axes, (drawable(comparison.original), drawable(reconstruction), difference), strict=True
        ):
            each.axhline(0, color=SOFT, linewidth=0.5)
            each.plot(curves[:, :CURVES], color=TIED, linewidth=1, alpha=0.8)
            spread = max(high - low, 1e-6)
            each.set_ylim(low - 0.1 * spread, high + 0.1 * spread)
        if scale:
            axes[2].set_ylim(-1.1 * scale, 1.1 * scale)
    else:
        for each, picture in zip(axes, (comparison.original, reconstruction), strict=False):
            shown = np.clip((drawable(picture) - low) / ((high - low) or 1.0), 0, 1)
            each.imshow(shown, cmap="gray", vmin=0, vmax=1)
        signed = difference.mean(-1) if difference.ndim == 3 else difference
        axes[2].imshow(colour(relative(signed), rgb=False))
    ratio = f"PSNR {in_decibels(comparison.psnr())}"
    fitted = f", fitted {in_decibels(comparison.psnr(fit=True))}" if fit else ""
    axes[1].set_xlabel(ratio + fitted, loc="left", size=9, color=INK)
    axes[2].set_xlabel(largest_difference(largest), loc="left", size=9, color=SOFT)
