"""A stream as a function of a state and a chunk. All chunks are computed alike, also those in which the signal begins.

Positions in front of the signal are held as well, and are zero, as they are for a convolution's padding. An output of a call
lags behind by as many positions as it has to wait for, so that those that it makes of the first chunks lie in front of the
signal in part; these are set to zero.
"""

import math
from fractions import Fraction
from typing import Any, Protocol

from keras import ops

from keras_adjoint.blocks.advance import Advance, Held, Reading, advance, run_part
from keras_adjoint.blocks.interval import Interval, Repeated
from keras_adjoint.blocks.transposed import ByAdjoint
from keras_adjoint.blocks.windows import AsForward, InWindows
from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.options import as_integer
from keras_adjoint.ops import Tensor

MOST_CHUNKS = 10_000  # until all chunks are alike
LARGEST_COUNT = 2**30
State = tuple[Tensor, ...]


class Streamed(Reading, Protocol):
    """What is needed of a stream."""

    length: int | None

    @property
    def rates(self) -> dict[int, Fraction]: ...

    @property
    def in_axis(self) -> int: ...


class FunctionalStream:
    """`(state, chunk) ↦ (state, outputs)`, without side effects.

    Attributes:
        chunk_size: Positions of a chunk.
        output_size: Positions of the outputs of each.
        delay: How many outputs, of the first chunks, lie in front of the signal and are zero. What follows is what the model
            gives of the signal.
    """

    def __init__(self, stream: Streamed, chunk_size: Any) -> None:
        size, period = as_integer(chunk_size), math.lcm(*(rate.numerator for rate in stream.rates.values()))
        if size is None or size < 1 or size % period:
            raise ValueError(
                f"`chunk_size` is a positive multiple of {period}, so that all chunks are alike. Received: "
                f"chunk_size={chunk_size!r}"
            )
        if stream.length is not None:
            raise ValueError(
                f"Chunks are alike where the beginning does not depend on the end. Received: a stream of length={stream.length}"
            )
        self.graph, self.chunk_size, self.in_axis = stream.graph, size, stream.in_axis
        self.made, begin, end = _alike(stream, size)
        _check_edges(stream)
        self.steps = {tensor: end[tensor].stop - begin[tensor].stop for tensor in begin}
        chunks = begin[-1].stop // size
        self.sizes = {tensor: begin[tensor].stop - begin[tensor].start for tensor in begin}
        self.lags = {tensor: chunks * self.steps[tensor] - begin[tensor].stop for tensor in begin}
        self.output_size, self.delay = self.steps[self.made.last], self.lags[self.made.last]

    def __repr__(self) -> str:
        return f"<FunctionalStream of chunks of {self.chunk_size} positions to {self.output_size}, delay {self.delay}>"

    def initial_state(self, batch: int) -> State:
        """The state before the signal: nothing but zeros.

        Args:
            batch: How many signals there are.
        """
        number = as_integer(batch)
        if number is None or number < 1:
            raise ValueError(f"`batch` is a positive integer. Received: batch={batch!r}")
        buffers = []
        for tensor, axis in zip(self.made.kept, self.made.axes, strict=True):
            buffers.append(ops.zeros(self._shape(number, tensor, axis), self.graph.tensor(tensor).dtype))
        return (ops.zeros((), "int32"), *buffers)

    def _check(self, state: Any, chunk: Tensor) -> None:
        """Raise unless the state is one of this stream, for the batch and the channels of a chunk."""
        shapes = [tuple(x.shape) for x in state] if isinstance(state, (tuple, list)) else []
        kept = zip(self.made.kept, self.made.axes, strict=True)
        wanted = [(), *(self._shape(chunk.shape[0], *pair) for pair in kept)]
        channels, own = self.graph.in_shape[2 - self.in_axis], chunk.shape[3 - self.in_axis]
        if not same_shapes(shapes, wanted) or own != channels:
            raise SizeError(
                f"A chunk has {channels} channels, and as many signals as its state, which `initial_state` or the last call "
                f"gave. Received: a chunk of shape {tuple(chunk.shape)}, a state of shapes {shapes}"
            )

    def _shape(self, batch: Any, tensor: int, axis: int) -> tuple[Any, ...]:
        """The shape of what is kept of a tensor."""
        shape = [batch, *self.graph.tensor(tensor).shape[1:]]
        shape[axis] = self.sizes[tensor]
        return tuple(shape)

    def __call__(self, state: State, chunk: Any) -> tuple[State, Tensor]:
        """(the state after a chunk, its outputs).

        Args:
            state: What `initial_state` or the last call gave.
            chunk: A batch of signals with `chunk_size` positions.
        """
        made = self.made
        chunk = ops.convert_to_tensor(chunk, self.graph.given.dtype)
        if len(chunk.shape) != 3 or chunk.shape[self.in_axis] != self.chunk_size:
            raise SizeError(
                f"Every chunk has {self.chunk_size} positions. Received: a chunk of shape {tuple(chunk.shape)}"
            )
        self._check(state, chunk)
        count = state[0]
        buffers = dict(zip(made.kept, state[1:], strict=True))
        buffers[-1] = ops.concatenate([buffers[-1], chunk], axis=self.in_axis)
        found = chunk
        for part in made.parts:
            y = run_part(self.graph, part, buffers)
            found = self._in_signal(y, part.call, part.axis, count)
            buffers[part.call] = ops.concatenate([buffers[part.call], found], axis=part.axis)
        left = []
        for tensor, axis in zip(made.kept, made.axes, strict=True):
            size = buffers[tensor].shape[axis]
            cut = [slice(None)] * len(buffers[tensor].shape)
            cut[axis] = slice(size - self.sizes[tensor], size)
            left.append(buffers[tensor][tuple(cut)])
        return (ops.minimum(count + 1, LARGEST_COUNT), *left), ops.cast(found, self.graph.made.dtype)

    def _in_signal(self, y: Tensor, tensor: int, axis: int, count: Tensor) -> Tensor:
        """Zeros in front of the signal."""
        if not self.lags[tensor]:
            return y
        first = count * self.steps[tensor] - self.lags[tensor]
        shape = [1] * len(y.shape)
        shape[axis] = -1
        is_inside = ops.reshape(first + ops.arange(y.shape[axis], dtype="int32") >= 0, shape)
        return ops.where(is_inside, y, ops.zeros_like(y))


