"""Reads blocks: of an array that is stored in chunks, those that several blocks need are decoded once, as memory allows.

Neighbouring blocks read overlapping parts, and a chunk is decoded as a whole however little of it is read. The blocks that come
next are looked at beforehand: their edges, rounded to whole chunks, divide the array into regions of which a block reads all
chunks or none. Of a region that several blocks read, what those that come later need is kept.
"""

import functools
import itertools
import math
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_adjoint.blocks.interval import Box, Interval, hull, sizes, slices
from keras_adjoint.blocks.plan import Array, Block
from keras_adjoint.blocks.tasks import Task

AHEAD = 512  # blocks that are looked at beforehand
Numbers: TypeAlias = tuple[int, int]  # of a task and of a block in its plan


class Region:
    """Whole chunks that the same blocks read.

    Attributes:
        readers: By the numbers of each block that is still to read it, the part that it reads.
        kept: (the numbers that are held, where they are in the array), if any are.
        reading: Held while it is read, so that another thread does not read it as well.
    """

    def __init__(self) -> None:
        self.readers: dict[Numbers, Box] = {}
        self.kept: tuple[Array, Box] | None = None
        self.reading = threading.Lock()

    def needed(self, *parts: Box) -> Box:
        """What is still to be read, and other parts."""
        return functools.reduce(hull, [*parts, *self.readers.values()])

    def holds(self, part: Box) -> bool:
        return self.kept is not None and hull(self.kept[1], part) == self.kept[1]

    @property
    def next_reader(self) -> Numbers:
        return min(self.readers)


