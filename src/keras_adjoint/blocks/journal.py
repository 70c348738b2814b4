"""The journal beside a target: what is being applied, and which blocks are finished.

Each has checksums of what it read and wrote. A line is added when a block has been written; a line that a killed process left
unfinished does not count.
"""

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_adjoint.atomic_write import atomic_write, status
from keras_adjoint.blocks.plan import Plan
from keras_adjoint.errors import KerasAdjointError, in_short

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
WORDS = {
    "plan": "another plan: other blocks, another size or other layers",
    "weights": "other weights",
    "input": "an input of another shape or dtype",
    "target": "a target of another shape, dtype or chunks",
    "backend": "another backend, or another version of it, which rounds otherwise",
}


class Journal:
    """The finished blocks of one application of a plan.

    Args:
        file: Where it is; `None` for one that is kept in memory.
        header: What is applied, to what.
        resume: Whether to go on where a journal is there.

    Attributes:
        finished: (checksum of what was read, of what was written) by the number of each finished task.

    Raises:
        KerasAdjointError: If there is a journal of something else.
    """

    def __init__(self, file: Path | None, header: Mapping[str, Any], *, resume: bool) -> None:
        self.file, self.header = file, dict(header)
        self.finished: dict[int, tuple[int, int]] = {}
        self.lock = threading.Lock()
        self.descriptor: int | None = None
        if file is None:
            return
        try:
            status(file)  # raises, if it is a link, or a named pipe, which would be waited for
            self._open(file, resume=resume)
        except OSError as error:
            raise KerasAdjointError(
                f"Finished blocks are noted in a journal beside the target, which cannot be written: {in_short(error)}. "
                f"Make room or the folder writable, or write to a target in another one. Nothing has been written. "
                f"Received: journal {file}"
            ) from error

    def _open(self, file: Path, *, resume: bool) -> None:
        if resume and file.exists():
            self._read(file)
        else:
            with self._locked(file) if file.exists() else nullcontext(), atomic_write(file) as beside:
                beside.write_text(json.dumps(self.header) + "\n", encoding="utf-8")
        self.descriptor = os.open(file, APPEND)
        lock(self.descriptor, file)
        if not file.read_bytes().endswith(b"\n"):
            os.write(self.descriptor, b"\n")  # which ends what a killed process left

    def _read(self, file: Path) -> None:
        first, *lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        try:
            header = json.loads(first)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise KerasAdjointError(
                f"{file} does not say of what the target holds blocks, as its beginning is damaged. Write to another target, "
                f"or pass `resume=False` to begin anew in this one. Received: journal {file}"
            )
        wrong = [words for key, words in WORDS.items() if header.get(key) != self.header[key]]
        if wrong:
            raise KerasAdjointError(
                f"{file} says that the target holds blocks of something else: {'; '.join(wrong)}. Write to another target, or "
                f"pass `resume=False` to begin anew in this one. Received: journal {file}"
            )
        for line in lines:
            try:
                number, read, written = json.loads(line)
                self.finished[int(number)] = int(read), int(written)
            except (ValueError, TypeError):
                continue  # unfinished

    @contextmanager
    def _locked(self, file: Path) -> Iterator[None]:
        """Inside, no other process has the journal that is there."""
        descriptor = os.open(file, APPEND)
        try:
            lock(descriptor, file)
            yield
        finally:
            os.close(descriptor)

    def note(self, task: int, read: int, written: int) -> None:
        """A task is finished."""
        with self.lock:
            self.finished[task] = read, written
            if self.descriptor is not None:
                os.write(self.descriptor, f"{json.dumps([task, read, written])}\n".encode())

    def close(self, *, done: bool) -> None:
        """Let it lie where something is left to do; take it away where nothing is."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        if done and self.file is not None:
            self.file.unlink(missing_ok=True)


def lock(descriptor: int, file: Path) -> None:
    """Claim a journal for this process, as long as it runs.

    Raises:
        KerasAdjointError: If another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise KerasAdjointError(
            f"Another process is writing blocks to this target. Wait until it has ended. Received: journal {file}"
        ) from error


def checksum(array: Any) -> int:
    """Of the numbers of an array, to the bit."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def header_of(plan: Plan, given: Any, target: Any, chunks: Any) -> dict[str, Any]:
    """What tells one application of a plan from another."""
    return {
        "format": FORMAT,
        "backend": f"{keras.backend.backend()}, Keras {keras.__version__}",
        "plan": _hash(json.dumps(_described(plan), sort_keys=True).encode()),
        "weights": _hash(*(_bytes(variable) for variable in plan.graph.variables)),
        "input": [list(given.shape), str(given.dtype)],
        "target": [list(target.shape), str(target.dtype), chunks and list(chunks)],
    }


def _bytes(value: Any) -> bytes:
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
    return f"{array.dtype} {array.shape}".encode() + array.tobytes()


def _hash(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def _described(plan: Plan) -> dict[str, Any]:
    calls = []
    for call in plan.graph.calls:
        operation = call.operation
        is_layer = isinstance(operation, keras.layers.Layer)
        config = operation.get_config() if is_layer else {k: v for k, v in vars(operation).items() if k[0] != "_"}
        constants = [_hash(_bytes(one)) for one in call.constants if hasattr(one, "shape")]
        plain = [one for one in call.constants if isinstance(one, (bool, int, float, str))]
        reads = [plan.graph.numbers[id(x)] for x in call.inputs]
        calls.append([type(operation).__name__, reads, list(call.out_shape), constants, plain, _plain(config)])
    return {
        "shapes": [list(plan.in_shape), list(plan.out_shape), str(plan.graph.given.dtype), plan.dtype],
        "blocks": [list(plan.block), plan.batch],
        "calls": calls,
    }


def _plain(value: Any) -> Any:
    """What of a config is the same in every process."""
    if isinstance(value, Mapping):
        return {
            str(k): _plain(v)
            for k, v in value.items()
            if k not in ("name", "trainable", "recorded", "shared_object_id")
        }
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, bool, int, float)) or value is None else type(value).__name__
