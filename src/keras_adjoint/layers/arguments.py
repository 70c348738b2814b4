"""What the arguments of a layer's call are, by the names of their parameters, and which of them a rule knows nothing of."""

import dis
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import keras
from keras import tree
from keras.layers import Layer

from keras_adjoint.keras_internals import Node, layers_inside, mask_of
from keras_adjoint.layers.registry import class_with_rule

# Parameters of layers that take tensors which the layer is not to be linear in; besides, all whose names end in "_mask".
RECORDED_PARAMETERS = frozenset({"mask", "switches", "recorded", "output_size"})

# Layers that give integers for integers, to which they round what their rule is about.
ROUND_INTEGERS = (keras.layers.SpectralNormalization,)


def bind(operation: keras.Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What was passed for each parameter of an operation's `call`; "0", "1", ... where that cannot be told."""
    try:
        bound = signature_of(type(operation).call).bind(None, *args, **kwargs).arguments
        return dict(list(bound.items())[1:])  # without `self`
    except (TypeError, ValueError):
        return {**{str(number): value for number, value in enumerate(args)}, **kwargs}


def called_with(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional arguments, keyword arguments) of a recorded call, with the masks that Keras hands in by itself.

    It takes them from the tensors: `mask` from those of the one argument that has any, or `query_mask` and the like from each
    of several. It records them only of a call with one tensor and nothing else: `layer(x, mask=None)` is recorded without.
    """
    args, kwargs = tuple(node.arguments.args), dict(node.arguments.kwargs)
    if not isinstance(node.operation, Layer) or all(mask_of(x) is None for x in node.input_tensors):
        return args, kwargs
    names, passed = signature_of(type(node.operation).call).parameters, bind(node.operation, args, kwargs)
    tensors = {name: value for name, value in passed.items() if _is_of_tensors(value)}
    for name, value in tensors.items():
        parameter = "mask" if len(tensors) == 1 else f"{name}_mask"
        masks = tree.map_structure(lambda x: None if x is None else mask_of(x), value)
        if (
            parameter in names
            and passed.get(parameter) is None
            and any(mask is not None for mask in tree.flatten(masks))
        ):
            kwargs[parameter] = masks
    return args, kwargs


def _is_of_tensors(value: Any) -> bool:
    leaves = [leaf for leaf in tree.flatten(value) if leaf is not None]
    return bool(leaves) and all(hasattr(leaf, "shape") for leaf in leaves)


@lru_cache
def signature_of(call: Any) -> inspect.Signature:
    """The parameters of a layer's `call`, or of another function."""
    return inspect.signature(call)


def positional_parameters(operation: keras.Operation) -> list[str]:
    """The names of the parameters of an operation's `call` that may be passed without a name, in order."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in signature_of(type(operation).call).parameters.values() if one.kind in kinds][1:]


def is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def is_recorded_parameter(name: str) -> bool:
    """Whether a layer is not to be linear in what is passed for a parameter of this name."""
    return name in RECORDED_PARAMETERS or name.endswith("_mask")


def is_beyond_rule(layer: Layer, node: Node) -> bool:
    """Whether a recorded call of a layer has arguments that its rule knows nothing of.

    A rule is about what a layer makes of its tensors alone. Constants among them, constant masks and options of the call
    are a part of the operator.
    """
    passed = bind(layer, *called_with(node))
    known = signature_of(type(layer).call).parameters
    for number, (name, value) in enumerate(passed.items()):
        leaves = [leaf for leaf in tree.flatten(value) if leaf is not None]
        constants = [leaf for leaf in leaves if not is_symbolic(leaf)]
        if number == 0:
            beyond = bool(constants) or (isinstance(layer, ROUND_INTEGERS) and any(map(_is_integer, leaves)))
        elif is_recorded_parameter(name):
            beyond = any(hasattr(leaf, "shape") for leaf in constants)
        elif name == "training":
            beyond = False
        else:
            beyond = bool(leaves) and not (name in known and _is(value, known[name].default))
        if beyond:
            return True
    return False


def _is_integer(tensor: keras.KerasTensor) -> bool:
    return "float" not in tensor.dtype


def _is(value: Any, default: Any) -> bool:
    """Whether an argument is a parameter's default; an array has no one answer to `==`."""
    return value is default or (type(value) is type(default) and not hasattr(value, "shape") and value == default)


def has_masks(node: Node) -> bool:
    """Whether a layer was called with masks that the model computes."""
    return any(
        is_recorded_parameter(name) and any(map(is_symbolic, tree.flatten(value)))
        for name, value in bind(node.operation, *called_with(node)).items()
    )


def depends_on_mask(layer: Layer) -> bool:
    """Whether a mask may be a part of what a layer with a rule computes, as in a mean over the steps that a mask keeps.

    In a `TimeDistributed` the layer inside gets the mask, and may be any layer.
    """
    if isinstance(layer, keras.layers.TimeDistributed):
        takes_mask = "mask" in signature_of(type(layer.layer).call).parameters
        return takes_mask and (class_with_rule(layer.layer) is None or depends_on_mask(layer.layer))
    return isinstance(layer, keras.layers.GlobalAveragePooling1D)


def default_training(operation: keras.Operation) -> Any:
    """What an operation's `call` takes its `training` for if that is not passed."""
    parameter = signature_of(type(operation).call).parameters.get("training")
    return None if parameter is None else parameter.default


def depends_on_training(layer: Layer) -> bool:
    """Whether a call of a layer may do something else in training: it reads its `training`, or layers inside of it do."""
    if isinstance(layer, keras.layers.TimeDistributed):  # it reads `training` to pass it on
        return depends_on_training(layer.layer)
    if isinstance(layer, keras.layers.Lambda):  # it reads `training` for functions that take it
        return "training" in signature_of(layer.function).parameters
    return any(map(depends_on_training, layers_inside(layer, recursive=False))) or _reads_training(type(layer).call)


@lru_cache
def _reads_training(call: Any) -> bool:
    arguments = [one.argval for one in dis.get_instructions(inspect.unwrap(call))]
    return "training" in {name for each in arguments for name in (each if isinstance(each, tuple) else (each,))}
