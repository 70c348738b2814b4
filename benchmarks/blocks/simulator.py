"""What a plan reads, holds and takes, from its own numbers, with so many workers.

Along each axis the intervals that blocks read and write are those of the plan. What a block costs is linear in the numbers that
it reads and makes, at rates that are measured on some blocks. Every worker takes the next block as soon as it is free, and a
scheduler hands blocks out one after the other.
"""

import heapq
import itertools
import math
from dataclasses import dataclass

from keras_adjoint.blocks.interval import Interval


@dataclass(frozen=True)
class Profile:
    """What the blocks of a plan read and make.

    Attributes:
        reads: For every axis along which the result is cut, the positions of the input that each of its intervals reads.
        makes: The sizes of these intervals.
        other_read: The numbers that are read at each position.
        other_made: The numbers that are made at each position.
    """

    reads: tuple[tuple[int, ...], ...]
    makes: tuple[tuple[int, ...], ...]
    other_read: int
    other_made: int

    @property
    def blocks(self):
        return math.prod(map(len, self.makes))

    @property
    def numbers_read(self):
        """All numbers that are read: an interval along one axis does not depend on the others, so the sum is a product."""
        return self.other_read * math.prod(map(sum, self.reads))

    @property
    def numbers_made(self):
        return self.other_made * math.prod(map(sum, self.makes))

    def along_axes(self):
        """(positions that are read, positions that are made) of every interval, axis by axis."""
        return [list(zip(*axis, strict=True)) for axis in zip(self.reads, self.makes, strict=True)]

    def size(self, block):
        """(numbers that are read, numbers that are made) of a block, given by its intervals."""
        read, made = (math.prod(each) for each in zip(*block, strict=True))
        return self.other_read * read, self.other_made * made

    def sizes(self):
        """The same of every block, in order."""
        return map(self.size, itertools.product(*self.along_axes()))


def profile_of(plan):
    """The profile of a plan: its intervals along each axis, in the middle of the others."""
    middle = [Interval(*plan[len(plan) // 2].write[axis].indices(size)[:2]) for axis, size in enumerate(plan.out_shape)]
    reads, makes = [], []
    space = sorted(plan.graph.spaces[-1])
    for axis, size, count in zip(plan.axes, plan.block, plan.grid, strict=True):
        made = [Interval(at * size, min((at + 1) * size, plan.out_shape[axis])) for at in range(count)]
        boxes = [(*middle[:axis], one, *middle[axis + 1 :]) for one in made]
        reads.append(tuple(plan.graph.program(box)[0][space[plan.axes.index(axis)]].size for box in boxes))
        makes.append(tuple(one.size for one in made))
    others = [math.prod(n for a, n in enumerate(shape) if a not in cut) for shape, cut in _cut(plan, space)]
    return Profile(tuple(reads), tuple(makes), *others)


def _cut(plan, space):
    return (plan.in_shape, space), (plan.out_shape, plan.axes)


@dataclass(frozen=True)
class Rates:
    """Seconds that a worker takes for a block: `fixed` + `read` for every number that it reads + `made` for every one made.

    Attributes:
        fixed: Seconds beside reading, computing and writing, also those between a block and the next one.
        dispatch: Seconds of the scheduler for every block, of which it handles one at a time.
    """

    fixed: float
    read: float
    made: float
    dispatch: float = 0.0


def rates_of(samples, between, dispatch):
    """The rates of some blocks of which is known what they read and made, and how long each part of that took.

    Args:
        samples: (numbers read, numbers made, seconds beside, seconds of reading, seconds of computing and writing) of each.
        between: Seconds from a block of a worker to its next one.
        dispatch: Seconds of the scheduler for a block.
    """
    read, made, beside, reading, making = map(sum, zip(*samples, strict=True))
    return Rates(beside / len(samples) + between, reading / read, making / made, dispatch)


def simulate(profile, rates, workers, bandwidth=math.inf):
    """Seconds until the last block is finished.

    Args:
        profile: What the blocks read and make.
        rates: What a worker takes for that.
        workers: How many there are.
        bandwidth: The bytes of float32 that the storage gives and takes in a second, for all workers together.
    """
    free = [0.0] * min(workers, profile.blocks)
    handed = stored = last = 0.0
    costs = {}
    for block in itertools.product(*map(set, profile.along_axes())):  # of all blocks few differ
        read, made = profile.size(block)
        costs[block] = rates.fixed + rates.read * read + rates.made * made, 4 * (read + made) / bandwidth
    for block in itertools.product(*profile.along_axes()):
        seconds, of_storage = costs[block]
        handed += rates.dispatch
        begin = max(free[0], handed)
        stored = max(stored, begin) + of_storage  # which serves one after the other
        end = max(begin + seconds, stored)
        last = max(last, end)
        heapq.heapreplace(free, end)
    return last
