"""The chart of the page: for each backend and machine all ratios as dots, their middle half and their geometric mean."""

from itertools import groupby

import numpy as np

from keras_adjoint.atomic_write import atomic_write

TITLES = ("Time of the adjoint ÷ time of the layer", "… ÷ time of the backend's own transpose")
COLOURS = {"JAX": "#7b5ea7", "TensorFlow": "#d0741c", "PyTorch": "#2b6a99"}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5)
GAP = 0.7  # between machines, in rows


def draw(file, rows):
    """Write the chart.

    Args:
        file: Where to, an SVG.
        rows: (machine, backend, [ratios for each of `TITLES`]) from top to bottom, machines together.
    """
    import matplotlib
    from matplotlib.figure import Figure

    heights, labels = _layout(rows)
    with matplotlib.rc_context({"svg.hashsalt": "speed", "font.size": 10}):
        figure = Figure(figsize=(9.2, 0.25 * (heights[-1] + 1) + 0.75), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(TITLES), sharey=True)
        for column, (axes, title) in enumerate(zip(panels, TITLES, strict=True)):
            for height, (_, backend, ratios) in zip(heights, rows, strict=True):
                _draw_row(axes, height, ratios[column], COLOURS[backend])
            axes.axvline(1, color="#16202b", linewidth=1, zorder=1)
            axes.set_xscale("log")
            axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
            axes.minorticks_off()
            axes.grid(axis="x", color="#e6e8eb", linewidth=0.8, zorder=0)
            axes.set(xlim=(0.06, 6), ylim=(heights[-1] + 0.8, heights[0] - 1.6))
            axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
            axes.tick_params(left=False, bottom=False)
            axes.spines[:].set_visible(False)
            axes.text(0.93, heights[0] - 1.15, "faster ←", ha="right", fontsize=8.5, color="#5b6775")
            axes.text(1.08, heights[0] - 1.15, "→ slower", ha="left", fontsize=8.5, color="#5b6775")
        panels[0].set_yticks(heights, labels)
        with atomic_write(file) as beside:
            figure.savefig(beside, format="svg", metadata={"Date": None})


def _layout(rows):
    """The height of each row, and what stands in front of it."""
    heights, labels, height = [], [], 0.0
    for machine, group in groupby(rows, key=lambda row: row[0]):
        for number, (_, backend, _) in enumerate(group):
            heights.append(height)
            labels.append(f"{machine}   {backend}" if number == 0 else backend)
            height += 1
        height += GAP
    return heights, labels


def _draw_row(axes, height, ratios, colour):
    if not ratios:
        return
    values = np.sort([*ratios.by_name.values()])
    jitter = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))  # so that equal ratios do not hide each other
    axes.scatter(values, height + jitter, s=7, color=colour, alpha=0.35, linewidths=0, zorder=2)
    axes.plot(
        ratios.middle_half, [height, height], color=colour, linewidth=5, alpha=0.55, solid_capstyle="butt", zorder=3
    )
    axes.scatter([ratios.mean], [height], s=52, color=colour, edgecolors="white", linewidths=1.2, zorder=4)
