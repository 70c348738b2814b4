"""Pictures inside of the page: kernels as PNG with a palette, photographs as JPEG."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

COLOURS = 256


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


def kernel_picture(pixels, alt):
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


def photograph(colours, alt):
    """Colours from 0 to 1, of shape `(height, width)` or `(height, width, 3)`, as JPEG."""
    pixels = np.round(255 * np.clip(np.nan_to_num(colours), 0, 1)).astype("uint8")
    return encoded(Image.fromarray(pixels), alt, "JPEG", quality=88, subsampling=0)


def encoded(picture, alt, form, **options):
    written = io.BytesIO()
    picture.save(written, form, **options)
    source = f"data:image/{form.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"
    return Picture(source, *picture.size, alt)
