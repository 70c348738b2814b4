"""Arrays that blocks are written to: their chunks, which one worker alone may write, and where their journal is."""

import errno
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_adjoint.errors import SizeError

FULL = (errno.ENOSPC, errno.EDQUOT)
MOST_WORK: Any = 1_000_000  # to find out whether two arrays have numbers in common


def chunks_of(target: Any) -> tuple[int, ...] | None:
    """The shape of what a target stores at once, of shards where chunks are kept in such; `None` if it is one piece."""
    found = getattr(target, "shards", None) or getattr(target, "chunks", None)
    return tuple(map(int, found)) if found else None


def multiples_of(target: Any, axes: Sequence[int], *, has_batch: bool) -> list[int]:
    """What the sizes of blocks have to be multiples of along some axes, so that no two blocks are in one chunk.

    Raises:
        SizeError: If chunks hold parts of several samples.
    """
    chunks = chunks_of(target)
    if chunks is None:
        return [1] * len(axes)
    if has_batch and chunks[0] > 1 and target.shape[0] > 1:
        raise SizeError(
            f"The samples of a batch are written one by one, and chunks of the target hold several, which two workers may not "
            f"write at once. Make it with chunks of one sample. Received: chunks={chunks}"
        )
    return [chunks[axis + has_batch] for axis in axes]


def check_chunks(target: Any, block: Sequence[int], sizes: Sequence[int], multiples: Sequence[int]) -> None:
    """Raise a SizeError if two blocks may be in one chunk of a target."""
    wrong = [(b, m) for b, size, m in zip(block, sizes, multiples, strict=True) if b % m and b < size]
    if wrong:
        (one, chunk), *_ = wrong
        raise SizeError(
            f"A chunk of the target is written once, by one worker, so blocks are made of whole chunks: of {chunk} positions, "
            f"or a multiple, instead of {one}. Received: block={tuple(block)}, chunks={chunks_of(target)}"
        )


def check_target(given: Any, target: Any, dtype: str) -> None:
    """Raise a ValueError if a target cannot keep what is made, or if writing there changes what is still to be read."""
    kept = np.dtype(target.dtype)
    if "float" in dtype and kept.kind not in "fcV":
        raise ValueError(
            f"The result is of {dtype}, and `out` would not keep its fractions. Received: out.dtype={kept}"
        )
    if is_read_only(target):
        raise ValueError("`out` is written to. Received: an array that is read-only")
    if is_copied_on_write(target):
        raise ValueError(
            'What is written to a memory map of `mode="c"` never comes to its file. Open it with `mode="r+"`. Received: `out` '
            'of mode="c"'
        )
    if isinstance(target, np.ndarray) and overlaps_itself(target):
        raise ValueError(
            "`out` has positions that share memory, of which only one would be kept. Write to an array of its own. "
            f"Received: out.strides={target.strides}, out.shape={target.shape}"
        )
    if is_shared(given, target):
        raise ValueError(
            "Blocks read what is beside them as well, which may not be overwritten yet. Write to another array, or another "
            "file. Received: `out` in the memory or the file of `input`"
        )


def is_read_only(target: Any) -> bool:
    """Whether an array says that nothing can be written to it."""
    if isinstance(target, np.ndarray):
        return not target.flags.writeable
    is_read = getattr(getattr(target, "file", None), "mode", None) == "r"  # h5py
    return is_read or getattr(target, "read_only", False) is True  # zarr


def is_copied_on_write(target: Any) -> bool:
    """Whether an array is a part of a memory map that keeps what is written to it in memory."""
    return isinstance(target, np.memmap) and target.mode == "c"


def overlaps_itself(array: np.ndarray[Any, Any]) -> bool:
    """Whether two positions of an array may be in one place, as where it was made by `as_strided`."""
    if not array.size:
        return False
    reached = array.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1 and stride < reached:
            return True
        reached += (size - 1) * stride
    return False


def is_shared(a: Any, b: Any) -> bool:
    """Whether two arrays have numbers in common, in memory or in one file."""
    if a is b:
        return True
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        one, other = _in_file(a), _in_file(b)
        if one is not None and other is not None:
            return os.path.samefile(one[0], other[0]) and one[1] < other[2] and other[1] < one[2]
        try:
            return bool(np.shares_memory(a, b, max_work=MOST_WORK))
        except RuntimeError:  # too hard to say
            return True
    return not isinstance(a, np.ndarray) and place_of(a) is not None and place_of(a) == place_of(b)


def _in_file(array: np.ndarray[Any, Any]) -> tuple[Path, int, int] | None:
    """(the file, where its part begins, where it ends) of a memory map or a part of one."""
    place, base = place_of(array) if isinstance(array, np.memmap) else None, array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if place is None or not isinstance(base, mmap.mmap):
        return None
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY - _address(np.frombuffer(base, np.uint8))
    steps = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    first = begin + _address(array)
    low, high = (sum(each for each in steps if (each > 0) is up) for up in (False, True))
    return place, first + low, first + high + array.itemsize


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def place_of(target: Any) -> Path | None:
    """The file or folder of a target, where that is known: a memory map, an HDF5 file, an array of zarr on a local disk."""
    if isinstance(target, np.memmap):
        return None if target.filename is None else Path(os.fsdecode(target.filename))
    if hasattr(target, "file") and hasattr(target.file, "filename"):  # h5py
        return Path(f"{os.fsdecode(target.file.filename)}.{target.name.strip('/').replace('/', '.')}")
    root = getattr(getattr(target, "store", None), "root", None)
    return None if root is None else Path(root) / getattr(target, "path", "")


def journal_of(target: Any) -> Path | None:
    """The file beside a target in which finished blocks are noted; `None` for what does not outlive the process.

    A chunked HDF5 dataset has none: the file itself may be damaged where a process is killed while it adds chunks.
    """
    place = place_of(target)
    if place is None or (hasattr(target, "file") and chunks_of(target) is not None):
        return None
    return place.with_name(f"{place.name}.journal")


def allocate(target: Any) -> None:
    """Claim the space of a memory map, which would otherwise end the process where the disk is full.

    Raises:
        OSError: If there is no room.
    """
    place = place_of(target) if isinstance(target, np.memmap) and target.mode != "r" else None
    if place is None or not place.exists() or not hasattr(os, "posix_fallocate"):
        return
    with place.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, place.stat().st_size)
        except OSError as error:
            if is_full(error):
                raise  # others say that the file system cannot do it


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no room on the disk; HDF5's have no number."""
    return getattr(error, "errno", None) in FULL or any(os.strerror(number) in str(error) for number in FULL)


def flush(target: Any) -> None:
    """Hand what was written to the system, so that it outlives the process."""
    if hasattr(target, "file") and hasattr(target.file, "flush"):  # memory maps, and zarr's files, need nothing
        target.file.flush()
