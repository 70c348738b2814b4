"""Files that are read: that they are regular files is asked before one of them is opened."""

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_adjoint_cli.errors import Unusable

KINDS = (  # what else a path may lead to
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_source(file: Path, what: str, *, empty: bool = False) -> int:
    """The size of a file in bytes.

    Args:
        file: The path, perhaps a link.
        what: What it should be, such as "a script".
        empty: Whether it may be empty.

    Raises:
        Unusable: If it is none that can be read.
    """
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable(f"There is no file {file}.") from None
    except OSError as error:  # a chain of links without an end, a name that is too long, a folder that is closed
        raise Unusable(f"{file} cannot be opened: {error.strerror}.") from error
    except ValueError as error:
        raise Unusable(f"{file} is no name of a file: {error}.") from error
    kind = next((words for is_one, words in KINDS if is_one(found.st_mode)), None)
    if kind:
        raise Unusable(f"{file} is {kind}, not {what}.")
    if not (found.st_size or empty):
        raise Unusable(f"{file} is not {what}: it is empty.")
    return found.st_size


@contextmanager
def warnings_of_success() -> Iterator[None]:
    """Hold warnings back until what is inside has succeeded; where it fails, the error alone says why."""
    with warnings.catch_warnings(record=True) as found:
        yield
    for one in found:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
