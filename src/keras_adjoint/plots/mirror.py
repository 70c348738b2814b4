"""`plot_mirror`: an encoder and its mirror side by side."""

from typing import TYPE_CHECKING, Any

import keras

from keras_adjoint.models.decisions import decide
from keras_adjoint.plots.diagram.drawing import draw
from keras_adjoint.plots.diagram.lettering import WIDE
from keras_adjoint.plots.diagram.shapes import Box, Dot, Line, Text
from keras_adjoint.plots.figures import INK, SOFT, TIED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS, MARGIN = 96, 10  # pixels of a drawing per inch, and pixels around it
POLICY, BROKEN = "#9a5b00", "#b3261e"

# How each role looks: what is exact is drawn with a solid line, what a policy decided with dashes, what is not there with dots.
LINES: dict[str, dict] = {
    "stile": {"color": "#a7b1bd", "linewidth": 1.2},
    "rung-tied": {"color": TIED, "linewidth": 4},
    "rung-exact": {"color": SOFT, "linewidth": 1.2},
    "rung-policy": {"color": POLICY, "linewidth": 1.2, "linestyle": (0, (4, 3))},
}
BOXES: dict[str, dict] = {
    "encoder": {"ec": SOFT, "fc": "#f7f9fa"},
    "end": {"ec": SOFT, "fc": "white"},
    "code": {"ec": INK, "fc": "#e7ecf0"},
    "exact": {"ec": TIED, "fc": "#eef8f6"},
    "policy": {"ec": POLICY, "fc": "#fdf6ea", "linestyle": (0, (4, 3))},
    "nothing": {"ec": "#a7b1bd", "fc": "white", "linestyle": (0, (1, 2))},
    "unreached": {"ec": "#a7b1bd", "fc": "white", "linestyle": (0, (1, 2))},
    "neither": {"ec": BROKEN, "fc": "#fdecea", "linewidth": 2},
}
DOTS: dict[str, dict] = {"node": {"radius": 2.6, "color": SOFT}, "knob": {"radius": 4.5, "color": TIED}}
TEXTS: dict[str, dict] = {
    "head": {"color": SOFT, "weight": "bold"},
    "name": {"color": INK, "weight": "bold"},
    "detail": {"color": INK},
    "size": {"color": SOFT},
    "kernel": {"color": TIED},
}


def plot_mirror(encoder: keras.Model, **policies: Any) -> "Figure":
    """Draw an encoder and its mirror side by side, as two ladders with tied rungs.

    On the left the encoder goes down from its inputs to the code, one row for each call of a layer; on the right its mirror
    comes back up. The lines beside them lead from call to call. Where a kernel is shared, a thick rung with knobs ties the
    two boxes together, and bears the kernel's shape. A thin rung and a solid frame are an exact adjoint without a kernel,
    dashes are what a policy decided, a dotted frame is an empty place, and a heavy frame a layer that has neither an adjoint
    nor a policy. Sizes stand where they change.

    Args:
        encoder: A Functional or built Sequential model, nested ones included. It may contain layers that cannot be mirrored.
        **policies: Those of `keras_adjoint.autoencoder`.

    Returns:
        A `matplotlib.figure.Figure`, which nothing else holds: save it with its `savefig`, or show it in a notebook.

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
    ['exact, tied; activation same, bias own']
    """
    drawing = draw(decide(encoder, policies), WIDE)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    figure = new_figure(width / PIXELS, height / PIXELS)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN))
    axes.set_axis_off()
    for line in drawing.lines:
        draw_line(axes, line)
    for row in drawing.rows:
        for shape in row.shapes:
            DRAW[type(shape)](axes, shape)
    return figure


def draw_line(axes, line):
    axes.plot(*zip(*line.points, strict=True), solid_capstyle="round", zorder=1, **LINES[line.role])


def draw_dot(axes, dot):
    from matplotlib.patches import Circle

    axes.add_patch(Circle((dot.x, dot.y), zorder=3, **DOTS[dot.role]))


def draw_box(axes, box):
    from matplotlib.patches import FancyBboxPatch

    style = {"boxstyle": "round,pad=0,rounding_size=5", "zorder": 2, "linewidth": 1, **BOXES[box.role]}
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, **style))


def draw_text(axes, text):
    sides = {"start": "left", "middle": "center", "end": "right"}
    style = {"ha": sides[text.anchor], "va": "baseline", "size": WIDE.letters * 72 / PIXELS * 0.9, "zorder": 4}
    axes.text(text.x, text.y, text.text, **style, **TEXTS[text.role])


DRAW = {Line: draw_line, Dot: draw_dot, Box: draw_box, Text: draw_text}
