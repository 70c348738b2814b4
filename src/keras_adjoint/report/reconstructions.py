"""What comes back through the mirror for some samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_adjoint.plots.comparison import as_drawn, compare, is_curve
from keras_adjoint.plots.reconstruction import in_decibels, largest_difference, relative
from keras_adjoint.plots.tiles import painted
from keras_adjoint.report.pictures import photograph

CURVE, HIGH = 300, 100  # the width and height that curves are drawn in
CURVES = 3


@dataclass(frozen=True)
class Shown:
    """One of the three things that are shown of a sample.

    Attributes:
        title: What it is.
        caption: A figure about it.
        picture: A `Picture`, or `None`.
        curves: Points as SVG writes them, if it is a signal.
        alt: What it shows.
    """

    title: str
    caption: str
    picture: Any
    curves: list
    alt: str


def reconstructions_of(autoencoder, samples, limits):
    """For each sample its name and the three `Shown`."""
    comparisons = compare(autoencoder, [sample.values for sample in samples], limits)
    return [
        (sample.name, shown(sample.name, comparison)) for sample, comparison in zip(samples, comparisons, strict=True)
    ]


def shown(name, comparison):
    original, back = as_drawn(comparison.original), as_drawn(comparison.fitted)
    low, high = comparison.limits
    plain, fitted = (in_decibels(comparison.psnr(fit=fit)) for fit in (False, True))
    difference = back - original
    largest = np.abs(difference).max()
    things = (
        ("original", f"{low:g} to {high:g}", original, f"The original: {name}"),
        ("reconstruction", f"PSNR {fitted}, unadjusted {plain}", back, f"What comes back for {name}"),
        ("difference", largest_difference(largest), difference, f"The difference between the two for {name}"),
    )
    if is_curve(comparison.original):
        scale = largest if np.isfinite(largest) and largest else 1.0
        ranges = ((low, high), (low, high), (-scale, scale))
        return [
            Shown(title, caption, None, [points(curve, span) for curve in values.T[:CURVES]], alt)
            for (title, caption, values, alt), span in zip(things, ranges, strict=True)
        ]
    signed = difference.mean(-1) if difference.ndim == 3 else difference
    colours = painted(relative(signed), in_colour=False)[..., :3]
    drawn = [(original - low) / (high - low), (back - low) / (high - low), colours]
    return [
        Shown(title, caption, photograph(picture, alt), [], alt)
        for (title, caption, _, alt), picture in zip(things, drawn, strict=True)
    ]


def points(curve, span):
    """A curve as the points of an SVG polyline."""
    across = np.linspace(0, CURVE, len(curve))
    share = np.clip(np.nan_to_num((curve - span[0]) / (span[1] - span[0])), -0.1, 1.1)
    heights = 0.1 * HIGH + 0.8 * HIGH * (1 - share)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights, strict=True))
