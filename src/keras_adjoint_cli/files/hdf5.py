"""What HDF5 files claim to hold, without reading what they hold."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.limits import RATIO, ROOM, memory_text


def elements_in(file: Path | IO[bytes], name: Path) -> int:
    """The numbers in all arrays of an HDF5 file, each once, as far as the file holds them.

    Of an array that was never written it has the shape alone, and HDF5 makes zeros of it.

    Args:
        file: The file, or a stream of it.
        name: What errors call it.

    Raises:
        Unusable: If it refers to other files, whose contents it would take for its own, or claims far more than it holds.
    """
    count = 0
    with h5py.File(file, "r") as opened:
        for path, item in items_of(opened):
            if isinstance(item, h5py.ExternalLink):
                raise Unusable(f"{name} reads other files, which is not allowed: {path} is a link to {item.filename}.")
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise Unusable(f"{name} reads other files, which is not allowed: {path} is stored in one.")
                count += elements_of(item, path, name)
    return count


def elements_of(array: h5py.Dataset, path: str, name: Path) -> int:
    """The numbers of an array that are stored, if need be compressed."""
    claimed, stored = math.prod(array.shape or (0,)), array.id.get_storage_size()
    size = max(1, array.dtype.itemsize)
    if size * claimed > max(ROOM, RATIO * stored):
        raise Unusable(
            f"{name} cannot be loaded: {path} claims {memory_text(size * claimed)}, of which the file holds "
            f"{memory_text(stored)}."
        )
    return min(claimed, RATIO * stored // size)


def items_of(opened: h5py.File) -> Iterator[tuple[str, Any]]:
    """(path, group or dataset, or link to another file) of all that an HDF5 file holds, each object once."""
    found: list[tuple[str, Any]] = []
    opened.visititems_links(lambda path, link: found.append((path, link)))
    yield from ((path, link) for path, link in found if isinstance(link, h5py.ExternalLink))
    found.clear()
    opened.visititems(lambda path, item: found.append((path, item)))
    yield from found
