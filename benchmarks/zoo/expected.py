"""What must be true of a mirror, derived from the network alone: which kernels it shares, and how much it owns.

Nothing here asks the library. Policies are those of the zoo: gates are skipped or recorded, biases and normalisations are
the decoder's own, everything else has no parameters.
"""

import math
from dataclasses import dataclass

import keras

NORMALISATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


@dataclass(frozen=True)
class Expected:
    """What follows from a network.

    Attributes:
        shared: The kernels of all layers that a cotangent reaches.
        left_out: The kernels of layers that compute gates, which no cotangent reaches.
        own: How many parameters the policies give the decoder: for every layer with a kernel one bias per channel of
            its input, and for every normalisation another one like it.
    """

    shared: list
    left_out: list
    own: int


def expected_of(network):
    """What must be true of every mirror of a Functional model."""
    reached = reached_layers(network)
    own, shared, left_out = 0, [], []
    for layer in leaves(network):
        kernels = [variable for variable in layer.variables if is_kernel(variable)]
        if layer not in reached:
            left_out += kernels
            continue
        shared += kernels
        if kernels:
            own += layer.input.shape[-1]
        elif isinstance(layer, NORMALISATIONS):
            own += parameters(layer.variables)
    return Expected(shared, left_out, own)


def reached_layers(network):
    """The layers and operations that lie on a path from the outputs back to the inputs, which gates interrupt."""
    reached, waiting = set(), [tensor._keras_history.operation for tensor in network.outputs]
    while waiting:
        operation = waiting.pop()
        if operation not in reached:
            reached.add(operation)
            if isinstance(operation, keras.Model):
                reached |= reached_layers(operation)
            tensors = operation._inbound_nodes[0].input_tensors
            if isinstance(operation, keras.layers.Multiply):
                tensors = [signal_of(operation, tensors)]
            waiting += [tensor._keras_history.operation for tensor in tensors]
    return reached


def signal_of(operation, tensors):
    """The factor that a gate is broadcast to."""
    first, second = sorted(tensors, key=lambda tensor: math.prod(tensor.shape[1:]), reverse=True)
    if first.shape == second.shape:
        raise ValueError(f"Two factors of one shape do not say which of them is the gate. Received: {operation.name!r}")
    return first


def leaves(model):
    """The layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def is_kernel(variable):
    """Whether a variable is a kernel, by the name that its layer gave it."""
    return variable.name.endswith("kernel")


def parameters(variables):
    """How many numbers some variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)
