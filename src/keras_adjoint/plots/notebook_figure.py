"""A figure that notebooks show without pyplot. Imported lazily, since it needs matplotlib."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A matplotlib figure that is shown as the value of a notebook's cell.

    A plain figure is shown only once pyplot has drawn something in the same notebook.
    """

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", bbox_inches="tight")
        return data.getvalue()
