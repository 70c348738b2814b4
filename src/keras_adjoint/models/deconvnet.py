"""`deconvnet`: what in a picture a layer's features respond to, projected back to pixels (Zeiler and Fergus 2014)."""

import difflib
import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_adjoint.errors import quoted
from keras_adjoint.keras_internals import numpy_operations
from keras_adjoint.layers.call_pattern import one_or_list
from keras_adjoint.layers.deconvnet import SelectedFeatures
from keras_adjoint.layers.options import as_integer, items_of, name_or_none
from keras_adjoint.layers.wrapped import axes_of_steps, inside
from keras_adjoint.models.backward import packed_as
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph, trace
from keras_adjoint.models.mirror import check_names
from keras_adjoint.models.mirror_backward import MirrorBackwardPass
from keras_adjoint.models.policies import Policies
from keras_adjoint.models.steps import SamplesToSteps, StepsToSamples, depth_of_steps
from keras_adjoint.recursion import deep_recursion

DECONVNET = {
    "activation": "deconvnet",
    "pooling": "switches",
    "norm": "adjoint",
    "gates": "recorded",
    "preprocessing": "adjoint",
    "bias": "none",
}

OPTIONS = ("channel", "unit", "strongest", "name")


def deconvnet(
    model: keras.Model,
    layer: keras.layers.Layer | str,
    *,
    channel: int | None = None,
    unit: Sequence[int] | None = None,
    strongest: int | None = None,
    name: str | None = None,
    **policies: Any,
) -> keras.Model:
    """A model that shows what a layer's features respond to: it projects them back to pixels.

    Features are selected, all others are set to zero, and what is left passes the adjoints of the layers down to the input,
    through the switches that max pooling recorded in the forward pass, and through a ReLU wherever there was a ReLU
    (Zeiler and Fergus 2014, section 2.1).

    Args:
        model: A Functional or built Sequential model.
        layer: The layer, or its name, whose features are shown.
        channel: Show this channel alone.
        unit: Show this unit alone: one index for each axis of the features but the batch axis.
        strongest: Show the k strongest channels of each picture, each by its strongest unit, strongest first. Together with
            `channel`: the k strongest units of that channel.
        name: Name of the new model.
        **policies: Other policies than those of a deconvnet, which are `activation="deconvnet"`, `pooling="switches"`,
            `norm="adjoint"`, `gates="recorded"`, `preprocessing="adjoint"` and `bias="none"`. "deconvnet" and "guided" (guided
            backpropagation, Springenberg et al. 2015) are defined for rectifiers: ReLU, and ReLU with a maximum or a
            threshold. With `activation="gradient"`, which is defined for every activation, the projection is the gradient of
            the features that are selected, times their values (Simonyan et al. 2014).

    Returns:
        A Functional model from the model's inputs to projections of the same shape; with `strongest` they are stacked
        along a new axis after the batch axis. Without a selection all features are projected together. An input that the
        features do not depend on has a projection of zeros; of integers, such as lengths or a mask, there is none.

    Raises:
        ValueError: If there is no such layer, channel or unit, or an option does not go with another.
        NoRuleError: If a layer below has neither an adjoint nor a policy, or a policy is not defined for it.

    Example:

    >>> image = keras.Input((32, 32, 3))
    >>> features = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    >>> model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(features)))
    >>> ka.deconvnet(model, "conv", strongest=2)(np.ones((1, 32, 32, 3))).shape
    (1, 2, 32, 32, 3)
    """
    name = name_or_none("name", name)
    graph = graph_up_to(model, layer)
    features = graph.outputs[0]
    axis = channel_axis_of(graph)
    selections = _selections(features, axis, channel, unit, strongest)
    backward = MirrorBackwardPass(graph, model, Policies.named({**DECONVNET, **policies}, OPTIONS), records=True)
    stem = f"{model.name}_{graph.calls[-1].operation.name}"
    pictures = []
    for number, selection in enumerate(selections):
        select = SelectedFeatures(**selection, axis=axis, dtype=features.dtype, name=f"selected_{number}")
        pictures.append(
            backward.run([select(features) if any(v is not None for v in selection.values()) else features])
        )
    stacked = [
        keras.ops.stack(same_input, axis=1) if strongest else same_input[0]
        for same_input in zip(*pictures, strict=True)
    ]
    check_names(graph)
    whole = backward.build(packed_as(graph.input_structure, graph.inputs), stacked, name or f"{stem}_deconvnet")
    left_out = {number for number, x in enumerate(graph.inputs) if is_unreached_integer(x, backward)}
    if not left_out or len(left_out) == len(graph.inputs):
        return whole
    with deep_recursion():
        return keras.Model(whole.input, without(whole.output, left_out), name=whole.name)


