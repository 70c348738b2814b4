"""What this package takes from Keras beyond its public API, all of it but what `keras_files` has for files.

No other module imports from `keras.src` or reads an attribute of Keras' that begins with an underscore.
`tests/test_keras_internals.py` holds every name here to what its docstring says, and names the versions it was seen on.
"""

import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any, TypeAlias

import keras
from keras.src.activations import activations as activation_operations
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.backend import nn as backend_nn
from keras.src.backend.common import global_state
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.layers.layer import CallContext
from keras.src.models.functional import Functional
from keras.src.ops import core as core_operations
from keras.src.ops import nn as nn_operations
from keras.src.ops import numpy as numpy_operations

__all__ = [
    "CustomScaleLayer",  # InceptionResNetV2's weighted sum of two tensors
    "Functional",  # what `keras.Model(inputs, outputs)` returns
    "LayerScale",  # ConvNeXt's scale of each channel
    "StochasticDepth",  # ConvNeXt's dropout of whole samples
    "activation_operations",  # the classes behind those of `keras.activations` that `keras.ops` lacks: `ReLU`, `Mish`
    "in_stateless_scope",  # whether variables have other values than their own for now
    "core_operations",  # the classes behind `keras.ops.cast`, `unstack` and the like: `Cast`, `Unstack`
    "nn_operations",  # the classes behind `keras.ops.conv`, `relu` and the like: `Conv`, `Relu`
    "numpy_operations",  # the classes behind `keras.ops.add`, `reshape` and the like: `Add`, `Reshape`
]

Node: TypeAlias = Any  # Keras' record of one symbolic call; it has no public name
Tensor: TypeAlias = Any

_CALL_GOING_ON = "current_call_ctx"


def existing(module: ModuleType, *names: str) -> list[type]:
    """The classes of these names that a module of this version of Keras has."""
    return [getattr(module, name) for name in names if hasattr(module, name)]


# --- graphs


def producer_of(tensor: keras.KerasTensor) -> keras.Operation:
    """The layer or operation whose call returned a symbolic tensor; an `InputLayer` for an input."""
    return tensor._keras_history.operation


def call_of(tensor: keras.KerasTensor) -> Node:
    """The record of the call that returned a symbolic tensor: what `calls_of` says, and the `operation`."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def operations_behind(tensor: keras.KerasTensor) -> Iterator[keras.Operation]:
    """The operations whose calls led to a symbolic tensor, each call once, the last ones first; none without a record."""
    waiting, met = [tensor], set()
    while waiting:
        history = getattr(waiting.pop(), "_keras_history", None)
        if history is None or (id(history.operation), history.node_index) in met:
            continue
        met.add((id(history.operation), history.node_index))
        waiting += history.operation._inbound_nodes[history.node_index].input_tensors
        yield history.operation


def calls_of(operation: keras.Operation) -> Sequence[Node]:
    """Every symbolic call of a layer or operation so far, the oldest first.

    A node has `arguments` (with `args`, `kwargs` and `fill_in`), `input_tensors` and `output_tensors`. An object that is no
    operation has none.
    """
    return getattr(operation, "_inbound_nodes", ())


def nodes_of(model: Functional | keras.Sequential) -> Iterator[Node]:
    """The calls that a Functional or Sequential model consists of, in an order in which they can run.

    Besides what `calls_of` says of nodes, these have an `operation`. Inputs are left out. A model without a graph has none.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    by_depth = {} if graph is None else graph._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def set_shape(tensor: keras.KerasTensor, shape: Sequence[int | None]) -> None:
    """Give a symbolic tensor sizes that Keras left open, before anything is called on it."""
    tensor._shape = tuple(shape)


def set_dense(tensor: keras.KerasTensor) -> None:
    """Take back that a symbolic tensor is sparse, which Keras says of every multiple of one by a constant."""
    tensor._sparse = False


# --- layers and their variables


def layers_inside(layer: keras.layers.Layer, *, recursive: bool = True) -> list[keras.layers.Layer]:
    """The layers that a layer or model holds, each once; with `recursive` those that these hold, too."""
    return layer._flatten_layers(include_self=False, recursive=recursive)


