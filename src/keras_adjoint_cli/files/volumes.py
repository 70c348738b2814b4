"""Arrays that may be larger than memory: opened without being read, and made to be written block by block."""

import contextlib
import importlib
import importlib.util
import json
import math
import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_adjoint_cli.errors import Unusable, nearest
from keras_adjoint_cli.files.destination import check_place, reason_of
from keras_adjoint_cli.files.limits import PARSED, RATIO, ROOM, Limits
from keras_adjoint_cli.files.source import check_source

HDF5 = (".h5", ".hdf5")
READ, WRITTEN = (".npy", ".zarr", *HDF5), (".npy", ".zarr")
CHUNK = 2**18  # positions
PART, JOURNAL = ".part", ".journal"  # in the names of what a stopped run leaves
LONGEST_NAME = 255  # bytes
PARTS = ("zarr.json", ".zarray", ".zgroup")  # files that say what a folder of zarr's is
# What zarr's arrays may be packed by. Others, such as pickles, could run code.
CODECS = {
    *(
        "bytes",
        "transpose",
        "blosc",
        "gzip",
        "zstd",
        "crc32c",
        "sharding_indexed",
        "zlib",
        "lz4",
        "bz2",
        "lzma",
        "delta",
    ),
    *("shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype", "crc32", "adler32", "fletcher32"),
}


@dataclass(frozen=True)
class Volume:
    """An array in a file.

    Attributes:
        file: The file or folder.
        array: The array, which slices and is not read yet.
    """

    file: Path
    array: Any


# --- what is read


@contextmanager
def opened(file: Path, key: str | None, limits: Limits) -> Iterator[Volume]:
    """The array in a .npy file, or of a name in an HDF5 file or a group of zarr's, within the limits."""
    check_suffix(file, READ)
    if file.suffix == ".npy" and key is not None:
        raise Unusable(f"A .npy file has one array, which has no name. Received: --key {key}")
    with contextlib.ExitStack() as stack:
        try:
            array = OPEN[file.suffix](file, key, limits, stack)
        except Unusable:
            raise
        except Exception as error:
            raise Unusable(f"{file} cannot be read as a {file.suffix} file: {reason_of(error)}.") from error
        if array.dtype.kind not in "fiub" or not array.shape or not all(array.shape):
            raise Unusable(
                f"{file} has no real numbers to read. Received: an array of dtype {array.dtype} and shape "
                f"{tuple(array.shape)}"
            )
        check_claims(file, array, limits)
        yield Volume(file, array)


def check_claims(file: Path, array: Any, limits: Limits) -> None:
    """Raise an `Unusable` if an array claims far more numbers than its file holds, or has to be read in too large pieces."""
    if file.suffix == ".npy":  # which holds what it claims, and is read number by number
        return
    size = array.dtype.itemsize
    stored = file.stat().st_size if file.is_file() else sum(one.stat().st_size for one in members_of(file))
    allowed = limits.memory if "memory" in limits.given else max(ROOM, RATIO * stored)
    limits.check_memory(file, size * math.prod(array.shape), "its array", allowed)
    if array.chunks:
        limits.check_memory(file, size * math.prod(array.chunks), "one chunk of it")


def members_of(folder: Path) -> Iterator[Path]:
    """The files in a folder of zarr's, which leads to nothing else.

    Raises:
        Unusable: If it has a link, which would make another file part of the array, or a named pipe.
    """
    for name, folders, files in os.walk(folder):
        for one in map(Path(name).joinpath, (*folders, *files)):
            mode = one.lstat().st_mode
            if stat.S_ISREG(mode):
                yield one
            elif not stat.S_ISDIR(mode):
                raise Unusable(f"{one} is no regular file, and is not read.")


def check_suffix(file: Path, suffixes: Sequence[str]) -> None:
    """Raise an `Unusable` unless arrays in files of this kind can be read or written here."""
    if file.suffix not in suffixes:
        raise Unusable(f"The array is in a file whose name ends in {', '.join(suffixes)}. Received: {file}")
    if file.suffix == ".zarr" and importlib.util.find_spec("zarr") is None:
        raise Unusable(f"For .zarr arrays install zarr: pip install zarr. Received: {file}")


def open_npy(file: Path, key: str | None, limits: Limits, stack: contextlib.ExitStack) -> Any:
    check_source(file, "an array of NumPy's")
    return np.load(file, mmap_mode="r", allow_pickle=False)


