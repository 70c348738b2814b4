"""Several tensors read as one vector per sample, so that an operator between several is a matrix like any other."""

import math

from keras import ops


class Packing:
    """Side by side, each tensor flattened behind its batch axis.

    Args:
        shapes: The tensors' shapes, batch axis included.
    """

    def __init__(self, shapes):
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.sizes = [math.prod(shape[1:]) for shape in self.shapes]

    @property
    def shape(self):
        """Shape of all of them as one tensor."""
        return self.shapes[0][0], sum(self.sizes)

    def split(self, packed):
        """The tensors in a packed one, whatever its number of samples."""
        parts, start = [], 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            parts.append(ops.reshape(packed[:, start : start + size], (-1, *shape[1:])))
            start += size
        return parts

    @staticmethod
    def join(tensors):
        """One tensor of them all."""
        return ops.concatenate([ops.reshape(tensor, (ops.shape(tensor)[0], -1)) for tensor in tensors], axis=1)


def packed(operator, inputs, outputs):
    """`operator` between packed tensors. `inputs` and `outputs` are a `Packing`, or `None` where there is one tensor."""

    def apply(x):
        y = operator(x if inputs is None else inputs.split(x))
        return y if outputs is None else outputs.join(y)

    return apply