def own_variables(layer: keras.layers.Layer) -> tuple[keras.Variable, ...]:
    """The variables that a layer made itself, without those of the layers inside it."""
    return (*layer._trainable_variables, *layer._non_trainable_variables)


def set_own_trainable(layer: keras.layers.Layer, trainable: bool, *, but: Container[int] = ()) -> None:
    """Set whether a layer trains its own variables, but those of these `id`s, and leave the layers inside it as they are.

    The public setter, `layer.trainable = ...`, sets all of them.
    """
    layer._trainable = trainable
    for variable in layer._trainable_variables:
        if id(variable) not in but:
            variable.trainable = trainable


def set_trainable(layer: keras.layers.Layer, trainable: bool) -> None:
    """Set whether a layer and all in it are trained. TensorFlow skips one whose switch is so already, but for its variables."""
    layer.trainable = not trainable
    layer.trainable = trainable


def computing_in(layer: keras.layers.Layer, dtype: str, *, part_of_model: bool = False) -> keras.layers.Layer | None:
    """An object that computes what a layer does from the same variables in another dtype, and owns nothing.

    Args:
        layer: A layer; those that it holds are replaced alike. A model is made anew of such objects.
        dtype: The name of the dtype policy.
        part_of_model: Whether the object is to be called symbolically, without leaving a record with the layer.

    Returns:
        The object, or a model; `None` where layers are held in other ways than as attributes, are quantised, or have dtype
        policies by their paths.
    """
    return _Stand(dtype, part_of_model).of(layer)


class _Stand:
    """Makes the objects for `computing_in`, one for each layer."""

    def __init__(self, dtype: str, part_of_model: bool) -> None:
        self.dtype, self.part_of_model = dtype, part_of_model
        self.made: dict[int, keras.layers.Layer | None] = {}

    def of(self, layer: keras.layers.Layer) -> Any:
        if id(layer) not in self.made:
            self.made[id(layer)] = self._make(layer)
        return self.made[id(layer)]

    def _make(self, layer: keras.layers.Layer) -> Any:
        if isinstance(layer, (Functional, keras.Sequential)) and type(layer).__module__.startswith("keras."):
            return self._model(layer)
        attributes = {**vars(layer).get("_modules", {}), **vars(layer)}  # where PyTorch keeps those that are modules
        held = {name: value for name, value in attributes.items() if isinstance(value, keras.layers.Layer)}
        inner = {name: self.of(value) for name, value in held.items()}
        covered = {id(value) for value in held.values()}
        others = [
            each for each in layer._flatten_layers(include_self=False, recursive=False) if id(each) not in covered
        ]
        plain = not isinstance(layer.dtype_policy, keras.dtype_policies.DTypePolicyMap)
        if others or None in inner.values() or not plain or layer.quantization_mode is not None:
            return None
        found = object.__new__(type(layer))
        policy = keras.dtype_policies.get(self.dtype)
        policy._variable_dtype = layer.variable_dtype  # from which variables are cast
        own = {"_layers": [self.of(each) for each in layer._layers], "_losses": [], "_dtype_policy": policy}
        vars(found).update({**vars(layer), **inner, **own})
        if self.part_of_model:
            vars(found).update(_inbound_nodes=[], _outbound_nodes=[])
        if type(layer).__module__.startswith("keras_adjoint."):  # plain dictionaries are what these have cached
            vars(found).update({n: {} for n, value in vars(layer).items() if type(value) is dict and n[0] != "_"})
        return found

    def _model(self, model: Any) -> keras.Model | None:
        layers = model._flatten_layers(include_self=False, recursive=False)
        self.part_of_model = True
        if any(self.of(each) is None for each in layers if not isinstance(each, keras.layers.InputLayer)):
            return None
        is_chain = isinstance(model, keras.Sequential)
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name) if is_chain else model
        return keras.models.clone_model(
            graph, clone_function=lambda each: self.of(each) if isinstance(each, keras.layers.Layer) else each
        )


