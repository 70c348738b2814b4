"""Windows of a zero-extended tensor, and overlapping frames along an axis, each with its adjoint.

Cropping and zero padding are one operation with two signs. Its adjoint is itself with start and length exchanged:
⟨window(x), y⟩ = ⟨x, window(y)⟩. Frames carry the adjoints of pooling: cutting them out and adding them up are adjoint to each
other. They use slices and sums only, so they cost what they move.
"""

from collections.abc import Sequence

from keras import ops

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.geometry import Axis, is_known, positive_part


def window(x: Tensor, starts: Sequence[Size], lengths: Sequence[Size], first_axis: int = 1) -> Tensor:
    """Positions `start … start + length − 1` along successive axes of `x`, zeros where `x` has none.

    Args:
        x: Tensor.
        starts: One start per axis, negative for zeros in front; integers or scalar tensors.
        lengths: One length per axis.
        first_axis: The axis of `x` that the first start belongs to.

    Returns:
        A tensor with `lengths` along those axes.
    """
    shape = ops.shape(x)
    pads: list[tuple[Size, Size]] = [(0, 0)] * len(shape)
    cuts = [slice(None)] * len(shape)
    for axis, (start, length) in enumerate(zip(starts, lengths, strict=True), first_axis):
        before = positive_part(-start)
        after = positive_part(start + length - shape[axis])
        pads[axis] = (before, after)
        cuts[axis] = slice(start + before, start + before + length)
    if any(not is_known(pad) or pad for pair in pads for pad in pair):
        x = ops.pad(x, pads)
        shape = ops.shape(x)
    if any(_cuts(cut, size) for cut, size in zip(cuts, shape, strict=True)):
        x = x[tuple(cuts)]
    return x


def _cuts(cut: slice, size: Size) -> bool:
    """Whether a slice leaves out something of an axis, as far as that is known."""
    if cut.start is None:
        return False
    known = is_known(cut.start) and is_known(cut.stop) and is_known(size)
    return not known or cut.start != 0 or cut.stop != size


def cut_frames(x: Tensor, axis: int, geometry: Axis, fill: float = 0.0) -> Tensor:
    """Frames along one axis: `frames[…, j, …, t] = x[…, j·stride + t·dilation − pad_before, …]`.

    Args:
        x: Tensor.
        axis: Which of its axes is cut.
        geometry: The `Axis` record of a pooling or convolution along it.
        fill: What stands where `x` has no element.

    Returns:
        A tensor with `geometry.outputs` along `axis` and the taps as a new last axis.
    """
    pads: list[tuple[Size, Size]] = [(0, 0)] * len(x.shape)
    pads[axis] = (geometry.pad_before, positive_part(geometry.pad_after))
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


def overlap_add(frames: Tensor, axis: int, geometry: Axis) -> Tensor:
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
    frames = move_axis(frames, axis, 0)
    blocks, *others, _ = ops.shape(frames)
    frames = ops.reshape(frames, (blocks, -1, geometry.taps))  # LiteRT pads and cuts tensors of up to five axes
    frames = window(frames, [0], [shifts * stride], first_axis=2)
    total: Tensor = 0
    for shift in range(shifts):
        part = frames[..., shift * stride : (shift + 1) * stride]
        total = total + window(part, [-shift], [blocks + shifts - 1], first_axis=0)
    x = ops.reshape(ops.transpose(total, (0, 2, 1)), ((blocks + shifts - 1) * stride, -1))
    x = window(x, [geometry.pad_before], [geometry.size], first_axis=0)
    return move_axis(ops.reshape(x, (geometry.size, *others)), 0, axis)
