"""How far the calls of a stream get with what has been pushed, and how that is computed, in integers that can be compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from keras import ops

from keras_adjoint.blocks.interval import Along, Box, Interval
from keras_adjoint.blocks.program import SizedGraph
from keras_adjoint.blocks.rule import Local
from keras_adjoint.ops import Tensor


class Held(NamedTuple):
    """Positions of a tensor: those before `stop` have been computed, of which those from `start` on are kept."""

    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """The next outputs of one call.

    Attributes:
        call: Its number, and that of the tensor that it gives.
        axis: The axis of positions of that tensor, in a batch.
        reads: (number of a tensor, its axis, start, stop) in what is held of it, for every input; no axis if it is read whole.
        local: How they are computed.
    """

    call: int
    axis: int
    reads: tuple[tuple[int, int, int, int], ...]
    local: Local


@dataclass(frozen=True)
class Advance:
    """What one push computes.

    Attributes:
        parts: The next outputs of every call that has some.
        kept: The tensors of which something is kept.
        dropped: How many positions of each of them are forgotten.
        last: The number of the last tensor, which is given back.
        axes: The axis of positions of every tensor that is kept.
    """

    parts: tuple[Part, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    last: int
    axes: tuple[int, ...]


class Reading(Protocol):
    """What is needed of a stream."""

    graph: SizedGraph

    def certain(self, number: int, inputs: int) -> int | None: ...

    def reads(self, number: int, graph: SizedGraph | None = None) -> list[tuple[int, Along]]: ...


def advance(
    stream: Reading, graph: SizedGraph, held: dict[int, Held], *, ended: bool
) -> tuple[Advance, dict[int, Held]]:
    """(what can be computed, what is held after that).

    Args:
        stream: How calls read.
        graph: The calls, at the true length if the signal has ended.
        held: What is held of every tensor, by its number.
        ended: Whether it has.
    """
    now, parts = dict(held), []
    axes = {tensor: next(iter(space)) + 1 for tensor, space in graph.spaces.items() if space}
    for number, call in enumerate(graph.calls):
        if number not in axes:
            continue
        begin, axis = now[number].stop, axes[number]
        size, reads = call.out_shape[axis - 1], stream.reads(number, graph)
        stop = size
        if not ended:
            certain = stream.certain(number, now[reads[0][0]].stop)
            stop = _furthest(reads, now, begin, size if certain is None else max(begin, min(size, certain)))
        if stop <= begin:
            continue
        made: list[Interval] = [Interval(0, one) for one in call.out_shape]
        made[axis - 1] = Interval(begin, stop)
        boxes = graph.rules[number].read(call.in_shapes, tuple(made))
        sources = [graph.numbers[id(x)] for x in call.inputs]
        cuts = tuple(_cut(*pair, axes, now) for pair in zip(sources, boxes, strict=True))
        parts.append(Part(number, axis, cuts, graph.rules[number].local(tuple(made), boxes)))
        now[number] = Held(now[number].start, stop)
    last = graph.numbers[id(graph.made)]
    needed: dict[int, int] = {}
    for number in filter(axes.__contains__, range(len(graph.calls))):
        for tensor, along in stream.reads(number, graph):
            # One position is kept anyway, for outputs that read none.
            start = min(along.read(Interval(now[number].stop, now[number].stop + 1)).start, now[tensor].stop - 1)
            needed[tensor] = min(needed.get(tensor, start), start)
    kept = tuple(sorted(tensor for tensor in axes if now[tensor].stop > 0))
    starts = {tensor: max(now[tensor].start, needed.get(tensor, now[tensor].stop)) for tensor in kept}
    dropped = tuple(starts[tensor] - now[tensor].start for tensor in kept)
    now.update({tensor: Held(starts[tensor], now[tensor].stop) for tensor in kept})
    return Advance(tuple(parts), kept, dropped, last, tuple(axes[tensor] for tensor in kept)), now


def _furthest(reads: list[tuple[int, Along]], held: dict[int, Held], begin: int, size: int) -> int:
    """How many outputs of a call there can be: all that they read is there."""

    def there(stop: int) -> bool:
        wanted = Interval(stop - 1, stop)
        return all(max(along.reads(wanted).stop, 1) <= held[tensor].stop for tensor, along in reads)

    return last_true(there, begin, size)


def last_true(there: Callable[[int], bool], begin: int, size: int) -> int:
    """The largest number from `begin` to `size` up to which it is true, which it is for `begin`; by bisection."""
    step = 1
    while begin + step <= size and there(begin + step):
        step *= 2
    low, high = begin + step // 2, min(begin + step, size + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if there(middle) else (low, middle)
    return low


def _cut(tensor: int, box: Box, axes: dict[int, int], held: dict[int, Held]) -> tuple[int, int, int, int]:
    if tensor not in axes:
        return tensor, 0, 0, 0
    interval, start = box[axes[tensor] - 1], held[tensor].start
    return tensor, axes[tensor], interval.start - start, interval.stop - start


def run_advance(graph: SizedGraph, made: Advance, buffers: dict[int, Tensor]) -> list[Tensor]:
    """The next outputs of the last call, and what is kept of every tensor."""
    found: Tensor | None = buffers.get(-1) if made.last == -1 else None
    for part in made.parts:
        y = run_part(graph, part, buffers)
        old = buffers.get(part.call)
        buffers[part.call] = y if old is None else ops.concatenate([old, y], axis=part.axis)
        found = y if part.call == made.last else found
    if found is None:
        batch, shape = buffers[-1].shape[0], list(graph.made.shape)
        (space,) = graph.out_space
        shape[0], shape[space + 1] = batch, 0
        found = ops.zeros(tuple(shape), graph.made.dtype)
    kept = [
        # A copy, since the chunk may be written to again, and a slice of PyTorch's would hold all of it.
        ops.copy(_slice(buffers[tensor], axis, drop, buffers[tensor].shape[axis]))
        for tensor, drop, axis in zip(made.kept, made.dropped, made.axes, strict=True)
    ]
    return [ops.cast(found, graph.made.dtype), *kept]


def run_part(graph: SizedGraph, part: Part, buffers: dict[int, Tensor]) -> Tensor:
    """The next outputs of one call."""
    call, rule = graph.calls[part.call], graph.rules[part.call]
    tensors = [_slice(buffers[tensor], axis, start, stop) for tensor, axis, start, stop in part.reads]
    return part.local.apply(call, rule.operation or call.operation, tensors)


def _slice(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    if not axis or (start == 0 and stop == x.shape[axis]):
        return x
    cut: list[Any] = [slice(None)] * len(x.shape)
    cut[axis] = slice(start, stop)
    return x[tuple(cut)]