def open_hdf5(file: Path, key: str | None, limits: Limits, stack: contextlib.ExitStack) -> Any:
    import h5py

    check_source(file, "an HDF5 file")
    group = stack.enter_context(h5py.File(file, "r"))
    found: dict[str, Any] = {}
    group.visititems(lambda name, one: found.update({name: one}) if isinstance(one, h5py.Dataset) else None)
    array = chosen(file, found, key)
    if array.external or array.is_virtual:
        raise Unusable(f"{file} keeps this array in other files, which are not read. Copy it into one file.")
    return array


def open_zarr(file: Path, key: str | None, limits: Limits, stack: contextlib.ExitStack) -> Any:
    zarr = importlib.import_module("zarr")
    if not any((file / part).is_file() for part in PARTS):
        raise Unusable(f"{file} is no folder of zarr's." if file.exists() else f"There is no file {file}.")
    check_codecs(file, limits)
    node = zarr.open(store=str(file), mode="r")
    if not hasattr(node, "members"):
        return node
    return chosen(file, {name: one for name, one in node.members(max_depth=None) if hasattr(one, "chunks")}, key)


OPEN = {".npy": open_npy, ".zarr": open_zarr, **dict.fromkeys(HDF5, open_hdf5)}


def chosen(file: Path, arrays: dict[str, Any], key: str | None) -> Any:
    """The array of a name; without a name the only one."""
    if key is None and len(arrays) != 1:
        raise Unusable(
            f"{file} has {len(arrays)} arrays; name one of them with --key: {nearest('', arrays)}."
            if arrays
            else f"{file} has no arrays."
        )
    if key is not None and key not in arrays:
        raise Unusable(f"{file} has no array of this name, but {nearest(key, arrays)}. Received: --key {key}")
    return arrays[key or next(iter(arrays))]


def check_codecs(folder: Path, limits: Limits) -> None:
    """Raise an `Unusable` if an array is packed by something else than the usual codecs."""
    for file in sorted(members_of(folder)):
        if file.name in ("zarr.json", ".zarray"):
            limits.check_memory(file, PARSED * file.stat().st_size, "what it describes", ROOM)
            unknown = sorted(set(codecs_in(json.loads(file.read_text(encoding="utf-8")))) - CODECS)
            if unknown:
                raise Unusable(f"{folder} is packed by codecs that are not used here: {', '.join(unknown)}.")


def codecs_in(value: Any) -> Iterator[str]:
    """The names of all codecs in the description of an array, or of a group that has a copy of all descriptions."""
    if isinstance(value, list):
        for one in value:
            yield from codecs_in(one)
    if not isinstance(value, dict):
        return
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        for codec in value[key] if isinstance(value.get(key), list) else [value.get(key)]:
            if isinstance(codec, dict):
                yield str(codec.get("name", codec.get("id"))).removeprefix("numcodecs.").lower()
                yield from codecs_in(codec.get("configuration", {}))
    consolidated = (value.get("consolidated_metadata") or {}).get("metadata", {})
    yield from codecs_in(list(consolidated.values()))


# --- what is written


