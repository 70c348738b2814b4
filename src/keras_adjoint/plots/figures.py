"""What all figures share: their colours, and matplotlib, which is imported lazily and used without its global state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, TIED = "#16202b", "#5b6775", "#0d8274"

# Numbers from -1 to 1 as colours
BELOW, ZERO, ABOVE = np.array([[29, 91, 163], [246, 244, 240], [196, 84, 20]]) / 255
NOT_FINITE = np.zeros(3)


def new_figure(width: float, height: float, **options: Any) -> "Figure":
    """An empty figure, in inches, that pyplot does not keep, so that no window has to be closed.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'Figures are drawn by matplotlib, which is missing: pip install "keras-adjoint[plot]"'
        ) from error
    from keras_adjoint.plots.notebook_figure import NotebookFigure

    return NotebookFigure((width, height), facecolor="white", **options)


@contextmanager
def own_settings() -> Iterator[None]:
    """Inside, figures look as this package has them: a file `matplotlibrc` in the current folder could start LaTeX."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def hide_frame(axes: "Axes") -> None:
    """Leave only the contents of axes, without ticks or frame, in the upper left corner of their cell."""
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set_visible(False)


def colour(values: np.ndarray, *, rgb: bool) -> np.ndarray:
    """Numbers from -1 to 1 as RGBA colours from 0 to 1: transparent for NaN, black for infinity.

    Args:
        values: An array.
        rgb: Whether its last axis is red, green and blue, around grey. Otherwise positive numbers are orange, negative ones
            blue, and zero is nearly white.
    """
    infinite = np.isinf(values)
    values = np.where(infinite, 0, values)
    if rgb:
        colours, infinite = 0.5 + 0.5 * values, infinite.any(-1)
    else:
        end = np.where((values < 0)[..., None], BELOW, ABOVE)
        colours = ZERO + np.abs(values)[..., None] * (end - ZERO)
    colours = np.where(infinite[..., None], NOT_FINITE, colours)
    return np.concatenate([np.nan_to_num(colours), ~np.isnan(colours[..., :1])], axis=-1)


def relative(values: np.ndarray) -> np.ndarray:
    """Numbers divided by the largest magnitude among the finite ones; infinity for the others."""
    finite = np.isfinite(values)
    return np.where(finite, values / (np.abs(values[finite]).max(initial=0) or 1.0), np.inf)