class Window:
    """The regions that some tasks read.

    Args:
        tasks: The tasks.
        shape: The shape of the array, without the batch axis.
        chunks: That of its chunks.
    """

    def __init__(self, tasks: Sequence[Task], shape: Sequence[int], chunks: Sequence[int]) -> None:
        edges = [{0, size} for size in shape]
        for task in tasks:
            for block in task.blocks:
                for found, cut, size, chunk in zip(edges, block.read, shape, chunks, strict=True):
                    found.update((cut.start // chunk * chunk, min(-(-cut.stop // chunk) * chunk, size)))
        self.edges = [sorted(found) for found in edges]
        self.regions: dict[Any, Region] = {}
        for task in tasks:
            for block in task.blocks:
                for key, part in self.parts(task, block):
                    self.regions.setdefault(key, Region()).readers[task.number, block.number] = part

    def parts(self, task: Task, block: Block) -> Iterator[tuple[Any, Box]]:
        """(the key of a region, the part of it that a block reads) for each of them."""
        along = [list(_divided(cut, edges)) for cut, edges in zip(block.read, self.edges, strict=True)]
        for pieces in itertools.product(*along):
            yield (task.sample, tuple(place for place, _ in pieces)), tuple(interval for _, interval in pieces)


def _divided(cut: slice, edges: Sequence[int]) -> Iterator[tuple[int, Interval]]:
    """(its number, the part in it) of every interval between edges that a slice touches."""
    for number in range(bisect_right(edges, cut.start) - 1, bisect_left(edges, cut.stop)):
        yield number, Interval(max(cut.start, edges[number]), min(cut.stop, edges[number + 1]))


class Buffers:
    """Memory that is used again: pages that are new to a process cost about as much as what is read into them."""

    def __init__(self) -> None:
        self.free: list[Array] = []
        self.lock = threading.Lock()

    def take(self, shape: Sequence[int], dtype: Any) -> Array:
        """An array of any numbers."""
        count = math.prod(shape) * np.dtype(dtype).itemsize
        with self.lock:
            fitting = next((number for number, one in enumerate(self.free) if one.size >= count), None)
            if fitting is None:
                self.free.clear()  # which later ones would be too large for as well
            owner = np.empty(count, np.uint8) if fitting is None else self.free.pop(fitting)
        return owner[:count].view(dtype).reshape(shape)

    def give(self, array: Array) -> None:
        """Take back what `take` gave, and nobody has any more."""
        assert array.base is not None  # all that `take` gives are views
        with self.lock:
            self.free.append(array.base)


class Reader:
    """Hands out tasks and reads what they need, for several threads.

    Args:
        given: The array.
        tasks: The tasks, in order.
        spare: How many bytes may be kept for tasks to come.
    """

    def __init__(self, given: Any, tasks: Iterator[Task], spare: int) -> None:
        self.given, self.tasks, self.spare = given, tasks, spare
        self.chunks = chunks_that_are_read(given) if spare > 0 else None
        self.waiting: deque[Task] = deque()
        self.windows: dict[int, Window] = {}  # by the number of each task that was handed out and has not been read yet
        self.held: dict[Region, int] = {}  # bytes
        self.buffers = Buffers()
        self.taking, self.lock = threading.Lock(), threading.Lock()

    def next(self) -> Task | None:
        """The next task, if there is one."""
        if self.chunks is None:
            with self.taking:
                return next(self.tasks, None)
        with self.taking:
            if not self.waiting:
                self._look_ahead(self.chunks)
            return self.waiting.popleft() if self.waiting else None

    def _look_ahead(self, chunks: Sequence[int]) -> None:
        blocks = 0
        for task in self.tasks:
            self.waiting.append(task)
            blocks += len(task.blocks)
            if blocks >= AHEAD:
                break
        if blocks > 1:
            axes = len(self.waiting[0].blocks[0].read)
            window = Window(self.waiting, self.given.shape[-axes:], chunks[-axes:])
            self.windows.update({task.number: window for task in self.waiting})

    def read(self, task: Task) -> Array:
        """What the blocks of a task read, as a batch, in memory that is to be given to `buffers` afterwards."""
        window = self.windows.get(task.number)
        found = self.buffers.take((len(task.blocks), *task.blocks[0].program.read), self.given.dtype)
        if window is None:
            for whole, block in zip(found, task.blocks, strict=True):
                whole[...] = self.given[(*task.sample, *block.read)]
            return found
        try:
            for whole, block in zip(found, task.blocks, strict=True):
                origin = tuple(Interval(cut.start, cut.stop) for cut in block.read)
                for key, part in window.parts(task, block):
                    whole[slices(part, origin)] = self._part(window.regions[key], task, block, part)
            return found
        finally:
            for block in task.blocks:
                self._release(window, task, block)
            self.windows.pop(task.number, None)

    def _part(self, region: Region, task: Task, block: Block, part: Box) -> Array:
        own = task.number, block.number
        with self.lock:
            is_shared = region.kept is not None or not region.readers.keys() <= {own}
        if not is_shared:
            return self._from_array(task, part)
        with region.reading:
            with self.lock:
                kept = region.kept if region.holds(part) else None
                needed = region.needed(part)
                has_room = kept is None and self._make_room(region, needed, own)
            if kept is None:
                kept = self._read(region, task, needed) if has_room else (self._from_array(task, part), part)
        array, box = kept
        return array[slices(part, box)]

    def _make_room(self, region: Region, needed: Box, own: Numbers) -> bool:
        """Whether there is room to keep a part of a region, without what is needed later than that."""
        self._drop(region)
        wanted = math.prod(sizes(needed)) * np.dtype(self.given.dtype).itemsize
        after = min((other for other in region.readers if other != own), default=None)
        while sum(self.held.values()) + wanted > self.spare:
            later = [one for one in self.held if one.kept is not None and after is not None and one.next_reader > after]
            if not later:
                return False
            self._drop(max(later, key=lambda one: one.next_reader))
        self.held[region] = wanted
        return True

    def _read(self, region: Region, task: Task, needed: Box) -> tuple[Array, Box]:
        """Read a part of a region, which is kept."""
        try:
            kept = self._from_array(task, needed), needed
        except BaseException:
            with self.lock:
                self._drop(region)
            raise
        with self.lock:
            region.kept = kept
        return kept

    def _from_array(self, task: Task, part: Box) -> Array:
        return np.asarray(self.given[(*task.sample, *slices(part))])

    def _drop(self, region: Region) -> None:
        region.kept = None
        self.held.pop(region, None)

    def _release(self, window: Window, task: Task, block: Block) -> None:
        """A block has been read: what no other needs is not kept any more."""
        with self.lock:
            for key, _ in window.parts(task, block):
                region = window.regions[key]
                region.readers.pop((task.number, block.number), None)
                if not region.readers:
                    self._drop(region)
                elif region.kept is not None:
                    needed = region.needed()
                    if 2 * math.prod(sizes(needed)) <= region.kept[0].size and region.holds(needed):
                        array, box = region.kept
                        region.kept = array[slices(needed, box)].copy(), needed
                        self.held[region] = region.kept[0].nbytes


def chunks_that_are_read(given: Any) -> tuple[int, ...] | None:
    """The shape of what is decoded at once of an array; `None` where every number is read by itself."""
    found = getattr(given, "chunks", None)
    whole = isinstance(found, tuple) and len(found) == len(given.shape) and all(isinstance(one, int) for one in found)
    return found if whole else None


def joined(parts: list[Any]) -> Array:
    """Parts of one shape as a batch, in one piece; a single one is copied only where it is part of another array."""
    if len(parts) > 1:
        return np.stack(parts)
    one = np.asarray(parts[0])
    return (one if one.flags.owndata and one.flags.c_contiguous else one.copy())[np.newaxis]
