"""What all figures have in common: their ink, and matplotlib, which is imported late and used without its global state."""

INK, SOFT, TIED = "#16202b", "#5b6775", "#0d8274"
TEXT = {"family": "sans-serif", "color": INK}


def new_figure(width, height, **options):
    """An empty figure of some inches that pyplot does not keep, so no window has to be closed.

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
