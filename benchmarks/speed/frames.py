"""Which functions of this library an eager call of a layer crosses: the Python frames of its own files, in order."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import keras

import keras_adjoint

PACKAGE = Path(keras_adjoint.__file__).parent


class Frame(NamedTuple):
    """One call of a function, or one step of a generator."""

    file: str
    function: str


def frames(layer: keras.layers.Layer, y: Any) -> list[Frame]:
    """The frames of this library in `layer(y)`, when everything that is cached has been cached."""
    layer(y)
    crossed = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and Path(code.co_filename).is_relative_to(PACKAGE):
            crossed.append(Frame(Path(code.co_filename).relative_to(PACKAGE).as_posix(), code.co_name))

    outer = sys.getprofile()
    sys.setprofile(note)
    try:
        layer(y)
    finally:
        sys.setprofile(outer)
    return crossed


def files(crossed: list[Frame]) -> list[str]:
    """The files of frames, each once."""
    return list(dict.fromkeys(frame.file for frame in crossed))