@contextmanager
def called_aside(layer: keras.layers.Layer) -> Iterator[None]:
    """Inside, calls of `layer` are at inference, whatever calls are going on around them, and leave no losses behind.

    What a call finds in its context counts as if it were given, and layers inside of layers find it there, too.
    """
    outer = global_state.get_global_attribute(_CALL_GOING_ON)
    context = CallContext(entry_layer=None)
    context.training = False
    losses = [one._losses for one in (layer, *layers_inside(layer))]
    if in_stateless_scope():
        losses.append(get_stateless_scope().losses)
    counts = [len(each) for each in losses]
    global_state.set_global_attribute(_CALL_GOING_ON, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(_CALL_GOING_ON, outer)
        for each, count in zip(losses, counts, strict=True):
            del each[count:]


def outermost_call() -> keras.layers.Layer | None:
    """The layer or model whose call is going on, rather than one that this has called."""
    context = global_state.get_global_attribute(_CALL_GOING_ON)
    return None if context is None else context.entry_layer


def parameters_by_path(layer: keras.layers.Layer | None) -> Mapping[str, Any]:
    """The parameters that PyTorch finds in a layer or model, by the paths of its variables; none before it looks for them."""
    return dict(getattr(layer, "_torch_params", {}))


def held_value(variable: keras.Variable) -> Tensor:
    """The tensor that a variable holds, in its own dtype and whatever scope it is read in."""
    return variable._value


def mask_of(tensor: Tensor) -> Tensor | None:
    """The mask that a tensor carries, which layers called on it find."""
    return get_keras_mask(tensor)


def masked(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """The same tensor, which from now on carries a mask, if there is one."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


# --- second derivatives


class _Replacements(threading.local):
    def __init__(self) -> None:
        self.going_on: list[Mapping[str, Callable[..., Any]]] = []


_REPLACEMENTS = _Replacements()


@contextmanager
def computed_by(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, this thread computes some functions of Keras' backend by others, which take the former as their first argument.

    They are functions behind `keras.ops` that deal with networks, by name: `moments`, `max_pool`.
    """
    for name in functions:
        _make_replaceable(name)
    _REPLACEMENTS.going_on.append(functions)
    try:
        yield
    finally:
        _REPLACEMENTS.going_on.pop()


@cache
def _make_replaceable(name: str) -> None:
    original = getattr(backend_nn, name)

    @wraps(original)
    def computed(*args: Any, **options: Any) -> Any:
        for functions in reversed(_REPLACEMENTS.going_on):
            if name in functions:
                return functions[name](original, *args, **options)
        return original(*args, **options)

    setattr(backend_nn, name, computed)


# --- quantised kernels


def stored_variable(layer: keras.layers.Layer, name: str) -> keras.Variable:
    """The variable behind a property such as `kernel`, where LoRA and quantisation have the property compute its value.

    For int8 these are the codes.
    """
    return getattr(layer, f"_{name}")


def stored_kernel(layer: keras.layers.Layer) -> keras.Variable | None:
    """The variable in which a layer keeps its kernel, whether or not `layer.kernel` computes something from it."""
    return next(
        (
            variable
            for name in ("_kernel", "kernel")
            if isinstance(variable := getattr(layer, name, None), keras.Variable)
        ),
        None,
    )


def scale_along_codes(layer: keras.layers.EinsumDense, scale: Tensor) -> Tensor:
    """The scale of an int8 `EinsumDense` with the axes of its codes, which are codes = kernel · scale."""
    if hasattr(layer, "_adjust_scale_for_dequant"):  # since Keras 3.11
        return layer._adjust_scale_for_dequant(scale)
    if layer._kernel_squeeze_axes:
        scale = keras.ops.expand_dims(scale, layer._kernel_squeeze_axes)
    if layer._kernel_expand_axes:
        scale = keras.ops.squeeze(scale, layer._kernel_expand_axes)
    return keras.ops.transpose(scale, layer._kernel_reverse_transpose_axes)
