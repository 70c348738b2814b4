"""What can be applied in blocks: operators, layers and models, each as its calls at a known size."""

from typing import Any

import keras

from keras_adjoint.blocks.pointwise import EMBEDDINGS
from keras_adjoint.blocks.program import SizedGraph
from keras_adjoint.blocks.rule import spatial_axes
from keras_adjoint.blocks.rules import computing_layer
from keras_adjoint.blocks.sized_call import ChooseSize, SizedCall, calls_at, calls_of_layer
from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.keras_internals import existing
from keras_adjoint.layers.registry import class_with_rule, describe
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.graph import graph_of, trace
from keras_adjoint.operators.asked_size import sizes_meant
from keras_adjoint.operators.layer_operator import LayerOperator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Shape

RESIZING = ("AveragePooling1D", "MaxPooling1D", "UpSampling1D", "ZeroPadding1D", "Cropping1D")
ANY_CHANNELS = tuple(existing(keras.layers, *RESIZING, "Activation", "ReLU", "LeakyReLU", "ELU"))


def sized_graph_of(
    source: Any, size: Any, choose_size: ChooseSize | None = None, *, option: str = "input_size"
) -> SizedGraph:
    """The calls that an operator, layer or model makes of an array of some size, and their rules; see `calls_at`.

    Args:
        source: What is applied.
        size: A shape without the batch axis, or its spatial sizes.
        choose_size: See `calls_at`.
        option: What the user calls the size.

    Raises:
        NoRuleError: If it cannot be applied in blocks.
        SizeError: If it does not take an array of this size.
    """
    if isinstance(source, Operator):
        return _of_operator(source, size, option)
    if not isinstance(source, keras.layers.Layer):
        raise ValueError(
            f"Blocks are planned for an operator, a Keras layer or a model. Received: {source!r} of type "
            f"{type(source).__name__}"
        )
    if graph_of(source) is None or class_with_rule(source) is not None:
        templates = _templates(source)
        (shape,) = _one(source, sizes_meant(source, templates, size, option))
        try:
            return _of_layer(source, shape, choose_size)
        except SizeError as error:
            if templates or source.built:
                raise
            raise SizeError(
                f"`{source.name}` is not built, so that its channels are not known, and does not take arrays of shape {shape}. "
                "Pass their whole shape, channels included, without the batch axis, or build the layer. "
                f"Received: {option}={size!r}, {describe(source)}"
            ) from error
    _one(source, source.inputs)
    _one(source, source.outputs)
    template = tuple(source.inputs[0].shape[1:])
    first = next((layer for layer in source.layers if hasattr(layer, "data_format")), source)
    (shape,) = sizes_meant(first if len(template) > 1 else source, [template], size, option)
    return _of_model(source, shape, choose_size)


def sized_graph_of_signals(
    source: Any, length: int, choose_size: ChooseSize, channels: int | None = None
) -> SizedGraph:
    """The same for signals of any length, also of a model that was made for one: layers with a rule do not depend on it.

    Args:
        source: What is applied.
        length: How long signals are.
        choose_size: See `calls_at`.
        channels: How many channels they have, if the layer takes any number of them.

    Raises:
        NoRuleError: See `sized_graph_of`, or if it takes no signals.
        SizeError: If it does not take signals of this length.
    """
    if graph_of(source) is None or class_with_rule(source) is not None:
        if channels is not None or takes_any_channels(source):
            is_first = _format_of(computing_layer(source)) == "channels_first"
            shape = (channels or 1, length) if is_first else (length, channels or 1)
            return _of_layer(source, shape, choose_size)
        _check_channels(source)
        return sized_graph_of(source, length, choose_size, option="length")
    ((*template,),) = (tuple(x.shape[1:]) for x in _one(source, source.inputs))
    _one(source, source.outputs)
    if len(template) != 2:
        raise NoRuleError(
            f"A stream is of signals, with one axis of positions and one of channels. Received: {describe(source)}, which "
            f"takes {tuple(template)}"
        )
    formats = [_format_of(computing_layer(layer)) for layer in source.layers]
    template[1 if "channels_first" in formats else 0] = length
    return _of_model(source, tuple(template), choose_size)