class Target:
    """An array that is written under another name first, so that the name of the output stands for the whole result.

    Args:
        file: The output.
        inputs: Files that are read, which are never overwritten.
        force: Whether an output that is there, or what a stopped run has left, is replaced.
        resume: Whether to go on with what a stopped run has left.
    """

    def __init__(self, file: Path, inputs: Sequence[Path], *, force: bool, resume: bool) -> None:
        check_suffix(file, WRITTEN)
        self.file = file
        self.beside = file.with_name(f"{stem_that_fits(file)}{PART}{file.suffix}")
        self.journal = file.with_name(f"{self.beside.name}{JOURNAL}")
        place = file if file.suffix != ".zarr" or not file.is_dir() else file.with_suffix(".zarr.json")
        try:
            check_place(place, inputs, force)
        except OSError as error:
            raise Unusable(f"{file} cannot be written: {reason_of(error)}.") from error
        for other in inputs:
            check_apart(file, self.beside, other)
        if file.is_symlink():
            raise Unusable(f"{file} is a link, which is neither followed nor replaced. Name another file.")
        if file.is_dir() and not any((file / part).is_file() for part in PARTS):
            raise Unusable(f"{file} is a folder, and none of zarr's, and is not overwritten. Name another file.")
        if file.exists() and not force:
            raise Unusable(f"{file} exists already. Name another file, or pass --force to overwrite it.")
        for left in (self.beside, self.journal):
            check_left(left, folder=left.suffix == ".zarr")
        self.resumes = resume and self.beside.exists() and self.journal.exists()
        if self.beside.exists() and not (resume or force):
            raise Unusable(
                f"{self.beside} is what a stopped run has left. Pass --resume to go on with it, or --force to begin anew."
            )

    @contextmanager
    def making(self, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Iterator[Any]:
        """Give the array to write to; it gets the name of the output if all goes well, and stays if blocks are finished."""
        try:
            with unwritten(self.file):
                array = self._make(shape, dtype, chunks)
            yield array
        except BaseException:
            if not self.journal.exists():
                remove(self.beside)
            raise
        if self.file.is_dir():
            remove(self.file)
        self.beside.replace(self.file)

    def _make(self, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Any:
        """The array: what a stopped run has left, or a new one."""
        if not self.resumes:
            remove(self.beside)
            self._claim()
        if self.file.suffix == ".npy":
            mode: Any = "r+" if self.resumes else "w+"
            array = np.lib.format.open_memmap(self.beside, mode, dtype, None if self.resumes else shape)
        else:
            zarr = importlib.import_module("zarr")
            array = (
                zarr.open_array(store=str(self.beside), mode="r+")
                if self.resumes
                else zarr.create_array(store=str(self.beside), shape=shape, chunks=chunks, dtype=dtype)
            )
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise Unusable(
                f"{self.beside} has been left by another run: its shape is {tuple(array.shape)}, and what is made has "
                f"{shape}. Pass --force to begin anew."
            )
        return array

    def _claim(self) -> None:
        """Make the file or folder to write to, which nothing may be at, with the mode of what is replaced."""
        old = self.file.stat() if self.file.exists() else None
        if self.file.suffix == ".zarr":
            self.beside.mkdir()
        else:
            os.close(os.open(self.beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if old is not None:
            self.beside.chmod(stat.S_IMODE(old.st_mode))


def stem_that_fits(file: Path) -> str:
    """The name of an output without its ending, cut so that the names of what a stopped run leaves are not too long."""
    most = LONGEST_NAME - len(f"{PART}{file.suffix}{JOURNAL}")
    if len(os.fsencode(file.stem)) <= most:
        return file.stem
    mark = f"{zlib.crc32(os.fsencode(file.stem)):08x}"
    return os.fsencode(file.stem)[: most - len(mark)].decode(errors="ignore") + mark


def check_apart(file: Path, beside: Path, other: Path) -> None:
    """Raise an `Unusable` if writing an output, under another name first, would change or remove an input."""
    read, written, first = other.resolve(), file.resolve(), beside.resolve()
    if read == written:
        raise Unusable(f"{file} is the input, which is never overwritten. Name another file.")
    if written in read.parents:
        raise Unusable(f"{other} is in {file}, and inputs are never overwritten. Name another output.")
    if read in written.parents:
        raise Unusable(f"{file} is in {other}, and inputs are never changed. Name an output elsewhere.")
    if first == read or first in read.parents:
        raise Unusable(
            f"{other} is read, and {beside} is the name under which {file} is written first. Name another output."
        )


def check_left(left: Path, *, folder: bool) -> None:
    """Raise an `Unusable` unless nothing is at a path, or what a stopped run of the same user may have left there."""
    try:
        found = left.lstat()
    except FileNotFoundError:
        return
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode) or found.st_nlink > 1 and not folder:
        kind = "a link" if left.is_symlink() or found.st_nlink > 1 else "something else"
        raise Unusable(f"{left} is {kind}, and not what a stopped run has left. Name another output, or remove it.")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise Unusable(f"{left} belongs to another user. Name another output.")


@contextmanager
def unwritten(file: Path) -> Iterator[None]:
    """Have errors of the system name the output, and say why it cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unusable(f"{file} cannot be written: {reason_of(error)}.") from error


def remove(file: Path) -> None:
    """Remove an array."""
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


def chunks_for(shape: tuple[int, ...], axes: Sequence[int], block: Sequence[int] | None) -> tuple[int, ...]:
    """The chunks of a new array: cubes of about `CHUNK` positions, so many of which are a block."""
    edge = round(CHUNK ** (1 / max(1, len(axes))))
    found = list(shape)
    for number, axis in enumerate(axes):
        size = shape[axis]
        if block is None or block[number] >= size:
            found[axis] = min(size, edge)
        else:
            divisor = max(one for one in range(1, min(block[number], edge) + 1) if block[number] % one == 0)
            found[axis] = divisor if 4 * divisor > min(block[number], edge) else block[number]
    return tuple(found)
