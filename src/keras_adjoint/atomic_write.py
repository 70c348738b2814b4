"""Files that are written in full or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a name to write to, which replaces `path` once everything is written.

    It is in a new folder beside `path` that nobody else can open, so that no one can plant a link there. A file that is
    replaced leaves its mode to the new one.

    Raises:
        FileExistsError: If `path` is there and no regular file. A link is neither followed nor replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    old = status(path)
    with TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        beside = Path(folder) / path.name
        yield beside
        if old is not None:
            beside.chmod(stat.S_IMODE(old.st_mode))
        os.replace(beside, path)


def status(path: Path) -> os.stat_result | None:
    """What the system says of a regular file; `None` if nothing is there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = "a link, which is neither followed nor replaced" if path.is_symlink() else "no regular file"
        raise FileExistsError(f"{path} is {kind}. Name another file. Received: {str(path)!r}")
    return found
