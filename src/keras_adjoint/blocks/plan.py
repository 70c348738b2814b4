"""`plan_blocks`: which part of an array every block of the result reads, exactly, and how it is computed from that."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_adjoint.blocks import memory as limits
from keras_adjoint.blocks.interval import Box, Interval, slices
from keras_adjoint.blocks.memory import alike, bytes_of, largest_block
from keras_adjoint.blocks.numbers import check_real, native
from keras_adjoint.blocks.program import Program, SizedGraph
from keras_adjoint.blocks.sources import sized_graph_of
from keras_adjoint.blocks.to_dask import to_dask
from keras_adjoint.errors import SizeError
from keras_adjoint.layers.options import as_integer
from keras_adjoint.ops.backend import current, untraced

Array = NDArray[Any]
WHOLE_BATCH = 2**22  # numbers that a batch of small blocks holds at most
MOST_BLOCKS = 64  # in a batch


@dataclass(frozen=True)
class Block:
    """One block of a plan.

    Attributes:
        number: Its number in the plan.
        read: The slices of the array that it reads, without the batch axis.
        write: The slices of the result that it is.
    """

    number: int
    read: tuple[slice, ...]
    write: tuple[slice, ...]
    program: Program = field(repr=False)  # blocks with equal ones are computed together
    plan: "Plan" = field(repr=False, compare=False)

    def compute(self, array: Any) -> Array:
        """The block, from the array that the plan reads.

        Args:
            array: Anything that slices, of the shape `plan.in_shape`, with or without a batch axis in front.
        """
        shape = tuple(getattr(array, "shape", ()))
        has_batch = len(shape) == len(self.read) + 1
        if shape[has_batch:] != self.plan.in_shape:
            given = f"an array of shape {shape}" if hasattr(array, "shape") else f"a {type(array).__name__}"
            raise SizeError(
                f"A block reads from an array of shape {self.plan.in_shape}, with or without a batch axis. Received: {given}"
            )
        check_real("The array that a block reads", array)
        part = np.asarray(array[(slice(None), *self.read) if has_batch else self.read])
        made = self.plan.compute(self.program, part if has_batch else part[np.newaxis])
        return made if has_batch else made[0]


class Plan:
    """The blocks of the result of an operator, layer or model on an array of one size.

    Iterating gives its blocks, see `Block`.

    Attributes:
        in_shape: The shape of the array that is read, without a batch axis.
        out_shape: The shape of the result.
        block: The size of blocks along each axis in `axes`; the last ones may be smaller.
        axes: The axes of the result along which it is cut.
        batch: How many blocks that are alike are computed together.
    """

    def __init__(self, source: Any, graph: SizedGraph, block: Sequence[int], batch: int = 1) -> None:
        self.source, self.graph = source, graph
        self.in_shape, self.out_shape = graph.in_shape, graph.out_shape
        self.axes = graph.out_space
        self.block, self.batch = tuple(block), batch
        self.functions: dict[Hashable, Any] = {}

    @property
    def dtype(self) -> str:
        """The dtype of the result."""
        return str(self.graph.made.dtype)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks there are along each axis in `axes`."""
        return tuple(-(-self.out_shape[axis] // size) for axis, size in zip(self.axes, self.block, strict=True))

    def __len__(self) -> int:
        return math.prod(self.grid)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Block:
        wanted = as_integer(number)
        if wanted is None:
            raise TypeError(
                f"A plan has {len(self)} blocks by their numbers, `plan[0]` and so on; iterating gives all of them. "
                f"Received: {number!r}"
            )
        if not -len(self) <= wanted < len(self):
            raise IndexError(
                f"A plan of {len(self)} blocks has them by the numbers 0 to {len(self) - 1}, or from the last one, -1, back to "
                f"-{len(self)}. Received: {number}"
            )
        number = wanted % len(self)
        place = [int(index) for index in np.unravel_index(number, self.grid)] if self.grid else []
        box = self._box(place)
        read, program = self.graph.program(box)
        return Block(number, slices(read), slices(box), program, self)

    def _box(self, place: Sequence[int]) -> Box:
        box = [Interval(0, size) for size in self.out_shape]
        for axis, size, index in zip(self.axes, self.block, place, strict=True):
            box[axis] = Interval(index * size, min((index + 1) * size, self.out_shape[axis]))
        return tuple(box)

    def to_dask(self, array: Any) -> Any:
        """The result as a `dask.array.Array`, with a chunk for every block, computed when dask is asked to.

        The plan is sent to every worker once, with the weights as they are then.

        Args:
            array: A dask array, or anything else that slices and has a shape and a dtype, with or without a batch axis in
                front.

        Returns:
            The dask array.

        Raises:
            KerasAdjointError: If dask is not installed; `keras-adjoint[scale]` has it.
            SizeError: If the array has another shape than `in_shape`, but for the batch axis.

        Example:

        >>> plan.to_dask(zarr.open_array("volume.zarr")).to_zarr("out.zarr")  # doctest: +SKIP
        """
        return to_dask(self, array)

    # --- how blocks are computed

    def compute(self, program: Program, parts: Array) -> Array:
        """Blocks of one program, from a batch of the parts that they read."""
        function = self.functions.get(program)
        if function is None:
            function = self.functions[program] = current().compiled(partial(self._run, program))
        x = ops.convert_to_tensor(native(parts), self.graph.given.dtype)
        values = [ops.convert_to_tensor(variable) for variable in self.graph.variables]
        made: Array = ops.convert_to_numpy(function(values, x))
        return made

    def _run(self, program: Program, values: list[Any], x: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(self.graph.variables, values, strict=True))):
            return self.graph.run(program, x)

    # --- how much they hold

    @cached_property
    def middle(self) -> Program:
        """The program of a block in the middle, which no edge makes smaller."""
        return self.graph.program(self._box([(count - 1) // 2 for count in self.grid]))[1]

    def __reduce__(self) -> Any:
        return restored, (self.source, self.in_shape, self.block, self.batch)

    def __repr__(self) -> str:
        name = getattr(self.source, "name", None) or repr(self.source)
        return (
            f"<Plan of {name}: {self.in_shape} to {self.out_shape} in {' × '.join(map(str, self.grid)) or 1} blocks of "
            f"{' × '.join(map(str, self.block)) or 'everything'}>"
        )


def restored(source: Any, shape: tuple[int, ...], block: Sequence[int], batch: int) -> Plan:
    """A plan that was pickled."""
    return Plan(source, sized_graph_of(source, shape), block, batch)


@untraced
def plan_blocks(
    op: Any, input_size: Any, *, block: int | Sequence[int] | None = None, memory: int | str | None = None
) -> Plan:
    """The blocks in which an operator, layer or model is applied to an array that does not fit in memory.

    Args:
        op: An `Operator`, a built layer, an adjoint layer, or a model of one input and one output.
        input_size: The spatial sizes of the array that is read, or its whole shape without a batch axis.
        block: The size of blocks in positions of the result, one for all axes or one for each. By default the largest one
            that `memory` allows.
        memory: How many bytes applying the plan may hold at once, as a number or like "2GB"; by default 1 GiB.

    Returns:
        A `Plan`. Iterating gives blocks with the slices `read` and `write`, and a method `compute`.

    Raises:
        NoRuleError: If a layer depends on the whole array, or nothing is known of its blocks.
        SizeError: If no array of this size is taken, or `memory` is too small.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
    >>> conv.build((None, None, None, 3))
    >>> plan = ka.plan_blocks(conv, (100, 70), block=32)
    >>> plan
    <Plan of conv2d: (100, 70, 3) to (50, 35, 8) in 2 × 2 blocks of 32 × 32>
    >>> plan[3].read
    (slice(64, 100, None), slice(64, 70, None), slice(0, 3, None))
    >>> plan[3].compute(np.zeros((100, 70, 3), "float32")).shape
    (18, 3, 8)
    """
    return planned(op, sized_graph_of(op, input_size), block, bytes_of(memory))


def planned(
    op: Any, graph: SizedGraph, block: Any, memory: int, multiples: Sequence[int] | None = None, workers: int = 1
) -> Plan:
    """The plan with blocks of some size, or the largest that a limit allows, and as many at a time as that leaves room for.

    Args:
        op: What is applied.
        graph: Its calls.
        block: The size of blocks, or `None`.
        memory: How many bytes may be held at once.
        multiples: What the sizes of blocks are multiples of, unless they are those of the whole.
        workers: How many batches are computed at once.

    Raises:
        SizeError: If a block does not fit.
    """
    sizes = [graph.out_shape[axis] for axis in graph.out_space]

    def needed(block: Sequence[int]) -> int:
        return needed_bytes(Plan(op, graph, block), workers)

    if block is not None:
        chosen: Any = [min(one, size) for one, size in zip(_checked(block, sizes), sizes, strict=True)]
        least = chosen
    else:
        multiples = multiples or [1] * len(sizes)
        least = [min(*pair) for pair in zip(sizes, multiples, strict=True)]
        chosen = largest_block(sizes, multiples, lambda block: needed(block) <= memory)
        chosen = None if chosen is None else alike(sizes, multiples, chosen)
    if chosen is None or needed(chosen) > memory:
        smaller = ", or smaller blocks" if block is not None else ", or make the target in smaller chunks"
        smaller = smaller if block is not None or max(least, default=1) > 1 else ""
        raise SizeError(
            f"{'A' if block is not None else 'The smallest'} block of {' × '.join(map(str, least))} takes about "
            f"{needed(least):,} bytes, with {workers} at a time. Allow more `memory`{smaller}. "
            f"Received: memory={memory:,}"
        )
    plan = Plan(op, graph, chosen)
    of_one = max(1, plan.middle.most_numbers())
    plan.batch = max(
        1,
        min(
            MOST_BLOCKS,
            len(plan),
            WHOLE_BATCH // of_one,
            (memory - limits.FIXED) // max(1, needed(chosen) - limits.FIXED),
        ),
    )
    return plan


def needed_bytes(plan: Plan, workers: int = 1) -> int:
    """About how many bytes applying a plan holds at once, beside the weights and what importing Keras takes.

    `workers` batches are computed, each with the arrays that it comes from and goes to, while one more is read or written.
    """
    program, batch = plan.middle, plan.batch
    read, made = math.prod(program.read), math.prod(program.made)
    computing = program.most_numbers() + plan.graph.workspace(program, batch) // batch
    itemsize = max([4, *(np.dtype(dtype).itemsize for dtype in plan.graph.dtypes if "bfloat" not in dtype)])
    return limits.FIXED + batch * itemsize * (workers * (computing + read + made) + 2 * max(read, made))


def _checked(block: Any, sizes: Sequence[int]) -> list[int]:
    given = [as_integer(one) for one in (block if isinstance(block, (list, tuple)) else [block] * len(sizes))]
    if len(given) != len(sizes) or not all(one is not None and one > 0 for one in given):
        raise ValueError(
            f"`block` is a positive integer, or one for each of the {len(sizes)} axes along which the result is cut. "
            f"Received: block={block!r}"
        )
    return [one for one in given if one]
