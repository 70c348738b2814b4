"""Files of arrays: .npy, .npz, .safetensors, and state dicts of PyTorch, read and written with every dtype kept."""

import importlib.util
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.destination import written
from keras_adjoint_cli.files.limits import Limits, unpacked_size
from keras_adjoint_cli.files.source import check_source, warnings_of_success

Place: TypeAlias = tuple[Any, ...]  # the keys that lead to a value
Notes: TypeAlias = dict[str, str] | None

TORCH = (".pt", ".pth", ".bin")
SUFFIXES = (".npy", ".npz", ".safetensors", *TORCH)
SMALLEST = 8  # bytes of a value with its key in a pickle, at least
NEEDS = {".safetensors": "safetensors", **dict.fromkeys(TORCH, "torch")}  # packages, which pip calls so too


@dataclass
class Contents:
    """What is in a file.

    Attributes:
        values: Arrays or tensors, and whatever else a state dict holds, by their path: the keys that lead to them.
        notes: The text that a .safetensors file has beside its arrays.
    """

    values: dict[Place, Any]
    notes: Notes = field(default=None)


def name_of(path: Place) -> str:
    """The name that a user knows a value by."""
    return ".".join(map(str, path)) or "array"


def is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def check_suffix(file: Path) -> None:
    """Raise an `Unusable` unless files of that kind can be read and written here."""
    if file.suffix not in SUFFIXES:
        raise Unusable(f"Arrays are kept in files that end in {', '.join(SUFFIXES)}. Received: {file}")
    package = NEEDS.get(file.suffix)
    if package and importlib.util.find_spec(package) is None:
        raise Unusable(f"For {file.suffix} files install {package}: pip install {package}. Received: {file}")


def read(file: Path, limits: Limits) -> Contents:
    """The `Contents` of a file, or an `Unusable` that says what is wrong with it."""
    check_suffix(file)
    size = check_source(file, "a file of arrays")
    if zipfile.is_zipfile(file):  # .npz, and PyTorch's
        with zipfile.ZipFile(file) as archive:
            limits.check_memory(file, unpacked_size(archive), "what is packed into it", limits.memory_for(size))
    limits.check_memory(file, size, "what is in it")
    try:
        with warnings_of_success():
            contents = READ.get(file.suffix, read_torch)(file)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"{file} cannot be read as a {file.suffix} file: {reason_of(error)}") from error
    claimed = sum(value.nbytes for value in contents.values.values() if is_array(value))  # PyTorch's may overlap
    limits.check_memory(file, claimed, "its arrays", limits.memory_for(size))
    return contents


def reason_of(error: Exception) -> str:
    """What is wrong with a file, without the advice of other libraries to load it unsafely."""
    text = str(error)
    if "Unsupported" in text or "GLOBAL" in text:
        return "it holds more than arrays, such as a whole module, which is not loaded because it could run code."
    if "allow_pickle" in text:
        return "it is no such file, or holds Python objects, which are not loaded because they could run code."
    if isinstance(error, (EOFError, LookupError, pickle.UnpicklingError, UnicodeDecodeError)):
        return "it is no such file, or only a part of one."
    return text.strip().partition("\n")[0] or type(error).__name__


def read_numpy(file: Path) -> Contents:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Contents({(): loaded})
    with loaded:
        members = loaded.zip.namelist()
        twice = sorted({member for member in members if members.count(member) > 1})
        if twice:
            raise Unusable(f"{file} holds more than one array of the name {twice[0].removesuffix('.npy')}.")
        # By the names in the archive: of the arrays a and a.npy, NumPy would give the first for either.
        return Contents({(member.removesuffix(".npy"),): loaded[member] for member in members})


def read_safetensors(file: Path) -> Contents:
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return Contents({(name,): opened.get_tensor(name) for name in opened.keys()}, opened.metadata())  # noqa: SIM118


def read_torch(file: Path) -> Contents:
    from keras_adjoint_cli.files import torch_files

    values: dict[Place, Any] = {}
    most = file.stat().st_size // SMALLEST
    for path, value in leaves(torch_files.load(file)):
        reason = torch_files.why_no_array(value) if torch_files.is_tensor(value) else ""
        if reason:
            raise Unusable(f"{file} cannot be read: {name_of(path)} is {reason}.")
        values[path] = value
        if len(values) > most:
            raise Unusable(
                f"{file} cannot be read: its dictionaries hold one another, so that it has values without end."
            )
    return Contents(values)


def leaves(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """(path, value) of whatever is no dictionary; a dictionary without entries counts as a value."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for key, inner in value.items():
        yield from leaves(inner, (*path, key))


def write(contents: Contents, file: Path) -> list[str]:
    """Write contents in the format that a file's name says, beside it first.

    Returns:
        Names of values that are no arrays, which only PyTorch's files can hold, and which are left out of others.
    """
    check_suffix(file)
    arrays = {path: value for path, value in contents.values.items() if is_array(value)}
    with written(file) as beside:
        if file.suffix in TORCH:
            write_torch(contents, beside)
            return []
        by_name = {name_of(path): to_numpy(value) for path, value in arrays.items()}
        if len(by_name) < len(arrays):
            raise Unusable(f"Two arrays would have the same name in {file}. Write a .pt file, which keeps them apart.")
        WRITE[file.suffix](by_name, contents.notes, beside)
    return [name_of(path) for path in contents.values if path not in arrays]


def write_npy(arrays: dict[str, np.ndarray], notes: Notes, file: Path) -> None:
    if len(arrays) != 1:
        raise Unusable(f"A .npy file holds one array, and there are {len(arrays)}. Write an .npz file.")
    np.save(file, storable(arrays)[0][1], allow_pickle=False)


def write_npz(arrays: dict[str, np.ndarray], notes: Notes, file: Path) -> None:
    """As `np.savez` does, which does not take every name."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in storable(arrays):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def storable(arrays: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """(name, array) of arrays whose dtype NumPy's own files can store."""
    for name, array in arrays.items():
        if array.dtype.type.__module__ != "numpy":
            raise Unusable(
                f"NumPy's files do not store the dtype {array.dtype} of {name}. Write a .safetensors or .pt file."
            )
    return list(arrays.items())


def write_safetensors(arrays: dict[str, np.ndarray], notes: Notes, file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    in_order = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    try:
        save_file(in_order, file, metadata=notes)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def write_torch(contents: Contents, file: Path) -> None:
    """Dictionaries in dictionaries, as they were read."""
    from keras_adjoint_cli.files import torch_files

    values = {
        path: torch_files.from_numpy(value) if isinstance(value, np.ndarray) else value
        for path, value in contents.values.items()
    }
    nested: dict[Any, Any] = {}
    for path, value in values.items():
        place = nested
        for key in path[:-1]:
            place = place.setdefault(key, {})
        if path:
            place[path[-1]] = value
    torch_files.save(values.get((), nested), file)  # one tensor alone has no key


def to_numpy(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    from keras_adjoint_cli.files import torch_files

    return torch_files.to_numpy(value)


READ = {".npy": read_numpy, ".npz": read_numpy, ".safetensors": read_safetensors}
WRITE = {".npy": write_npy, ".npz": write_npz, ".safetensors": write_safetensors}
