"""`plot_mirror`: an encoder and its mirror side by side."""

from typing import TYPE_CHECKING, Any

import keras

from keras_adjoint.models.decisions import decide
from keras_adjoint.ops.backend import untraced
from keras_adjoint.plots.diagram.layout import draw
from keras_adjoint.plots.diagram.shapes import Box, Dot, Line, Shape, Text
from keras_adjoint.plots.diagram.text import WIDE
from keras_adjoint.plots.figures import INK, SOFT, TIED, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS, MARGIN = 96, 10  # pixels of a drawing per inch, and pixels around it
POLICY, BROKEN = "#9a5b00", "#b3261e"

# The style of each role: solid for what is exact, dashed for what a policy decided, dotted for what is missing.
LINES: dict[str, dict[str, Any]] = {
    "edge": {"color": "#a7b1bd", "linewidth": 1.2},
    "pair-tied": {"color": TIED, "linewidth": 4},
    "pair-exact": {"color": SOFT, "linewidth": 1.2},
    "pair-policy": {"color": POLICY, "linewidth": 1.2, "linestyle": (0, (4, 3))},
}
BOXES: dict[str, dict[str, Any]] = {
    "encoder": {"ec": SOFT, "fc": "#f7f9fa"},
    "end": {"ec": SOFT, "fc": "white"},
    "code": {"ec": INK, "fc": "#e7ecf0"},
    "exact": {"ec": TIED, "fc": "#eef8f6"},
    "policy": {"ec": POLICY, "fc": "#fdf6ea", "linestyle": (0, (4, 3))},
    "nothing": {"ec": "#a7b1bd", "fc": "white", "linestyle": (0, (1, 2))},
    "unreached": {"ec": "#a7b1bd", "fc": "white", "linestyle": (0, (1, 2))},
    "neither": {"ec": BROKEN, "fc": "#fdecea", "linewidth": 2},
}
DOTS: dict[str, dict[str, Any]] = {"node": {"radius": 2.6, "color": SOFT}, "pair-end": {"radius": 4.5, "color": TIED}}
TEXTS: dict[str, dict[str, Any]] = {
    "head": {"color": SOFT, "weight": "bold"},
    "name": {"color": INK, "weight": "bold"},
    "detail": {"color": INK},
    "size": {"color": SOFT},
    "kernel": {"color": TIED},
}
FONT_SIZE = WIDE.font_size * 72 / PIXELS * 0.9  # points
ALIGNMENT = {"start": "left", "middle": "center", "end": "right"}


@untraced
def plot_mirror(encoder: keras.Model, **policies: Any) -> "Figure":
    """Draw a diagram of an encoder and its mirror, side by side.

    The encoder is on the left, from its inputs at the top to the code at the bottom, with one row for each call of a layer.
    The mirror is on the right, with its layers in the rows of those that they mirror. The edges of both graphs run beside
    them. A thick line with round ends connects two layers that share a kernel, and is labelled with the kernel's shape. A
    thin line and a solid frame mark an exact adjoint without a kernel, dashes the choice of a policy, a dotted frame a layer
    without a counterpart in the mirror, and a heavy frame a layer that has neither an adjoint nor a policy. Of a layer that
    ends in an activation, the adjoint is that of its linear part, and the box says so. Sizes are shown where they change.

    Args:
        encoder: A Functional or built Sequential model, nested ones included. It may contain layers that cannot be mirrored.
        **policies: Those of `keras_adjoint.autoencoder`.

    Returns:
        A `matplotlib.figure.Figure` that pyplot does not keep: save it with its `savefig`, or show it in a notebook.

    Raises:
        ImportError: If matplotlib is missing.
        NoRuleError: If `encoder` is no graph of layers.
        ValueError: If `encoder` is no model, or a policy does not exist.

    Example:

    >>> image = keras.Input((28, 28, 1))
    >>> features = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(image)
    >>> encoder = keras.Model(image, keras.layers.MaxPooling2D()(features))
    >>> figure = ka.plot_mirror(encoder, pooling="switches")
    >>> [text.get_text() for text in figure.axes[0].texts if "tied" in text.get_text()]
    ['of the linear part, tied; bias own']
    """
    drawing = draw(decide(encoder, policies), WIDE)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    figure = new_figure(width / PIXELS, height / PIXELS)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN))
    axes.set_axis_off()
    for line in drawing.lines:
        add(axes, line)
    for row in drawing.rows:
        for shape in row.shapes:
            add(axes, shape)
    return figure


def add(axes: "Axes", shape: Shape) -> None:
    """Add a shape to axes, in the style of its role."""
    from matplotlib.patches import Circle, FancyBboxPatch

    match shape:
        case Line():
            axes.plot(*zip(*shape.points, strict=True), solid_capstyle="round", zorder=1, **LINES[shape.role])
        case Dot():
            axes.add_patch(Circle((shape.x, shape.y), zorder=3, **DOTS[shape.role]))
        case Box():
            style = {"boxstyle": "round,pad=0,rounding_size=5", "zorder": 2, "linewidth": 1, **BOXES[shape.role]}
            axes.add_patch(FancyBboxPatch((shape.x, shape.y), shape.width, shape.height, **style))
        case Text():
            style = {
                "ha": ALIGNMENT[shape.anchor],
                "va": "baseline",
                "size": FONT_SIZE,
                "zorder": 4,
                **TEXTS[shape.role],
            }
            axes.text(shape.x, shape.y, shape.text, **style)
