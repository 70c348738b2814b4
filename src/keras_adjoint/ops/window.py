"""Cut a stretch out of a tensor that is thought to go on with zeros in both directions.

Cropping and zero padding are one operation with two signs. Its adjoint is itself with start and length exchanged:
⟨window(x), y⟩ = ⟨x, window(y)⟩.
"""

from keras import ops

from keras_adjoint.ops.geometry import is_known, positive_part


def window(x, starts, lengths, first_axis=1):
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
    pads = [(0, 0)] * len(shape)
    cuts = [slice(None)] * len(shape)
    for axis, (start, length) in enumerate(zip(starts, lengths, strict=True), first_axis):
        front = positive_part(-start)
        behind = positive_part(start + length - shape[axis])
        pads[axis] = (front, behind)
        cuts[axis] = slice(start + front, start + front + length)
    if any(not is_known(pad) or pad for pair in pads for pad in pair):
        x = ops.pad(x, pads)
        shape = ops.shape(x)
    if any(_cuts(cut, size) for cut, size in zip(cuts, shape, strict=True)):
        x = x[tuple(cuts)]
    return x


def _cuts(cut, size):
    if cut.start is None:
        return False
    known = is_known(cut.start) and is_known(cut.stop) and is_known(size)
    return not known or cut.start != 0 or cut.stop != size
