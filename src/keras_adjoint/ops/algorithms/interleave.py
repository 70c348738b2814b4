"""Blocks of positions to positions: the last step of every algorithm at stride s."""

import math
from itertools import chain

from keras import ops

from keras_adjoint.ops.algorithms.polyphase import blocks_of
from keras_adjoint.ops.window import window


def join(phases, convolution):
    """Interleave phases given one by one, each `(batch, *blocks, channels)`, or `None` where no tap meets it."""
    met = next(phase for phase in phases if phase is not None)
    phases = [ops.zeros_like(met) if phase is None else phase for phase in phases]
    return interleave(ops.concatenate(phases, axis=-1) if len(phases) > 1 else met, convolution)


def interleave(phases, convolution, groups=1, present=None):
    """Put phases that lie side by side in the channels where they belong.

    Args:
        phases: Tensor of shape `(batch, *blocks, groups·∏present·channels/groups)`.
        convolution: The forward's geometry.
        groups: What leads in the channels, ahead of the phases.
        present: How many phases per axis there are, from the first one on; by default all s. The others are zero.

    Returns:
        A tensor of shape `(batch, *sizes, channels)`.
    """
    axes = convolution.axes
    blocks = [blocks_of(axis) for axis in axes]
    x = phases
    strides = convolution.each("stride")
    if any(stride > 1 for stride in strides):
        rank = len(axes)
        present = present or strides
        channels = int(x.shape[-1]) // math.prod(present)
        counts = [block.count for block in blocks]
        # The first axis of blocks follows the batch before and after, so that the two move as one.
        x = ops.reshape(x, (-1, *counts[1:], groups, *present, channels // groups))
        pairs = [(i, 1 + rank + i) for i in range(rank)]
        x = ops.transpose(x, (*chain(*pairs), rank, 1 + 2 * rank))
        for axis, (stride, phases) in enumerate(zip(strides, present, strict=True)):
            if phases < stride:  # one axis at a time, for nobody pads eight axes
                behind = math.prod(counts[axis + 1 :]) * math.prod(present[axis + 1 :]) * channels
                x = ops.pad(ops.reshape(x, (-1, phases, behind)), [(0, 0), (0, stride - phases), (0, 0)])
        x = ops.reshape(x, (-1, *(count * stride for count, stride in zip(counts, strides, strict=True)), channels))
    return window(x, [block.position for block in blocks], convolution.each("size"))
