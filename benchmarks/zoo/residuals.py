"""The adjoint test of every layer in the backward pass, at the size that it has in the network."""

from dataclasses import dataclass

import numpy as np
from keras import ops

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import original_of
from keras_adjoint.layers.tied import Tied


@dataclass(frozen=True)
class Worst:
    """The outcome over all layers of a model.

    Attributes:
        tested: How many adjoints were tested.
        residual: The largest residual.
        over_tolerance: The largest residual divided by its own tolerance.
        layer: The layer that has the latter.
    """

    tested: int
    residual: float
    over_tolerance: float
    layer: str


def worst_residual(model):
    """The worst of all adjoints in a model, for random numbers of the shapes that their sources have there."""
    worst = Worst(0, 0.0, 0.0, "")
    for adjoint in model.layers:
        source = source_of(adjoint)
        if source is None:
            continue
        report = test(source, adjoint)
        ratio = report.residual / report.tolerance
        worst = Worst(
            worst.tested + 1,
            max(worst.residual, report.residual),
            max(worst.over_tolerance, ratio),
            source.name if ratio > worst.over_tolerance or not worst.layer else worst.layer,
        )
    return worst


def source_of(layer):
    """What a layer is the adjoint of; `None` if it is not an adjoint."""
    if isinstance(layer, Tied) and not layer.exact:
        return None
    return original_of(layer)


def test(source, adjoint):
    """The report on one adjoint: one trial, for there are hundreds of layers."""
    shapes = [(1, *tensor.shape[1:]) for tensor in source._inbound_nodes[0].input_tensors]
    if len(shapes) == 1:
        return ka.check_adjoint(source, adjoint, input_shape=shapes[0], trials=1)
    sizes = [int(np.prod(shape)) for shape in shapes]

    def forward(flat):
        parts = ops.split(flat, [int(cut) for cut in np.cumsum(sizes)[:-1]])
        inputs = [ops.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        return source(inputs) - source([ops.zeros_like(x) for x in inputs])

    def backward(y):
        return ops.concatenate([ops.reshape(x, (-1,)) for x in adjoint(y)])

    return ka.check_adjoint(forward, backward, input_shape=(sum(sizes),), trials=1)