def is_unreached_integer(x: keras.KerasTensor, backward: MirrorBackwardPass) -> bool:
    """Whether an input has no projection, not even zeros: lengths, identifiers and masks are no values along an axis."""
    return "float" not in x.dtype and any(x is unreached for unreached in backward.unreached)


def without(structure: Any, left_out: set[int]) -> Any:
    """The tensors of a list or dictionary without those of some numbers; a single one without a list around it."""
    numbered = enumerate(keras.tree.flatten_with_path(structure))
    kept = [(path, y) for number, (path, y) in numbered if number not in left_out]
    if isinstance(structure, dict):
        return {path[0] if len(path) == 1 else path: y for path, y in kept}
    return one_or_list([y for _, y in kept])


class NoSuchLayerError(ValueError):
    """A model calls no layer of a name.

    Args:
        model: The name of the model.
        layer: The name that was asked for.
        names: Those of the layers that it calls.
    """

    def __init__(self, model: str, layer: str, names: list[str]) -> None:
        self.layer, self.names = layer, names
        near = difflib.get_close_matches(layer, names, n=5, cutoff=0.5)
        called = f"The nearest are called {quoted(near)}" if near else f"The last ones are called {quoted(names[-3:])}"
        super().__init__(
            f"`{model}` calls no such layer. {called}; `model.summary(expand_nested=True)` has all of them. "
            f"Received: layer={layer!r}"
        )


