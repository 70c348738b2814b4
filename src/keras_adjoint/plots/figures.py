"""What all figures have in common: their ink, and matplotlib, which is imported late and used without its global state."""

INK, SOFT, TIED = "#16202b", "#5b6775", "#0d8274"
TEXT = {"family": "sans-serif", "color": INK}


def new_figure(width, height, **options):
    """An empty figure of some inches that belongs to nobody but the caller, so that no window has to be closed.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Figures are drawn by matplotlib, which is missing: pip install "keras-adjoint[plot]"'
        ) from error
    return Figure((width, height), facecolor="white", **options)
