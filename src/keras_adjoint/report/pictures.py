"""The pictures in the page: kernels as PNG with a palette, photographs as JPEG, and the reconstruction of each sample."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from PIL import Image

from keras_adjoint.plots.comparison import Comparison, compare, drawable, in_decibels, is_curve, largest_difference
from keras_adjoint.plots.figures import colour, relative
from keras_adjoint.report.samples import Sample

COLOURS = 256  # of a palette
CURVE_WIDTH, CURVE_HEIGHT = 300, 100  # of the box that a signal is drawn in
CURVES = 3
LONGEST = 400  # positions of a signal that can be told apart in the box


@dataclass(frozen=True)
class Picture:
    """A picture that a page can show without another file.

    Attributes:
        source: A data URL.
        width: In pixels.
        height: In pixels.
        alt: What it shows, in words.
    """

    source: str
    width: int
    height: int
    alt: str


def kernel_picture(pixels: np.ndarray, alt: str) -> Picture:
    """Bytes of shape `(height, width, 4)`, of which many are equal, as PNG."""
    step = 1
    while True:
        rounded = np.minimum(np.round(pixels / step) * step, 255).astype("uint8")
        colours, places = np.unique(rounded.view("uint32"), return_inverse=True)  # four bytes are one number
        if len(colours) <= COLOURS:
            break
        step += step
    picture = Image.fromarray(places.reshape(pixels.shape[:2]).astype("uint8"), mode="P")
    picture.putpalette(colours.tobytes(), rawmode="RGBA")
    return encoded(picture, alt, "PNG", optimize=True)


def photograph(colours: np.ndarray, alt: str) -> Picture:
    """Colours from 0 to 1, of shape `(height, width)` or `(height, width, 3)`, as JPEG."""
    pixels = np.round(255 * np.clip(np.nan_to_num(colours), 0, 1)).astype("uint8")
    return encoded(Image.fromarray(pixels), alt, "JPEG", quality=88, subsampling=0)


def encoded(picture: Image.Image, alt: str, file_format: str, **options: Any) -> Picture:
    written = io.BytesIO()
    picture.save(written, file_format, **options)
    source = f"data:image/{file_format.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"
    return Picture(source, *picture.size, alt)


# --- reconstructions


@dataclass(frozen=True)
class Panel:
    """An original, its reconstruction, or their difference.

    Attributes:
        title: Which of the three it is.
        caption: A figure about it.
        picture: The picture; `None` for a signal.
        curves: The channels of a signal, each as points of an SVG polyline.
        alt: What it shows.
    """

    title: str
    caption: str
    picture: Picture | None
    curves: list[str]
    alt: str


@dataclass(frozen=True)
class Reconstruction:
    """A sample and what an autoencoder makes of it: its name, and three panels."""

    name: str
    panels: list[Panel]


def reconstructions_of(
    autoencoder: keras.Model, samples: Sequence[Sample], limits: tuple[float, float]
) -> list[Reconstruction]:
    """A `Reconstruction` of each sample."""
    comparisons = compare(autoencoder, [sample.values for sample in samples], limits)
    return [
        Reconstruction(sample.name, panels_of(sample.name, comparison))
        for sample, comparison in zip(samples, comparisons, strict=True)
    ]


def panels_of(name: str, comparison: Comparison) -> list[Panel]:
    original, reconstruction = drawable(comparison.original), drawable(comparison.fitted)
    low, high = comparison.limits
    plain, fitted = (in_decibels(comparison.psnr(fit=fit)) for fit in (False, True))
    difference = reconstruction - original
    largest = float(np.abs(difference).max())
    texts = (
        ("original", f"{low:g} to {high:g}", f"The original: {name}"),
        ("reconstruction", f"PSNR {fitted}, unadjusted {plain}", f"The reconstruction of {name}"),
        ("difference", largest_difference(largest), f"The difference between {name} and its reconstruction"),
    )
    if is_curve(comparison.original):
        scale = largest if np.isfinite(largest) and largest else 1.0
        ranges = ((low, high), (low, high), (-scale, scale))
        signals = zip(texts, (original, reconstruction, difference), ranges, strict=True)
        part, where = middle(len(original))
        return [
            Panel(title, f"{caption}{where}", None, [points(curve[part], span) for curve in values.T[:CURVES]], alt)
            for (title, caption, alt), values, span in signals
        ]
    signed = difference.mean(-1) if difference.ndim == 3 else difference
    colours = colour(relative(signed), rgb=False)[..., :3]
    drawn = [(original - low) / (high - low), (reconstruction - low) / (high - low), colours]
    return [
        Panel(title, caption, photograph(picture, alt), [], alt)
        for (title, caption, alt), picture in zip(texts, drawn, strict=True)
    ]


def middle(length: int) -> tuple[slice, str]:
    """(the part of a signal that is drawn, which it is, in words): of a long one, whose curve would be a block, the middle."""
    if length <= LONGEST:
        return slice(length), ""
    start = (length - LONGEST) // 2
    return slice(start, start + LONGEST), f"; positions {start:,} to {start + LONGEST:,} of {length:,}"


def points(curve: np.ndarray, span: tuple[float, float]) -> str:
    """A curve as the points of an SVG polyline."""
    across = np.linspace(0, CURVE_WIDTH, len(curve))
    share = np.clip(np.nan_to_num((curve - span[0]) / (span[1] - span[0])), -0.1, 1.1)
    heights = 0.1 * CURVE_HEIGHT + 0.8 * CURVE_HEIGHT * (1 - share)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights, strict=True))
