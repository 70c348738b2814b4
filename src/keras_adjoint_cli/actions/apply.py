"""`keras-adjoint apply`: a model or its adjoint, applied from file to file block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import keras

import keras_adjoint as ka
from keras_adjoint.blocks.apply import Applied, sized_graph_for
from keras_adjoint.blocks.memory import bytes_of
from keras_adjoint.blocks.targets import is_full
from keras_adjoint_cli.actions.spectrum import read_size
from keras_adjoint_cli.errors import Unusable, unusable
from keras_adjoint_cli.files.volumes import Target, Volume, chunks_for
from keras_adjoint_cli.progress import progress


@dataclass(frozen=True)
class Options:
    """How a model is applied."""

    adjoint: bool
    size: Any
    block: Any
    memory: int
    workers: int

    @classmethod
    def read(cls, *, adjoint: bool, size: str | None, block: str | None, memory: str, workers: int) -> Self:
        """The options from what was written."""
        if size is not None and not adjoint:
            raise Unusable(f"The size is the one of the array that is read, but for --adjoint. Received: --size {size}")
        try:
            blocks = read_size(block)
        except Unusable as error:
            raise Unusable(f"Blocks have a number, or several as in 64x128x128. Received: --block {block}") from error
        try:
            allowed = bytes_of(memory)
        except ValueError as error:
            raise Unusable(f"The memory is a size such as 500MB or 2GB. Received: --memory {memory}") from error
        return cls(adjoint, read_size(size), blocks, allowed, workers)


def apply_to(model: keras.Model, volume: Volume, target: Target, options: Options) -> Applied:
    """Write what a model gives for an array."""
    with unusable(ka.NoRuleError, ka.SizeError):
        op = ka.operator(model, size=options.size).T if options.adjoint else model
        graph, has_batch = sized_graph_for(op, tuple(volume.array.shape))
        block = options.block
        axes = graph.out_space
        if isinstance(block, int):
            block = (block,) * len(axes)
        if block is not None and len(block) != len(axes):
            raise Unusable(f"The result is cut along {len(axes)} axes. Received: --block {'x'.join(map(str, block))}")
        batch = tuple(volume.array.shape[:1]) if has_batch else ()
        chunks = (*(1 for _ in batch), *chunks_for(graph.out_shape, axes, block))
        made = str(graph.made.dtype)
        dtype = "float32" if made == "bfloat16" else made  # which NumPy's files do not have
        with target.making((*batch, *graph.out_shape), dtype, chunks) as array, room_for(target), Steps() as steps:
            return ka.apply_blocks(
                op,
                volume.array,
                array,
                block=block,
                memory=options.memory,
                workers=options.workers,
                progress=steps.show,
                resume=target.resumes,
            )


@contextmanager
def room_for(target: Target) -> Iterator[None]:
    """Have errors about a full disk name the output."""
    try:
        yield
    except ka.KerasAdjointError as error:
        if is_full(error.__cause__):
            raise Unusable(f"{target.file} cannot be written: {error}") from error
        raise


class Steps:
    """The line of progress, whose number of steps is known when the first one is done."""

    def __init__(self) -> None:
        self.line: Any = None
        self.advance: Any = None
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def show(self, done: int, total: int) -> None:
        """So many of all blocks are done."""
        if self.line is None:
            self.line = progress("Applying", total, tells_time_left=True)
            self.advance = self.line.__enter__()
        for _ in range(done - self.done):
            self.advance()
        self.done = done

    def __exit__(self, *error: Any) -> None:
        if self.line is not None:
            self.line.__exit__(*error)