def graph_up_to(model: keras.Model, layer: keras.layers.Layer | str) -> Graph:
    """The part of a model's graph that leads to the output of the first call of a layer."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`deconvnet` takes a model. Received: model={model!r}")
    if not isinstance(layer, (str, keras.Operation)):
        raise ValueError(f"`layer` must be a layer of the model or its name. Received: layer={layer!r}")
    graph = trace(model)
    for number, call in enumerate(graph.calls):
        if is_call_of(call, layer):
            calls = graph.calls[: number + 1]
            if depth_of_steps(calls):
                raise ValueError(
                    f"`{call.place}` is called at every step, in a model inside of `TimeDistributed`. Take the deconvnet of "
                    f"that model: `keras_adjoint.deconvnet(distributed.layer, ...)`. Received: layer={call.operation.name!r}"
                )
            return Graph(graph.inputs, [call.outputs[0]], calls, graph.input_structure)
    names = list(dict.fromkeys(name for call in graph.calls for name in (call.path, call.operation.name)))
    raise NoSuchLayerError(model.name, str(getattr(layer, "name", layer)), names)


def is_call_of(call: Call, layer: keras.layers.Layer | str) -> bool:
    """Whether a call is that of a layer, or the end of that of a `TimeDistributed` around a model."""
    if call.operation is layer or layer in (call.operation.name, call.place, call.path):
        return True
    around, (outer, _, model) = getattr(layer, "name", layer), call.path.rpartition("/")[0].rpartition("/")
    joins = isinstance(call.operation, SamplesToSteps) and call.operation.name.startswith(f"{model}_steps")
    return joins and around in (model, f"{outer}/{model}")


def data_format_of(graph: Graph) -> str:
    """Where the last tensor of a graph has its channels: where the last layer that says so puts them."""
    formats = [getattr(call.operation, "data_format", None) for call in graph.calls]
    return next((found for found in reversed(formats) if found), keras.config.image_data_format())


# Layers that give their channels along the last axis, wherever they were before.
CHANNELS_LAST = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.RNN,
    keras.layers.Bidirectional,
    keras.layers.MultiHeadAttention,
)


def channel_axis_of(graph: Graph) -> int:
    """The axis along which the last tensor of a graph has its channels, the batch axis being axis 0.

    It is where the last layer that says so puts them, moved by what permutes the axes since then.
    """
    made = {id(y): call for call in graph.calls for y in call.outputs}
    x, passed = graph.outputs[0], []
    while (call := made.get(id(x))) is not None and _channels_of(call.operation) is None and call.inputs:
        passed.append((call.operation, len(x.shape) - 1))
        x = next((each for each in call.inputs if each.shape == x.shape), call.inputs[0])
    last = len(x.shape) - 1
    found = keras.config.image_data_format() if call is None else _channels_of(call.operation)
    axis = min(1 + axes_of_steps(call and call.operation), last) if found == "channels_first" else last
    for operation, last in reversed(passed):
        layer, steps = inside(operation), axes_of_steps(operation)
        if isinstance(layer, keras.layers.Permute) and axis > steps:
            axis = layer.dims.index(axis - steps) + 1 + steps
        if isinstance(layer, numpy_operations.Transpose) and layer.axes:
            axis = layer.axes.index(axis)
        axis += isinstance(layer, SamplesToSteps) - isinstance(layer, StepsToSamples)
        axis = max(1, min(axis, last))
    return axis


def _channels_of(operation: keras.Operation) -> str | None:
    """The data format of what a layer gives; `None` if it leaves the channels where they were."""
    layer = inside(operation)
    return "channels_last" if isinstance(layer, CHANNELS_LAST) else getattr(layer, "data_format", None)


def _integer(option: str, value: Any, given: Any) -> int:
    """An integer that was given for an option, alone or among others."""
    number = as_integer(value)
    if number is None:
        what = "an integer" if value is given else "a sequence of integers"
        raise ValueError(f"`{option}` must be {what}. Received: {option}={given!r}")
    return number


def _selections(
    features: keras.KerasTensor,
    axis: int,
    channel: int | None,
    unit: Sequence[int] | None,
    strongest: int | None,
) -> list[dict[str, Any]]:
    """Options of `SelectedFeatures`, one for each projection; checked against the shape of the features."""
    shape = tuple(features.shape[1:])
    channels = shape[axis - 1]
    channel, strongest = (
        None if value is None else _integer(option, value, value)
        for option, value in (("channel", channel), ("strongest", strongest))
    )
    if unit is not None:
        unit = [_integer("unit", index, unit) for index in items_of(unit) or [None]]
    if unit is not None and (channel is not None or strongest is not None):
        raise ValueError(
            f"`unit` names one unit, so `channel` and `strongest` make no sense beside it. Received: unit={unit}, "
            f"channel={channel}, strongest={strongest}"
        )
    if channel is not None and not 0 <= channel < channels:
        raise ValueError(f"The features have {channels} channels, counted from 0. Received: channel={channel}")
    if unit is not None:
        fits = len(unit) == len(shape) and all(
            size is None or 0 <= i < size for i, size in zip(unit, shape, strict=True)
        )
        if not fits or None in shape:
            raise ValueError(
                f"A unit has one index, counted from 0, for each of the features' sizes, which must be known: {shape}. "
                f"Received: unit={tuple(unit)}"
            )
    if strongest is None:
        return [{"channel": channel, "unit": unit}]
    candidates = channels if channel is None else math.prod(size or 1 for size in shape) // channels
    if strongest < 1 or (strongest > candidates and None not in shape):
        kind = "channels" if channel is None else "units in that channel"
        raise ValueError(f"There are {candidates} {kind} to choose from. Received: strongest={strongest}")
    return [{"channel": channel, "rank": rank} for rank in range(strongest)]
