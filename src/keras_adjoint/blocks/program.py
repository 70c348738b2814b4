"""What one block takes: the boxes of every tensor, found from the output backwards, and the steps that compute them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
from keras import ops

from keras_adjoint.blocks.interval import Along, Box, Interval, hull, sizes, slices
from keras_adjoint.blocks.rule import Local, Rule
from keras_adjoint.blocks.rules import rule_of
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.errors import KerasAdjointError, NoRuleError, SizeError
from keras_adjoint.ops import Tensor

Cuts = tuple[tuple[int, int], ...]  # (start, stop) along each axis of what is held of a tensor


@dataclass(frozen=True)
class Step:
    """One call on parts of its inputs.

    Attributes:
        call: The number of the call, and of the tensor that it gives.
        reads: (number of a tensor, the part that is read of what is held of it) for every input. The input is number −1.
        local: How the part is computed.
        shape: The shape of the part, without the batch axis.
    """

    call: int
    reads: tuple[tuple[int, Cuts], ...]
    local: Local
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """The steps that make one block. Blocks with equal programs are computed together.

    Attributes:
        read: The shape of the part of the input.
        steps: The steps, in order.
        made: The shape of the block.
    """

    read: tuple[int, ...]
    steps: tuple[Step, ...]
    made: tuple[int, ...]

    @cached_property
    def last_reads(self) -> dict[int, int]:
        """Which step is the last one to read a tensor."""
        return {tensor: number for number, step in enumerate(self.steps) for tensor, _ in step.reads}

    def most_numbers(self) -> int:
        """The most numbers that are held at once for one block, with a copy of what a step reads."""
        held = {-1: math.prod(self.read)}
        most = held[-1]
        for number, step in enumerate(self.steps):
            copies = sum(math.prod(stop - start for start, stop in cuts) for _, cuts in step.reads)
            held[step.call] = math.prod(step.shape)
            most = max(most, sum(held.values()) + copies)
            held = {tensor: size for tensor, size in held.items() if self.last_reads.get(tensor, number + 1) > number}
        return most


class SizedGraph:
    """The calls of an operator at one size, and their rules.

    Args:
        calls: The calls, in an order in which they can run.
        given: The tensor that is read.
        made: The tensor that is made.
        space: The axes of the input along which it may be cut.

    Attributes:
        spaces: By the number of a tensor, the axes along which it is cut.
        out_space: Those of the output.
    """

    def __init__(
        self, calls: Sequence[SizedCall], given: keras.KerasTensor, made: keras.KerasTensor, space: Sequence[int]
    ) -> None:
        self.calls, self.given, self.made = list(calls), given, made
        self.numbers = {id(given): -1, **{id(call.output): number for number, call in enumerate(self.calls)}}
        self.rules: list[Rule] = []
        spaces: dict[int, frozenset[int]] = {-1: frozenset(space)}
        for number, call in enumerate(self.calls):
            inputs = [spaces[self.numbers[id(x)]] for x in call.inputs]
            rule = rule_of(call, frozenset().union(*inputs))
            self.rules.append(rule)
            spaces[number] = _space_of(call, rule, inputs)
        self.spaces = spaces
        self.out_space = tuple(sorted(spaces[self.numbers[id(made)]]))

    @property
    def in_shape(self) -> tuple[int, ...]:
        return tuple(self.given.shape[1:])

    @property
    def out_shape(self) -> tuple[int, ...]:
        return tuple(self.made.shape[1:])

    @cached_property
    def variables(self) -> list[keras.Variable]:
        """The variables that are read."""
        found = [variable for call in self.calls for variable in getattr(call.operation, "variables", ())]
        found += [each for call in self.calls for each in call.constants if isinstance(each, keras.Variable)]
        return list({id(variable): variable for variable in found}.values())

    def tensor(self, number: int) -> keras.KerasTensor:
        """The tensor of a number: the input for −1, else what a call gives."""
        return self.given if number == -1 else self.calls[number].output

    @property
    def dtypes(self) -> set[str]:
        """The dtypes of all tensors."""
        return {str(x.dtype) for x in [self.given, *(call.output for call in self.calls)]}

    def workspace(self, program: Program, batch: int) -> int:
        """The most numbers that an algorithm holds beside what it reads and makes, for a batch of blocks."""
        found = [
            step.local.workspace(self.rules[step.call].operation or self.calls[step.call].operation, batch)
            for step in program.steps
        ]
        return max(found, default=0)

    def program(self, made: Box) -> tuple[Box, Program]:
        """(what a box of the output reads of the input, how it is computed from that)."""
        last = self.numbers[id(self.made)]
        needed: dict[int, Box] = {last: made}
        reads: dict[int, list[Box]] = {}
        for number in range(len(self.calls) - 1, -1, -1):
            if number not in needed:
                continue
            call = self.calls[number]
            reads[number] = self.rules[number].read(call.in_shapes, needed[number])
            for x, box in zip(call.inputs, reads[number], strict=True):
                tensor = self.numbers[id(x)]
                needed[tensor] = hull(needed[tensor], box) if tensor in needed else box
        read = needed.setdefault(-1, tuple(Interval(0, 1) for _ in self.in_shape))
        steps = []
        for number in sorted(reads):
            call, rule = self.calls[number], self.rules[number]
            cuts = tuple(
                (self.numbers[id(x)], tuple((cut.start, cut.stop) for cut in slices(box, needed[self.numbers[id(x)]])))
                for x, box in zip(call.inputs, reads[number], strict=True)
            )
            steps.append(Step(number, cuts, rule.local(needed[number], reads[number]), sizes(needed[number])))
        return read, Program(sizes(read), tuple(steps), sizes(made))

    def run(self, program: Program, x: Tensor) -> Tensor:
        """Blocks of one program, from a batch of what they read."""
        held = {-1: x}
        for number, step in enumerate(program.steps):
            call, rule = self.calls[step.call], self.rules[step.call]
            tensors = [_cut(held[tensor], cuts) for tensor, cuts in step.reads]
            made = step.local.apply(call, rule.operation or call.operation, tensors)
            if tuple(made.shape[1:]) != step.shape:
                raise KerasAdjointError(
                    f"A block of `{call.place}` has the shape {tuple(made.shape[1:])} instead of {step.shape}, which is a "
                    f"mistake in this package. Received: {call.describe()}"
                )
            held[step.call] = made
            held = {tensor: y for tensor, y in held.items() if program.last_reads.get(tensor, number + 1) > number}
        return ops.cast(held[program.steps[-1].call if program.steps else -1], self.made.dtype)


def _cut(x: Tensor, cuts: Cuts) -> Tensor:
    if all(cut == (0, size) for cut, size in zip(cuts, x.shape[1:], strict=True)):
        return x
    return x[(slice(None), *(slice(*cut) for cut in cuts))]


def _space_of(call: SizedCall, rule: Rule, inputs: Sequence[frozenset[int]]) -> frozenset[int]:
    """The axes of what a call gives along which blocks can be cut."""
    found = set()
    for reads, space, shape in zip(rule.reads, inputs, call.in_shapes, strict=True):
        lost = [axis for axis in space if reads[axis] is None and shape[axis] > 1]
        if lost:
            raise reads_everything(call, lost)
        found |= {along.axis for axis, along in enumerate(reads) if along is not None and axis in space}
    for axis in found:
        alongs = [along for reads in rule.reads for along in reads if type(along) is Along and along.axis == axis]
        lengths = sorted({along.size for along in alongs})
        if len(lengths) > 1:  # Keras' own rule of shapes does not notice
            raise SizeError(
                f"`{call.place}` takes tensors of one size along axis {axis + 1}. Received: sizes {lengths}, {call.describe()}"
            )
    if found & rule.mixes:
        raise reads_everything(call, sorted(found & rule.mixes))
    return frozenset(found)


def reads_everything(call: SizedCall, axes: Sequence[int]) -> NoRuleError:
    """The error about a call that has no blocks."""
    names = ", ".join(str(axis + 1) for axis in axes)
    return NoRuleError(
        f"`{call.place}` cannot be applied in blocks: every position that it makes depends on all positions along "
        f"{'axis' if len(axes) == 1 else 'axes'} {names} of what it takes, or it has other weights for each of them. Apply the "
        f"layers before it in blocks, and what follows to the result. Received: a tensor of shape {call.in_shapes[0]}, "
        f"{call.describe()}"
    )
