"""`stream`: a model of signals chunk by chunk, so that what it gives, put together, is what it gives of the whole.

Every tensor between two calls keeps the end of what it has been, as far as the next outputs read it. Whatever the chunks, a
call makes an output as soon as all that it reads is there, and never twice.
"""

from fractions import Fraction
from functools import cached_property
from typing import Any, TypeGuard

import keras
from keras import ops

from keras_adjoint.blocks.advance import Held, advance, last_true, run_advance
from keras_adjoint.blocks.functional_stream import FunctionalStream
from keras_adjoint.blocks.interval import Along, Interval, Shifted, Transposed, Windowed
from keras_adjoint.blocks.numbers import native
from keras_adjoint.blocks.program import SizedGraph
from keras_adjoint.blocks.sources import own_length, sized_graph_of_signals, takes_any_channels
from keras_adjoint.errors import KerasAdjointError, NoRuleError, SizeError
from keras_adjoint.layers.options import as_integer
from keras_adjoint.layers.registry import describe
from keras_adjoint.operators.space import is_real
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current, untraced

MULTIPLES = 720_720  # of all numbers up to 16
OPEN = 1024 * MULTIPLES  # the length of a signal whose end is not known
# By how much longer signals, of which the beginning is to be the same, are.
PROBES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, MULTIPLES)


