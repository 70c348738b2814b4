"""`apply_blocks`: read, compute and write blocks at the same time, in bounded memory, and go on where a process was killed."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_adjoint.blocks.journal import Journal, checksum, header_of
from keras_adjoint.blocks.memory import bytes_of, give_back
from keras_adjoint.blocks.numbers import check_real, is_of_numpy
from keras_adjoint.blocks.plan import Plan, needed_bytes, planned
from keras_adjoint.blocks.program import SizedGraph
from keras_adjoint.blocks.progress import Bar
from keras_adjoint.blocks.reader import Reader, joined
from keras_adjoint.blocks.sources import sized_graph_of
from keras_adjoint.blocks.targets import (
    allocate,
    check_chunks,
    check_target,
    chunks_of,
    flush,
    is_full,
    journal_of,
    multiples_of,
)
from keras_adjoint.blocks.tasks import Task, tasks_of
from keras_adjoint.errors import KerasAdjointError, SizeError, in_short
from keras_adjoint.layers.options import as_integer, boolean
from keras_adjoint.operators.asked_size import OF_AN_ARRAY
from keras_adjoint.ops.backend import untraced

ATTEMPTS = 2
MOST_FAILURES = 16  # after which nothing more is tried


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        blocks: How many blocks the result has, over all samples.
        computed: How many of these were computed now; the others were there already.
        seconds: How long it took.
        plan: The plan.
    """

    blocks: int
    computed: int
    seconds: float
    plan: Plan = field(repr=False)


@untraced
def apply_blocks(
    op: Any,
    input: Any,
    out: Any,
    *,
    block: int | Sequence[int] | None = None,
    memory: int | str | None = None,
    workers: int = 1,
    progress: bool | Callable[[int, int], None] = False,
    resume: bool = True,
) -> Applied:
    """Apply an operator, layer or model to an array block by block, and write the result to another one.

    Blocks that are alike are computed together, while others are read and written. Finished blocks are noted in a journal
    beside the target if that is in a file: a memory map, an array of zarr, an HDF5 dataset without chunks. If the process is
    killed, the same call goes on where it was, and the result is the same to the bit; in the end the journal is removed.

    Args:
        op: An `Operator`, layer or model, or a plan of `plan_blocks`.
        input: Anything that has a shape and slices like a NumPy array, with or without a batch axis in front.
        out: Where the result is written to, likewise, of the shape of the result.
        block: The size of blocks, see `plan_blocks`. By default the largest that `memory` allows, in whole chunks of `out`.
        memory: How many bytes may be held at once, as a number or like "2GB"; by default 1 GiB.
        workers: How many batches of blocks are computed at once.
        progress: Whether to show a bar with the time that is left, or a function of (blocks that are done, all blocks).
        resume: Whether to go on where a journal is there. With `False` everything is computed anew.

    Returns:
        An `Applied`: how many blocks there are, and how many of them were computed now.

    Raises:
        KerasAdjointError: If blocks fail twice, which it names, or the target holds blocks of something else. What is finished
            stays, and the same call computes what is missing.
        NoRuleError: If a layer depends on the whole array, or nothing is known of its blocks.
        SizeError: If shapes do not fit, two blocks would be in one chunk, or `memory` is too small.
        ValueError: If the target is in the memory or the file of the input, or keeps no fractions of numbers that have some.

    Example:

    >>> conv = keras.layers.Conv1D(2, 3, padding="same")
    >>> conv.build((None, None, 4))
    >>> signal, result = np.ones((1000, 4), "float32"), np.zeros((1000, 2), "float32")
    >>> done = ka.apply_blocks(conv, signal, result, block=100)
    >>> done.blocks, done.computed
    (10, 10)
    >>> bool(np.allclose(result, keras.ops.convert_to_numpy(conv(signal[None]))[0], atol=1e-6))
    True
    """
    workers = _positive("workers", workers)
    resume = boolean("resume", resume)
    plan, has_batch = _plan_for(op, input, out, block, memory, workers)
    check_target(input, out, plan.dtype)
    try:
        allocate(out)
    except OSError as error:
        raise KerasAdjointError(
            f"There is no room for `out`: {in_short(error)}. Make room, and start it again; nothing has been written. "
            f"Received: out.shape={tuple(out.shape)} of {out.dtype}"
        ) from error
    start = time.monotonic()
    header = header_of(plan, input, out, chunks_of(out))
    total = len(plan) * (input.shape[0] if has_batch else 1)
    tasks = tasks_of(plan, input.shape[0] if has_batch else None)
    reader = Reader(input, tasks, bytes_of(memory) - needed_bytes(plan, workers))
    bar = Bar(total, progress)
    journal = Journal(journal_of(out), header, resume=resume)  # the last, as it is claimed until it is closed
    run = Run(plan, reader, out, journal, bar)
    try:
        run.all(workers)
    finally:
        journal.close(done=run.is_complete)
    return Applied(total, run.computed, time.monotonic() - start, plan)


