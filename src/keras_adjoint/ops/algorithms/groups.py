"""The groups of a grouped convolution, brought to the front: each is then a dense convolution of its own."""

from keras import ops


def by_group(tensor, groups):
    """A matrix for every group, with a row for every position of every sample: `(groups, rows, channels / groups)`."""
    rows = ops.reshape(tensor, (-1, groups, tensor.shape[-1] // groups))
    return ops.transpose(rows, (1, 0, 2))


def groups_to_samples(y, groups):
    """Every group as a sample, all samples of the first group first: `(groups·batch, *sizes, channels / groups)`."""
    _, *sizes, channels = ops.shape(y)
    return ops.reshape(by_group(y, groups), (-1, *sizes, channels // groups))


def samples_to_groups(x, groups):
    """The way back."""
    _, *sizes, channels = ops.shape(x)
    x = ops.transpose(ops.reshape(x, (groups, -1, channels)), (1, 0, 2))
    return ops.reshape(x, (-1, *sizes, groups * channels))
