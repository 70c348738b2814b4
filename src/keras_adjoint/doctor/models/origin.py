"""What a model file says about the Keras that wrote it."""

import json
import re
import zipfile
from dataclasses import dataclass

import h5py


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as far as its file says so.

    Attributes:
        version: The version of Keras, as integers: (3, 14, 0); `None` if the file does not say.
        backend: The backend that Keras ran on; `None` if the file does not say, and .keras files never do.
    """

    version: tuple | None = None
    backend: str | None = None


def origin_of(file):
    """The `Origin` of a model file, all unknown where the file says nothing."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                facts = json.loads(archive.read("metadata.json"))
        else:
            with h5py.File(file, "r") as content:
                facts = dict(content.attrs)
    except (OSError, KeyError, ValueError):
        return Origin()
    return Origin(as_version(text(facts.get("keras_version"))), text(facts.get("backend")) or None)


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value or "")


def as_version(string):
    """A version as integers; `None` if there are none in it."""
    return tuple(map(int, re.findall(r"\d+", string)[:3])) or None
