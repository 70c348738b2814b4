"""Every kernel in a model: who holds it, and whether it is read forwards or backwards."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_adjoint.doctor.orders import BACKWARD, FORWARD, Role
from keras_adjoint.keras_internals import nn_operations, numpy_operations, own_variables
from keras_adjoint.layers.registry import nearest_class
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.calls import Call

L = keras.layers


@dataclass(frozen=True, eq=False)
class Kernel:
    """Two or more axes of numbers that belong to a layer, or that stand in a graph as a constant.

    Attributes:
        place: Where its owner is.
        owner: The layer, or the operation that is called with it.
        name: The name of the variable; "constant" in an operation.
        values: The variable, or the constant.
        role: `FORWARD` or `BACKWARD`; `None` for kernels of which nothing but their values is known.
        groups: The groups of a convolution.
        call: The call of an operation.
    """

    place: str
    owner: Any
    name: str
    values: Any
    role: Role | None
    groups: int = 1
    call: Call | None = None

    def read(self) -> np.ndarray:
        """The values as an array, those of a depthwise kernel as the kernel of a convolution with groups."""
        values: np.ndarray = keras.ops.convert_to_numpy(self.values)
        if self.role is not None and self.groups > 1 and reads_each_channel(self.owner, self.name):
            *taps, channels, multiplier = values.shape
            values = values.reshape(*taps, 1, channels * multiplier)
        return values

    @property
    def is_constant(self) -> bool:
        return self.call is not None

    @property
    def parameters(self) -> int:
        return int(np.prod(self.values.shape))

    @property
    def bytes(self) -> int:
        return self.read().nbytes


@dataclass(frozen=True)
class Reading:
    """How a layer type reads one of its variables."""

    role: Role
    groups: Callable[[keras.layers.Layer], int] = lambda layer: 1


def channels_of(name: str) -> Callable[[keras.layers.Layer], int]:
    return lambda layer: int(getattr(layer, name).shape[-2])


WITH_GROUPS = {"kernel": Reading(FORWARD, lambda layer: layer.groups)}
BY_CHANNEL = {"kernel": Reading(FORWARD, channels_of("kernel"))}
SEPARABLE = {
    "depthwise_kernel": Reading(FORWARD, channels_of("depthwise_kernel")),
    "pointwise_kernel": Reading(FORWARD),
}
TRANSPOSED = {"kernel": Reading(BACKWARD)}

LAYERS: dict[type[keras.layers.Layer], dict[str, Reading]] = {
    L.Conv1D: WITH_GROUPS,
    L.Conv2D: WITH_GROUPS,
    L.Conv3D: WITH_GROUPS,
    L.DepthwiseConv1D: BY_CHANNEL,
    L.DepthwiseConv2D: BY_CHANNEL,
    L.SeparableConv1D: SEPARABLE,
    L.SeparableConv2D: SEPARABLE,
    L.Conv1DTranspose: TRANSPOSED,
    L.Conv2DTranspose: TRANSPOSED,
    L.Conv3DTranspose: TRANSPOSED,
    L.Dense: {"kernel": Reading(FORWARD)},
    L.Embedding: {"embeddings": Reading(FORWARD)},
}

OPERATIONS: dict[type[keras.Operation], Role] = {
    nn_operations.Conv: FORWARD,
    nn_operations.ConvTranspose: BACKWARD,
    numpy_operations.Matmul: FORWARD,
    numpy_operations.Dot: FORWARD,
}


def reads_each_channel(owner: keras.layers.Layer, name: str) -> bool:
    """Whether a layer filters every channel on its own by this kernel."""
    return nearest_class(owner, LAYERS) in (L.DepthwiseConv1D, L.DepthwiseConv2D) or name == "depthwise_kernel"


def kernels_of(layers: Iterable[tuple[str, keras.layers.Layer]], calls: Iterable[Call]) -> Iterator[Kernel]:
    """Every kernel once: those of the layers in their order, then the constants of a graph.

    Args:
        layers: (place, layer), several times.
        calls: The calls of the model's graph.
    """
    seen: set[int] = set()
    for place, layer in layers:
        if isinstance(layer, Tied):
            continue  # its source is a layer of the model, or a copy on purpose; see `find_lost_ties`
        kind = nearest_class(layer, LAYERS)
        readings = LAYERS[kind] if kind is not None else {}
        for variable in own_variables(layer):
            if len(variable.shape) < 2 or id(variable) in seen:
                continue
            seen.add(id(variable))
            reading = readings.get(variable.name)
            role = reading.role if reading else None
            groups = reading.groups(layer) if reading else 1
            yield Kernel(place, layer, variable.name, variable, role, groups)
    for call in calls:
        for constant in call.constants if type(call.operation) in OPERATIONS else ():
            if len(getattr(constant, "shape", ())) > 1:
                place = call.path
                yield Kernel(place, call.operation, "constant", constant, OPERATIONS[type(call.operation)], call=call)
