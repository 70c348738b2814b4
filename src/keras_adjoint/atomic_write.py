"""Files that are either there in full or not at all."""

import os
from contextlib import contextmanager


@contextmanager
def atomic_write(path):
    """Give a name beside `path` to write to, which takes the place of `path` once everything is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