def _plan_for(op: Any, given: Any, target: Any, block: Any, memory: Any, workers: int) -> tuple[Plan, bool]:
    """(the plan, whether arrays have a batch axis)."""
    for name, array in (("input", given), ("out", target)):
        if not hasattr(array, "shape") or not hasattr(array, "dtype") or not hasattr(array, "__getitem__"):
            raise ValueError(
                f"`{name}` has a shape and a dtype and slices like a NumPy array. "
                f"Received: {name} of type {type(array).__name__}"
            )
        if isinstance(array, np.ma.MaskedArray):
            raise ValueError(
                f"`{name}` is an array with a number in every place, as `array.filled(0)` makes one of a masked array. "
                f"Received: {name} of type {type(array).__name__}"
            )
        if isinstance(array, keras.Variable) or not is_of_numpy(array.dtype):
            raise ValueError(
                f"`{name}` is an array of NumPy, or slices to such arrays. `keras.ops.convert_to_numpy` makes one of a "
                f"tensor. Received: {name} of type {type(array).__name__} and dtype {array.dtype}"
            )
    check_real("`input`", given)
    shape = tuple(given.shape)
    if isinstance(op, Plan):
        if block is not None:
            raise ValueError(f"A plan has its blocks already. Received: block={block!r}, {op!r}")
        graph, has_batch = op.graph, len(shape) == len(op.in_shape) + 1
    else:
        graph, has_batch = sized_graph_for(op, shape)
    wanted = tuple(shape[:1] if has_batch else ()) + graph.out_shape
    if shape[has_batch:] != graph.in_shape or tuple(target.shape) != wanted:
        raise SizeError(
            f"From an array of shape {shape}, {tuple(wanted)} is made. Received: out.shape={tuple(target.shape)}"
            if shape[has_batch:] == graph.in_shape
            else f"The plan reads arrays of shape {graph.in_shape}. Received: input.shape={shape}"
        )
    sizes = [graph.out_shape[axis] for axis in graph.out_space]
    multiples = multiples_of(target, graph.out_space, has_batch=has_batch)
    plan = op if isinstance(op, Plan) else planned(op, graph, block, bytes_of(memory), multiples, workers)
    check_chunks(target, plan.block, sizes, multiples)
    return plan, has_batch


def sized_graph_for(op: Any, shape: tuple[int, ...]) -> tuple[SizedGraph, bool]:
    """(the calls at the size of an array, whether its first axis is that of the batch)."""
    try:
        return _sized_graph_of(op, shape), False
    except SizeError as error:
        try:
            return _sized_graph_of(op, shape[1:]), True
        except (SizeError, ValueError):
            raise error from None


def _sized_graph_of(op: Any, shape: tuple[int, ...]) -> SizedGraph:
    """The calls for a whole shape, which may not be taken for spatial sizes alone."""
    graph = sized_graph_of(op, shape, option=OF_AN_ARRAY)
    if graph.in_shape != shape:
        raise SizeError(f"What is applied takes arrays of shape {graph.in_shape}. Received: an array of shape {shape}")
    return graph


