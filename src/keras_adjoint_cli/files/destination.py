"""Where results are written to: checked before any work is done, and named where writing fails."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_adjoint.atomic_write import atomic_write
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
    try:
        check_place(file, inputs, force)
    except (OSError, ValueError) as error:
        raise Unusable(f"{file} cannot be written: {reason_of(error)}.") from error


def check_place(file: Path, inputs: Sequence[Path], force: bool) -> None:
    if file.is_dir():
        raise Unusable(f"{file} is a folder. Name a file in it.")
    if not file.parent.is_dir():
        raise Unusable(f"There is no folder {file.parent} to write {file.name} to.")
    if file.exists() and any(other.exists() and file.samefile(other) for other in inputs):
        raise Unusable(f"{file} is the input, which is never overwritten. Name another file.")
    if file.is_symlink():
        raise Unusable(
            f"{file} is a link, which is neither followed nor replaced. Name the file itself, or another one."
        )
    if file.exists():
        if not file.is_file():
            raise Unusable(f"{file} is no regular file, and is not overwritten. Name another file.")
        if not force:
            raise Unusable(f"{file} exists already. Name another file, or pass --force to overwrite it.")
    if not os.access(file.parent, os.W_OK):
        raise Unusable(f"The folder {file.parent} cannot be written to.")


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """A name to write to, as of `atomic_write`, and an `Unusable` that names the file if the system cannot write it."""
    try:
        with atomic_write(file) as beside:
            yield beside
    except (OSError, RuntimeError) as error:  # h5py and PyTorch raise a RuntimeError where the disk is full
        if isinstance(error, NotImplementedError):
            raise
        raise Unusable(f"{file} cannot be written: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """What the system says, in a clause."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if "requested and" in said and said.endswith("written"):  # NumPy's words
        return "not all of it could be written, as where there is no space left on the device"
    return said.partition("\n")[0].rstrip(".")