def takes_any_channels(layer: Any) -> bool:
    """Whether a layer of signals takes any number of channels, of which none is known."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    core = computing_layer(layer)
    while isinstance(core, Tied):
        core = core.source
    position = 0 if _format_of(core) == "channels_first" else 1
    known = [template for template in _templates(layer) if len(template) == 2 and template[position] is not None]
    return isinstance(core, ANY_CHANNELS) and not known


def own_length(source: Any) -> int | None:
    """The length of the signals that a model, or an adjoint of known `output_size`, was made for, if there is one."""
    if isinstance(source, Tied):
        size = getattr(source, "output_size", None) if source.needs_output_size else None
        windows = getattr(source, "windows", None)
        return windows[0].at(size[0]).outputs if size and windows else None
    if graph_of(source) is None:
        return None
    formats = [_format_of(computing_layer(layer)) for layer in source.layers]
    length: int | None = source.inputs[0].shape[2 if "channels_first" in formats else 1]
    return length


def _check_channels(layer: Any) -> None:
    """A layer alone has to know the channels of its signals, of which a length says nothing."""
    if not isinstance(layer, keras.layers.Layer):
        return
    templates = _templates(layer)
    position = 0 if _format_of(computing_layer(layer)) == "channels_first" else 1
    if not templates or any(len(template) == 2 and template[position] is None for template in templates):
        raise NoRuleError(
            f"The channels of the signals that `{layer.name}` takes are not known. Stream a model of it, "
            f"`keras.Sequential([keras.Input((None, channels)), layer])`. Received: {describe(layer)}"
        )


def _one(source: Any, tensors: Any) -> Any:
    if len(tensors) != 1:
        raise NoRuleError(
            f"Blocks are read from one array and written to one. `{source.name}` has {len(tensors)}: make a model of one input "
            f"and one output of it. Received: {describe(source)}"
        )
    return tensors


def _templates(layer: keras.layers.Layer) -> list[Shape]:
    """The shape that a layer takes, as far as it is known, without the batch axis; none if nothing is."""
    if isinstance(layer, Tied) and layer.expected.axes is not None:
        axes, fixed = layer.expected.axes, layer.expected.sizes
        sizes = {axis % axes: size for axis, size in fixed.items()}
        return [tuple(sizes.get(axis) for axis in range(1, axes))]
    found = [shape[1:] for shape in recorded_shapes(layer)]
    if not found:
        rank = getattr(layer.input_spec, "ndim", None)
        return [(None,) * (rank - 1)] if rank else []
    same = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*found, strict=True)]
    return [tuple(same)] if len({len(shape) for shape in found}) == 1 else []


def _of_layer(layer: keras.layers.Layer, shape: tuple[int, ...], choose_size: ChooseSize | None = None) -> SizedGraph:
    calls = calls_of_layer(layer, shape, choose_size)
    _one(layer, calls[0].outputs)
    return SizedGraph(calls, calls[0].inputs[0], calls[0].output, _space(calls, len(shape)))


def _of_model(model: keras.Model, shape: tuple[int, ...], choose_size: ChooseSize | None = None) -> SizedGraph:
    calls, given, made = calls_at(trace(model), shape, choose_size)
    return SizedGraph(calls, given, made, _space(calls, len(shape)))


def _of_operator(operator: Operator, size: Any, option: str) -> SizedGraph:
    if len(operator.in_space.shapes) != 1 or len(operator.out_space.shapes) != 1:
        raise NoRuleError(
            f"Blocks are read from one array and written to one. Received: {operator!r}, from {len(operator.in_space.shapes)} "
            f"to {len(operator.out_space.shapes)} arrays"
        )
    ((shape,), (made,)) = operator.in_space.shapes, operator.out_space.shapes
    layer = operator.layer() if not isinstance(operator, LayerOperator) else operator.forward
    graph = _of_layer(layer, shape) if graph_of(layer) is None else _of_model(layer, shape)
    asked = (size,) if isinstance(size, int) else tuple(size)
    spatial = tuple(shape[axis] for axis in _space(graph.calls, len(shape)))
    if asked not in (shape, spatial, (size,) if set(spatial) == {size} else shape):
        raise SizeError(
            f"An operator has one size. Take it at the size that is meant, `keras_adjoint.operator(layer, size=...)`. "
            f"Received: {option}={size!r} for {operator!r}"
        )
    if graph.out_shape != made:
        raise SizeError(f"`{layer.name}` gives {graph.out_shape}. Received: {operator!r}")
    return graph


def _space(calls: list[SizedCall], rank: int) -> range:
    """The axes of the input along which it is cut: all but that of the channels."""
    layers = [computing_layer(call.operation) for call in calls if isinstance(call.operation, keras.layers.Layer)]
    if layers and isinstance(layers[0], EMBEDDINGS):
        return range(rank)
    found = next(filter(None, map(_format_of, layers)), "channels_last")
    return spatial_axes(rank, found)


def _format_of(layer: Any) -> str | None:
    """Where a layer has its channels, if it says so."""
    while isinstance(layer, Tied):
        layer = layer.source
    if isinstance(layer, keras.layers.BatchNormalization):
        return "channels_first" if layer.axis == 1 else None
    return getattr(layer, "data_format", None)