class Stream:
    """A layer or model of signals that takes them in chunks.

    Attributes:
        in_channels: The channels of a chunk; `None` for a layer that takes any number of them, before the first chunk.
        out_channels: Those of what is given back, likewise.
        rate: Inputs for one output, a fraction.
        lookahead: The most inputs behind its own that an output depends on. Of a causal model it is 0; the adjoint of one is
            anti-causal.
        latency: How many inputs have to be pushed before the first output is there.
    """

    def __init__(self, source: Any, length: int | None = None, channels: int | None = None) -> None:
        self.source, self.length, self.channels = source, length, channels
        self.takes_any = channels is not None or takes_any_channels(source)
        try:
            self.graph = self._graph(OPEN if length is None else length)
        except SizeError as error:
            if length is not None:
                raise
            raise SizeError(f"Pass the `length`, since not every one is taken. {error}") from error
        if len(self.graph.in_shape) != 2 or len(self.graph.spaces[-1]) != 1 or len(self.graph.out_space) != 1:
            raise NoRuleError(
                f"A stream is of signals: batches with one axis of positions and one of channels. Received: from "
                f"{self.graph.in_shape} to {self.graph.out_shape}, {describe(source)}"
            )
        if length is None:
            self._check_open()
        self.functions: dict[Any, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what has been pushed: a new signal begins."""
        self.held: dict[int, Held] = {number: Held(0, 0) for number in self.graph.spaces}
        self.buffers: dict[int, Tensor] = {}

    def __repr__(self) -> str:
        return (
            f"<Stream of {self.source.name}: {self.in_channels or 'any'} to {self.out_channels or 'as many'} channels, "
            f"{self.rate} inputs for an output, lookahead {self.lookahead}, after {self.held[-1].stop} positions>"
        )

    def __getstate__(self) -> dict[str, Any]:
        buffers = {number: ops.convert_to_numpy(x) for number, x in self.buffers.items()}
        own = {"source": self.source, "length": self.length, "channels": self.channels}
        return {**own, "held": self.held, "buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Stream.__init__(self, state["source"], state["length"], state["channels"])
        self.held = state["held"]
        self.buffers = {number: ops.convert_to_tensor(x, self._dtype(number)) for number, x in state["buffers"].items()}

    # --- what is known beforehand

    @property
    def in_axis(self) -> int:
        """The axis of positions of a batch that is pushed."""
        return self._axis(-1)

    @property
    def in_channels(self) -> int | None:
        return None if self.takes_any and self.channels is None else self.graph.in_shape[2 - self.in_axis]

    @property
    def out_channels(self) -> int | None:
        return None if self.in_channels is None else self.graph.out_shape[2 - self._axis(self._last)]

    @cached_property
    def rate(self) -> Fraction:
        return self.rates[self._last]

    @cached_property
    def rates(self) -> dict[int, Fraction]:
        """Inputs for one position of every tensor."""
        found = {-1: Fraction(1)}
        for number in range(len(self.graph.calls)):
            if self.graph.spaces[number]:
                tensor, along = self.reads(number)[0]
                found[number] = found[tensor] * along.rate
        return found

    @cached_property
    def lookahead(self) -> int:
        first = self._middle - self._middle % self.rate.denominator
        own = [first + number for number in range(self.rate.denominator)]
        return max(0, *(self._read_by(j) - 1 - int(j * self.rate) for j in own))

    @cached_property
    def latency(self) -> int:
        return self._read_by(0, held_back=True)

    @property
    def _middle(self) -> int:
        return min(2**20, self.graph.out_shape[self._axis(self._last) - 1] // 2)

    def _read_by(self, output: int, *, held_back: bool = False) -> int:
        """How many inputs an output depends on, or has to wait for, as where an end of unknown place is cropped."""
        needed = {self._last: output + 1}
        for number in range(len(self.graph.calls) - 1, -1, -1):
            if number in needed:
                for tensor, along in self.reads(number):
                    stop = along.reads(Interval(needed[number] - 1, needed[number])).stop
                    stop = max(stop, self._waited_for(number, needed[number])) if held_back else stop
                    needed[tensor] = max(needed.get(tensor, 1), stop)
        return needed.get(-1, 1)

    # --- the signal

    def push(self, chunk: Any) -> Tensor:
        """What can be computed from a chunk, and from those before it, without derivatives; `functional` has them.

        Args:
            chunk: A batch of signals with any number of positions.

        Returns:
            A batch of the next outputs, of which there may be none.

        Raises:
            SizeError: If the chunk has other channels or another batch than those before, or is longer than the `length`.
            KerasAdjointError: In a function that is compiled or transformed.
        """
        chunk = self._checked(chunk)
        axis, (start, stop) = self._axis(-1), self.held[-1]
        stop, limit = stop + chunk.shape[axis], OPEN if self.length is None else self.length
        if stop > limit:
            raise SizeError(
                f"The signal is longer than the {limit:,} positions that it may have. "
                f"{'Begin a new one: `reset()`.' if self.length is None else 'Pass another `length`.'} "
                f"Received: {stop:,} positions"
            )
        old = self.buffers.get(-1)
        whole = chunk if old is None else ops.concatenate([old, chunk], axis=axis)
        return self._advanced(
            self.graph, {**self.held, -1: Held(start, stop)}, {**self.buffers, -1: whole}, ended=False
        )

    def flush(self, output_size: int | None = None) -> Tensor:
        """The rest of the outputs, now that the signal has ended; then a new one may begin.

        Args:
            output_size: How many outputs there are in all, where adjoints with a stride leave that open. By default as many as
                the model gives that was made for this length, or else as many as can be.

        Returns:
            A batch of the last outputs, of which there may be none.

        Raises:
            SizeError: If nothing has been pushed, the signal does not have the `length`, or there cannot be so many outputs.
        """
        total = self.held[-1].stop
        if not self.buffers or total == 0:
            raise SizeError("Nothing has been pushed, so nothing is left to give. Received: flush() after 0 positions")
        if self.length is not None and total != self.length:
            raise SizeError(f"The stream is of signals of {self.length} positions. Received: {total} before the end")
        graph = self._graph(total) if self.length is None else self.graph
        if output_size is not None:
            try:
                graph = self._graph(total, output_size)
            except SizeError as error:
                raise SizeError(
                    f"After {total} inputs there cannot be so many outputs; by default there are "
                    f"{graph.out_shape[self._axis(self._last) - 1]}. Received: output_size={output_size}"
                ) from error
        self._check_end(graph, output_size)
        rest = self._advanced(graph, self.held, self.buffers, ended=True)
        self.reset()
        return rest

    def functional(self, chunk_size: int) -> FunctionalStream:
        """The same without a state of its own, for `jit`, `scan` and the like, with chunks of one size.

        Args:
            chunk_size: Positions of a chunk, a multiple of `rate.numerator`, and likewise of those of all layers inside.

        Returns:
            A `FunctionalStream`.

        Raises:
            NoRuleError: If a layer reads beyond the beginning, and takes something else than zeros for what is there.
            ValueError: If there are no chunks of this size.
        """
        if self.in_channels is None:
            raise NoRuleError(
                "The channels of the signals are not known. Stream a model of the layer, "
                f"`keras.Sequential([keras.Input((None, channels)), layer])`. Received: {describe(self.source)}"
            )
        return FunctionalStream(self, chunk_size)

    # --- how

    @property
    def _last(self) -> int:
        return self.graph.numbers[id(self.graph.made)]

    def _axis(self, tensor: int) -> int:
        (axis,) = self.graph.spaces[tensor]
        return axis + 1

    def _dtype(self, tensor: int) -> str:
        return str(self.graph.tensor(tensor).dtype)

    def reads(self, number: int, graph: SizedGraph | None = None) -> list[tuple[int, Along]]:
        """(a tensor that a call reads, how its positions are read) for each of its inputs."""
        graph = graph or self.graph
        call, rule = graph.calls[number], graph.rules[number]
        found = []
        for x, reads in zip(call.inputs, rule.reads, strict=True):
            tensor = graph.numbers[id(x)]
            along = next((reads[axis] for axis in graph.spaces[tensor]), None)
            if along is not None:
                found.append((tensor, along))
        return found

    def certain(self, number: int, inputs: int) -> int | None:
        """How many outputs a call has at least of some inputs, whatever follows; `None` where nothing limits that."""
        along = self.reads(number)[0][1]
        size = self.graph.calls[number].out_shape[along.axis]
        if isinstance(along, Shifted):  # the end may be cut off
            return max(0, inputs + size - along.size)
        if _cuts_its_end(along, self.graph, number) and self.length is None:
            return max(0, size - (along.size - inputs) * along.window.stride)
        windows = _open_windows(self.graph, number) if self.length is None else None
        return None if windows is None else max(0, windows[0].possible_sizes(inputs)[0])

    def _waited_for(self, number: int, outputs: int) -> int:
        """How many inputs a call has when it is `certain` of some outputs."""

        def too_few(inputs: int) -> bool:
            certain = self.certain(number, inputs)
            return certain is not None and certain < outputs

        return last_true(too_few, 1, OPEN) + 1 if too_few(1) else 1

    def _advanced(self, graph: SizedGraph, held: dict[int, Held], buffers: dict[int, Tensor], *, ended: bool) -> Tensor:
        """The next outputs, with what is held now. Should that fail, nothing has changed."""
        made, held = advance(self, graph, held, ended=ended)
        variables, tensors = self.graph.variables, sorted(buffers)

        def run(values: list[Tensor], given: list[Tensor]) -> list[Tensor]:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return run_advance(graph, made, dict(zip(tensors, given, strict=True)))

        # What ends a signal is computed once.
        function = run
        if graph is self.graph:
            function = self.functions.setdefault((made, *tensors), current().compiled(run))
        values = [ops.convert_to_tensor(variable) for variable in variables]
        found = function(values, [buffers[tensor] for tensor in tensors])
        out, *left = map(ops.stop_gradient, found)  # otherwise a signal would be held as long as it goes on
        self.held, self.buffers = held, dict(zip(made.kept, left, strict=True))
        return out

    def _checked(self, chunk: Any) -> Tensor:
        if hasattr(chunk, "dtype") and not is_real(chunk.dtype):
            raise ValueError(f"A chunk is a batch of real numbers. Received: a chunk of dtype {chunk.dtype}")
        try:
            chunk = ops.convert_to_tensor(native(chunk), self.graph.given.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"A chunk is a batch of numbers. Received: {chunk!r}") from error
        if not current().is_concrete([chunk]):
            raise KerasAdjointError(
                "A stream holds the end of a signal between calls, which compiled functions and transformations do not follow. "
                f"Use `stream.functional(chunk_size)` in them. Received: {chunk!r}"
            )
        wanted = ["batch", "positions", "positions"]
        shape = tuple(chunk.shape)
        if self.takes_any and not self.buffers and len(shape) == 3 and shape[3 - self.in_axis] > 0:
            self._take_channels(shape[3 - self.in_axis])
        wanted[3 - self.in_axis] = str(self.in_channels or "channels")
        if len(shape) != 3 or shape[3 - self.in_axis] != self.in_channels:
            raise SizeError(f"A chunk has the shape ({', '.join(wanted)}). Received: a chunk of shape {shape}")
        old = self.buffers.get(-1)
        if old is not None and old.shape[0] != shape[0]:
            raise SizeError(
                f"All chunks of a signal have the same batch. Received: a chunk of shape {shape} after a batch of "
                f"{old.shape[0]}"
            )
        return chunk

    # --- sizes

    def _take_channels(self, channels: int) -> None:
        """A new signal has so many channels."""
        if channels != self.channels:
            self.channels, self.functions = channels, {}
            self.graph = self._graph(OPEN if self.length is None else self.length)

    def _graph(self, length: int, output_size: Any = None) -> SizedGraph:
        """The calls for a signal of some length, with the sizes that adjoints were made for, or the largest ones."""
        sizes: dict[int, int] = {}

        def choose(number: int, layer: Any, y: keras.KerasTensor, said: Any) -> Any:
            windows = getattr(layer, "windows", None)
            if windows is None:
                return None
            if number in sizes:
                return (sizes[number],)
            if said is not None:  # as in a mirror, whose encoder's sizes are known, at the length that it was made for
                return said
            axis = 1 if layer.data_format == "channels_last" else 2
            return tuple(window.possible_sizes(y.shape[axis])[1] for window in windows)

        graph = sized_graph_of_signals(self.source, length, choose, self.channels)
        if output_size is None:
            return graph
        wanted = as_integer(output_size)
        if wanted is None or wanted < 1:
            raise ValueError(f"`output_size` is a positive integer. Received: output_size={output_size!r}")
        sizes.update(_sizes_before(graph, wanted, self))
        return sized_graph_of_signals(self.source, length, choose, self.channels)

    def _check_open(self) -> None:
        """Raise unless what is computed before the end does not depend on where that is."""
        for number, call in enumerate(self.graph.calls):
            if any(along.beyond_end for _, along in self.reads(number)):
                raise NoRuleError(
                    f"`{call.place}` divides by how many positions of its last windows are inside of the signal, of which a "
                    f'stream does not know the end yet. Pass `length`, or use `padding="valid"`. Received: {call.describe()}'
                )
        own = own_length(self.source)
        for length in [*(OPEN + more for more in PROBES), *([] if own is None else [own])]:
            try:
                other = self._graph(length)
            except SizeError:  # not every length is taken, as by the adjoint of up-sampling
                continue
            self._compare(other)

    def _compare(self, other: SizedGraph) -> None:
        for number, call in enumerate(self.graph.calls):
            here, there = self.reads(number), self.reads(number, other)
            pairs = [(a, b) for (_, a), (_, b) in zip(here, there, strict=True)]
            if any(
                a.reads(Interval(0, 1)) != b.reads(Interval(0, 1)) or a.beyond_end != b.beyond_end for a, b in pairs
            ):
                raise NoRuleError(
                    f"`{call.place}` pads the beginning of a signal by its total length, which a stream does not know yet. "
                    f'Pass `length`, or use `padding="causal"` or "valid". Received: {call.describe()}'
                )

    def _check_end(self, graph: SizedGraph, output_size: Any) -> None:
        self._compare(graph)
        given = self.held[self._last].stop
        size = graph.out_shape[self._axis(self._last) - 1]
        if size < given or (output_size is not None and size != output_size):
            raise SizeError(
                f"After {self.held[-1].stop} inputs there are {size} outputs, of which {given} have been given already. "
                f"Received: output_size={output_size}"
            )


def _open_windows(graph: SizedGraph, number: int) -> Any:
    """The windows of an adjoint layer whose size its input leaves open, or `None`."""
    operation = graph.rules[number].operation
    return getattr(operation, "windows", None) if getattr(operation, "needs_output_size", False) else None


def _cuts_its_end(along: Along, graph: SizedGraph, number: int) -> TypeGuard[Transposed]:
    """Whether a transposed convolution, by its `output_padding`, gives fewer positions than its windows reach."""
    return isinstance(along, Transposed) and _open_windows(graph, number) is None


def _sizes_before(graph: SizedGraph, wanted: int, stream: Stream) -> dict[int, int]:
    """The sizes of what calls give, from that of the last one backwards, as far as one follows from the other."""
    sizes = {graph.numbers[id(graph.made)]: wanted}
    for number in range(len(graph.calls) - 1, -1, -1):
        for tensor, along in stream.reads(number, graph) if number in sizes else []:
            if type(along) is Along:
                sizes.setdefault(tensor, sizes[number])
            elif isinstance(along, Transposed):
                windows = _open_windows(graph, number)
                if windows is not None:
                    sizes.setdefault(tensor, windows[0].at(sizes[number]).outputs)
            elif isinstance(along, Windowed) and along.window.outputs == along.size:
                sizes.setdefault(tensor, sizes[number])
    return {number: size for number, size in sizes.items() if number >= 0}


@untraced
def stream(source: Any, *, length: int | None = None) -> Stream:
    """A layer or model of signals that takes them in chunks, with `push(chunk)`, `flush()` and `reset()`.

    What is given back, put together, is what the model gives of the whole signal, however that is cut.

    Args:
        source: A built layer, an adjoint layer, or a model of one input and one output, of batches of signals.
        length: How long the signals are. Needed where the beginning depends on the end, as Keras pads for `padding="same"` with
            a stride.

    Returns:
        A `Stream`.

    Raises:
        NoRuleError: If a layer depends on the whole signal, or nothing is known of how it reads, or it needs the `length`.
        SizeError: If it takes no signals of that length.

    Example:

    >>> conv = keras.layers.Conv1D(4, 9, strides=4, padding="causal")
    >>> conv.build((None, None, 1))
    >>> encode, decode = ka.stream(conv), ka.stream(ka.adjoint(conv))
    >>> encode.lookahead, decode.lookahead
    (0, 2)
    >>> signal = np.random.default_rng(0).normal(size=(1, 100, 1)).astype("float32")
    >>> chunks = [encode.push(signal[:, :30]), encode.push(signal[:, 30:]), encode.flush()]
    >>> [chunk.shape[1] for chunk in chunks]
    [8, 17, 0]
    """
    if not isinstance(source, keras.layers.Layer):
        raise ValueError(
            f"A stream is made of a Keras layer or model. Received: {source!r} of type {type(source).__name__}"
        )
    number = None if length is None else as_integer(length)
    if length is not None and (number is None or number < 1):
        raise ValueError(f"`length` is a positive integer. Received: length={length!r}")
    return Stream(source, number)
