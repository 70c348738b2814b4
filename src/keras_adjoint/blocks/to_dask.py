"""A plan as a graph of dask, for its schedulers: threads, processes, or a cluster of any size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_adjoint.blocks.numbers import check_real
from keras_adjoint.errors import SizeError
from keras_adjoint.operators.optional import imported

SCALE = '"keras-adjoint[scale]"'


def to_dask(plan: Any, array: Any) -> Any:
    """See `Plan.to_dask`."""
    check_real("The array that a plan reads", array)
    dask = imported("dask", "`to_dask`", SCALE)
    lazy = imported("dask.array", "`to_dask`", SCALE)
    shape = tuple(array.shape)
    has_batch = len(shape) == len(plan.in_shape) + 1
    if shape[has_batch:] != plan.in_shape:
        raise SizeError(
            f"The plan reads arrays of shape {plan.in_shape}, with or without a batch axis. Received: array.shape={shape}"
        )
    source = array if isinstance(array, lazy.Array) else lazy.from_array(array, chunks=_chunks(array))
    shared = dask.delayed(plan, traverse=False)  # once for each worker
    compute = dask.delayed(compute_block, pure=False)
    dtype = np.dtype("float32" if plan.dtype == "bfloat16" else plan.dtype)

    def result(sample: Any) -> Any:
        blocks = np.empty(len(plan), object)
        for block in plan:
            made = compute(shared, block.number, sample[block.read])
            size = tuple(cut.stop - cut.start for cut in block.write)
            blocks[block.number] = lazy.from_delayed(made, size, dtype)
        return _joined(lazy, blocks.reshape(plan.grid), plan.axes)

    if not has_batch:
        return result(source)
    samples = [result(source[number]) for number in range(shape[0])]
    return lazy.stack(samples) if samples else lazy.zeros((0, *plan.out_shape), dtype)


def _chunks(array: Any) -> Any:
    """The chunks in which an array is stored; "auto" where it is one piece."""
    return getattr(array, "chunks", None) or "auto"


def _joined(lazy: Any, blocks: Any, axes: Sequence[int]) -> Any:
    """An array of blocks as one array: the first axis of the grid runs along the first of `axes`."""
    if not axes:
        return blocks.item() if hasattr(blocks, "item") else blocks
    return lazy.concatenate([_joined(lazy, part, axes[1:]) for part in blocks], axis=axes[0])


def compute_block(plan: Any, number: int, part: Any) -> Any:
    """A block of a plan, from the part of the array that it reads, on whichever worker."""
    made = plan.compute(plan[number].program, np.asarray(part)[np.newaxis])[0]
    return made.astype("float32") if made.dtype.name == "bfloat16" else made