class Run:
    """The application of a plan."""

    def __init__(self, plan: Plan, reader: Reader, target: Any, journal: Journal, bar: Bar) -> None:
        self.plan, self.reader, self.target, self.journal, self.bar = plan, reader, target, journal, bar
        self.computed = 0
        self.failures: list[str] = []
        self.error: BaseException | None = None
        self.is_complete = False
        self.stop, self.counting = threading.Event(), threading.Lock()

    def all(self, workers: int) -> None:
        """Do all tasks, each by one thread. One more than the workers reads and writes while those compute."""
        self.computing = threading.Semaphore(workers)

        def work() -> None:
            try:
                while not self.stop.is_set():
                    task = self.reader.next()
                    if task is None:
                        return
                    computed = self.attempt(task)
                    give_back()
                    if computed is not None:
                        self.bar.advance(
                            len(task.blocks), computed=computed
                        )  # which may be a user's function, and fail
            except BaseException:
                self.stop.set()  # for the other threads
                raise

        with ThreadPoolExecutor(workers + 1, "blocks") as pool, self.bar:
            futures = [pool.submit(work) for _ in range(workers + 1)]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stop.set()
                raise
        self.report()

    def attempt(self, task: Task) -> bool | None:
        """Do a task, a second time if it fails, and note it where it fails again: whether it was computed, or `None`."""
        for attempt in range(ATTEMPTS):
            try:
                return self.do(task)
            except Exception as error:
                hopeless = isinstance(error, InputChanged) or is_full(error)
                if attempt + 1 == ATTEMPTS or hopeless:
                    with self.counting:
                        self.error = error if hopeless or self.error is None else self.error
                        self.failures.append(task.names())
                        if hopeless or len(self.failures) >= MOST_FAILURES:
                            self.stop.set()
                    break
        return None

    def do(self, task: Task) -> bool | None:
        """Read, compute, write and note, unless that was done before: whether it was now, `None` if it is too late."""
        parts = self.reader.read(task)
        has_journal = self.journal.file is not None
        read, noted = checksum(parts) if has_journal else 0, self.journal.finished.get(task.number)
        if noted is not None and noted[0] != read:
            raise InputChanged(
                f"The input is not the one of which blocks are finished: it has changed where {task.names()} reads. Write to "
                f"another target, or pass `resume=False` to begin anew in this one. Received: journal {self.journal.file}"
            )
        if noted is None or noted[1] != self.written(task):
            with self.computing:
                if self.stop.is_set():
                    return None
                made = self.plan.compute(task.blocks[0].program, parts).astype(self.target.dtype, copy=False)
            if not np.may_share_memory(made, parts):  # as where nothing is to be computed
                self.reader.buffers.give(parts)
            del parts  # which others may have the memory of, while this is written
            for block, one in zip(task.blocks, made, strict=True):
                self.target[(*task.sample, *block.write)] = one
            flush(self.target)
            if has_journal:
                self.journal.note(task.number, read, checksum(made))
            with self.counting:
                self.computed += len(task.blocks)
            return True
        return False

    def written(self, task: Task) -> int | None:
        """The checksum of what the target holds of a task; `None` if it cannot be read, as where a chunk is damaged."""
        try:
            return checksum(joined([self.target[(*task.sample, *block.write)] for block in task.blocks]))
        except Exception:
            return None

    def report(self) -> None:
        """Raise an error that names the blocks that failed."""
        if self.error is None:
            self.is_complete = True
            return
        if isinstance(self.error, InputChanged):
            raise self.error
        count = len(self.failures)
        named = ", ".join(self.failures[:5]) + (" and others" if count > 5 else "")
        full = "Make room, and start it again: " if is_full(self.error) else ""
        raise KerasAdjointError(
            f"{count} of the batches of blocks failed{' twice' if not full else ''}, of {named}. {full or 'Of a file, '}"
            f"the same call computes what is missing; all other blocks are finished. The first error: "
            f"{type(self.error).__name__}: {in_short(self.error)}"
        ) from self.error


class InputChanged(KerasAdjointError):
    """The input of a run that is resumed is another one."""


def _positive(option: str, value: Any) -> int:
    number = as_integer(value)
    if number is None or number < 1:
        raise ValueError(f"`{option}` must be a positive integer. Received: {option}={value!r}")
    return number