def same_shapes(found: list[Any], wanted: list[Any]) -> bool:
    """Whether shapes agree, as far as a compiler knows them."""
    return len(found) == len(wanted) and all(
        len(a) == len(b) and all(m is None or n is None or m == n for m, n in zip(a, b, strict=True))
        for a, b in zip(found, wanted, strict=True)
    )


def _alike(stream: Streamed, size: int) -> tuple[Advance, dict[int, Held], dict[int, Held]]:
    """(what a chunk computes far from the beginning, what is held before, what is held after it)."""
    held = {number: Held(0, 0) for number, space in stream.graph.spaces.items() if space}
    steps = {number: int(size / rate) for number, rate in stream.rates.items()}
    before: Advance | None = None
    for _ in range(MOST_CHUNKS):
        start, stop = held[-1]
        made, after = advance(stream, stream.graph, {**held, -1: Held(start, stop + size)}, ended=False)
        # In the beginning chunks may be alike as well: those of which nothing is computed yet.
        moved = all((after[n].start - held[n].start, after[n].stop - held[n].stop) == (s, s) for n, s in steps.items())
        if moved and made == before:
            return made, held, after
        before, held = made, after
    raise NoRuleError(f"Chunks do not become alike. Received: chunk_size={size}")


def _check_edges(stream: Streamed) -> None:
    """Raise if a call takes something else than zeros for what is in front of the signal."""
    for number, call in enumerate(stream.graph.calls):
        reads = stream.reads(number)
        beyond = any(along.reads(Interval(0, 1)).start < 0 for _, along in reads)
        if not beyond:
            continue
        (axis,) = stream.graph.spaces[number]
        made = [Interval(0, one) for one in call.out_shape]
        made[axis] = Interval(0, 1)
        rule = stream.graph.rules[number]
        local = rule.local(tuple(made), rule.read(call.in_shapes, tuple(made)))
        zeros = isinstance(local, (ByAdjoint, AsForward)) or (isinstance(local, InWindows) and local.edges == "zeros")
        if not zeros or any(isinstance(along, Repeated) for _, along in reads):
            raise NoRuleError(
                f"`{call.place}` takes something else than zeros for what is in front of a signal, which has no functional "
                f"form. Use `push`. Received: {call.describe()}"
            )
