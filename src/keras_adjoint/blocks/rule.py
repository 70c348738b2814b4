"""What is known of a call: where each part of its output reads its inputs, and how the part is computed from those."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras

from keras_adjoint.blocks.interval import Along, Box, Interval
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.ops import Tensor

Reads: TypeAlias = tuple[Along | None, ...]  # one for each axis of an input; `None` where it is read whole


class Local(ABC):
    """How one part of an output is computed: integers alone, so that parts that are alike are equal."""

    @abstractmethod
    def apply(self, call: SizedCall, operation: keras.Operation, tensors: list[Tensor]) -> Tensor:
        """The part of the output, from exactly those parts of the inputs that it reads, in batches."""

    def workspace(self, operation: keras.Operation, batch: int) -> int:
        """About how many numbers it holds beside those that it reads and makes, for a batch of parts."""
        return 0


@dataclass(frozen=True)
class Called(Local):
    """The operation is called as it is."""

    def apply(self, call: SizedCall, operation: keras.Operation, tensors: list[Tensor]) -> Tensor:
        return call.run(operation, tensors)


@dataclass(frozen=True, eq=False)
class Rule:
    """What is known of a call.

    Attributes:
        reads: How each of its inputs is read.
        local: `local(made, read)` is how the box `made` of the output is computed from the boxes `read` of the inputs.
        mixes: Axes of the output that are needed whole, by an activation at the end.
        operation: What computes, if it is not what is called.
    """

    reads: tuple[Reads, ...]
    local: Callable[[Box, list[Box]], Local] = lambda made, read: Called()
    mixes: frozenset[int] = frozenset()
    operation: keras.Operation | None = None

    def read(self, shapes: Sequence[tuple[int, ...]], made: Box) -> list[Box]:
        """The box of every input, of those shapes, that a box of the output reads."""
        return [
            tuple(
                Interval(0, size) if along is None else along.read(made[along.axis])
                for along, size in zip(reads, shape, strict=True)
            )
            for reads, shape in zip(self.reads, shapes, strict=True)
        ]


def spatial_axes(rank: int, data_format: str) -> range:
    """The spatial axes of a tensor of `rank` axes, the batch axis not counted."""
    return range(1, rank) if data_format == "channels_first" else range(rank - 1)


def along_space(rank: int, data_format: str, alongs: Sequence[Along]) -> Reads:
    """Reads of an input of which the spatial axes are read like this, and the channels whole."""
    return (None, *alongs) if data_format == "channels_first" else (*alongs, None)


def in_space(box: Box, data_format: str) -> Box:
    """The spatial part of a box."""
    return box[1:] if data_format == "channels_first" else box[:-1]


def sizes_in_space(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """The spatial sizes of a shape without the batch axis."""
    return shape[1:] if data_format == "channels_first" else shape[:-1]


def first_axis(data_format: str) -> int:
    """The first spatial axis of a batch."""
    return 2 if data_format == "channels_first" else 1
