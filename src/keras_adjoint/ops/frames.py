"""Cut an axis into overlapping frames, and add overlapping frames up again: each is the adjoint of the other.

These two carry the adjoints of pooling. They use slices and sums only, so they cost what they move.
"""

from keras import ops

from keras_adjoint.ops.geometry import is_known, positive_part
from keras_adjoint.ops.window import window


def cut_frames(x, axis, geometry, fill=0.0):
    """Frames along one axis: `frames[…, j, …, t] = x[…, j·stride + t·dilation − before, …]`.

    Args:
        x: Tensor.
        axis: Which of its axes is cut.
        geometry: The `Axis` record of a pooling or convolution along it.
        fill: What stands where `x` has no element.

    Returns:
        A tensor with `geometry.outputs` along `axis` and the taps as a new last axis.
    """
    behind = geometry.padded_size - geometry.before - geometry.size
    pads = [(0, 0)] * len(x.shape)
    pads[axis] = (geometry.before, positive_part(behind))
    if any(not is_known(pad) or pad for pad in pads[axis]):
        x = ops.pad(x, pads, constant_values=fill)
    last = (geometry.outputs - 1) * geometry.stride + 1
    cuts = []
    for tap in range(geometry.taps):
        cut = [slice(None)] * len(x.shape)
        start = tap * geometry.dilation
        cut[axis] = slice(start, start + last, geometry.stride)
        cuts.append(x[tuple(cut)])
    return ops.stack(cuts, axis=-1)


def overlap_add(frames, axis, geometry):
    """The adjoint of `cut_frames`: every element is added where it was cut from.

    With taps t = r + u·s for the stride s, phase r of block q collects Σ_u frames[q − u, r + u·s]: for every u the
    frames move by one block, so that ⌈taps / s⌉ shifted sums do it, whatever the number of frames.

    Args:
        frames: Tensor with `geometry.outputs` along `axis` and `geometry.taps` along its last axis.
        axis: The axis of the frames.
        geometry: The `Axis` record; its dilation is 1, as in every pooling.

    Returns:
        A tensor with `geometry.size` along `axis`, and without the last axis.
    """
    stride = geometry.stride
    shifts = -(-geometry.taps // stride)
    frames = ops.moveaxis(frames, axis, 0)
    blocks, *others, _ = ops.shape(frames)
    frames = ops.reshape(frames, (blocks, -1, geometry.taps))  # LiteRT pads and cuts tensors of up to five axes
    frames = window(frames, [0], [shifts * stride], first_axis=2)
    total = 0
    for shift in range(shifts):
        part = frames[..., shift * stride : (shift + 1) * stride]
        total = total + window(part, [-shift], [blocks + shifts - 1], first_axis=0)
    x = ops.reshape(ops.transpose(total, (0, 2, 1)), ((blocks + shifts - 1) * stride, -1))
    x = window(x, [geometry.before], [geometry.size], first_axis=0)
    return ops.moveaxis(ops.reshape(x, (geometry.size, *others)), 0, axis)
