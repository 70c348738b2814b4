"""Where results are written to: checked before any work is done."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_adjoint_cli.errors import Unusable


def check_output(file: Path, *, inputs: Sequence[Path], suffixes: Sequence[str], force: bool) -> None:
    """Raise an `Unusable` if a result may not or cannot be written to a file.

    Args:
        file: The path.
        inputs: Paths of files that are read, which are never overwritten.
        suffixes: How the name may end.
        force: Whether another file may be overwritten.
    """
    if (file.suffix if ".keras" in suffixes else file.suffix.lower()) not in suffixes:  # Keras has no .KERAS
        raise Unusable(f"The name of the output ends in {' or '.join(suffixes)}. Received: {file}")
    if file.is_dir():
        raise Unusable(f"{file} is a folder. Name a file in it.")
    if not file.parent.is_dir():
        raise Unusable(f"There is no folder {file.parent} to write {file.name} to.")
    if file.exists():
        if any(other.exists() and file.samefile(other) for other in inputs):
            raise Unusable(f"{file} is the input, which is never overwritten. Name another file.")
        if not force:
            raise Unusable(f"{file} exists already. Name another file, or pass --force to overwrite it.")
    if not os.access(file.parent, os.W_OK):
        raise Unusable(f"The folder {file.parent} cannot be written to.")
