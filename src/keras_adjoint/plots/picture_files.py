"""Picture files that people name: opened, or refused in words. Imports no Keras."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Of the many that Pillow has, some of which start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
UNKNOWN_TIFF = "Pillow does not read this kind of TIFF, such as colours of 32 bits; store it as PNG, in 8 or 16 bits"


def open_picture(file: Path) -> Image.Image:
    """A picture, turned as its camera was, that says what is white; see `with_white`.

    Raises:
        ValueError: If the file is none.
    """
    if not file.exists():
        raise ValueError(f"There is no file {file}.")
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "a named pipe" if file.is_fifo() else "a device"
        raise ValueError(f"{file} is {kind}, not a picture.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # of what Pillow finds too large
            with Image.open(file, formats=FORMATS) as opened:
                picture = ImageOps.exif_transpose(opened)
        return with_white(picture, opened.format)
    except Exception as error:
        reason = UNKNOWN_TIFF if isinstance(error, UnidentifiedImageError) and is_tiff(file) else reason_of(error)
        raise ValueError(f"{file} cannot be read as a picture: {reason}.") from error


def is_tiff(file: Path) -> bool:
    """Whether a file begins as a TIFF, of which Pillow reads some kinds only."""
    with file.open("rb") as opened:
        return opened.read(4) in (b"II*\0", b"MM\0*")


def reason_of(error: Exception) -> str:
    """What is wrong with a picture, in a clause."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of the formats {', '.join(FORMATS)}, or only a part of one"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first"
    return (str(error).partition("\n")[0] or type(error).__name__).rstrip(".")


def with_white(picture: Image.Image, file_format: str | None = None) -> Image.Image:
    """A picture that says what is white: 255, or 1 in mode F, which pictures of 16 bits and of floats are given.

    Pillow itself would cut off what is larger than 255, and make 0 of fractions.

    Raises:
        ValueError: If its numbers do not say which of them is white.
    """
    if not picture.mode.startswith(("I", "F")):
        return picture
    numbers = np.asarray(picture, "float64")
    is_fraction = picture.mode.startswith("F")
    if picture.mode == "I" and file_format != "PNG":
        raise ValueError("it has 32 bits, and none of them says what is white; store it in 8 or 16 bits")
    white = 1 if is_fraction else 2**16 - 1
    if not np.isfinite(numbers).all():
        raise ValueError("some of its numbers are not finite")
    if not (numbers.min() >= 0 and numbers.max() <= white):
        raise ValueError(f"its numbers go from {numbers.min():g} to {numbers.max():g}, and not from 0 to {white}")
    return Image.fromarray((numbers / white).astype("float32"))
