"""What this package takes from Keras beyond its public API, all of it.

No other module imports from `keras.src` or reads an attribute of Keras' that begins with an underscore.
`tests/test_keras_internals.py` and, for files, `test_keras_files.py` hold every name here to what its docstring says, and name
the versions it was seen on.
"""

import json
import sys
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, wraps
from types import FrameType, ModuleType
from typing import Any, TypeAlias

import keras
from keras.src import layers as layers_package
from keras.src.activations import activations as activation_operations
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.backend import nn as backend_nn
from keras.src.backend.common import global_state
from keras.src.backend.common import variables as common_variables
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.layers.layer import CallContext
from keras.src.legacy.saving import saving_utils as legacy_saving
from keras.src.models.functional import Functional
from keras.src.ops import core as core_operations
from keras.src.ops import nn as nn_operations
from keras.src.ops import numpy as numpy_operations
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope

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
_MET_WHILE_WRITING = "shared_objects/id_to_config_map"
_MET_WHILE_READING = "shared_objects/id_to_obj_map"
_READS_HDF5 = "use_legacy_config"


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


# --- files


def shared_while_saving() -> AbstractContextManager[Any]:
    """What Keras saves and loads files in: inside, one layer has one identity, however often it is met."""
    return ObjectSharingScope()


def without_code_from_files() -> AbstractContextManager[Any]:
    """Inside, Keras refuses a file whose Lambda layers would run code; before 3.11 it forgets to for HDF5."""
    return SafeModeScope(True)


def named_object(module: str, name: str) -> Any:
    """The class or function of a name in a module that is imported already; `None` if there is none.

    Keras imports modules of its own for names in files, of which `import keras` has imported those with layers.
    """
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def legacy_layer(name: str) -> Any:
    """What Keras takes the name of a class in HDF5 for, which says no module; `None` if it is registered or unknown."""
    return vars(layers_package).get(name)


def without_training(config: Any) -> Any:
    """A model's configuration, of JSON's types, from which what says how models were trained is taken away in place.

    Keras keeps it beside the configuration of a model, and of each model inside of that.
    """
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                value.pop("compile_config", None)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return config


@contextmanager
def sequential_models_built_once() -> Iterator[None]:
    """Inside, Keras builds a Sequential model that it reads when that has all of its layers.

    By itself it does so anew for each of them, so that a small file of many layers takes minutes.
    """
    read, add = vars(keras.Sequential)["from_config"], keras.Sequential.add

    def from_config(cls: type, config: Any, custom_objects: Any = None) -> Any:
        if "name" not in config:
            return read.__func__(cls, config, custom_objects)  # whose error says so
        config = dict(config)
        shape = config.pop("build_input_shape", None)
        model = read.__func__(cls, config, custom_objects)
        if model._layers:
            model._maybe_rebuild()
        if not model._functional and shape and isinstance(shape, (tuple, list)):
            model.build(shape)
        return model

    def add_alone(model: keras.Sequential, layer: Any, rebuild: bool = True) -> None:
        add(model, layer, rebuild=False)

    keras.Sequential.from_config, keras.Sequential.add = classmethod(from_config), add_alone
    try:
        yield
    finally:
        keras.Sequential.from_config, keras.Sequential.add = read, add


@contextmanager
def without_compiling() -> Iterator[None]:
    """Inside, Keras reads `without_training` what is in a file, so that no loss, metric or optimizer is looked for or made."""
    from_json, from_config = saving_lib._model_from_config, legacy_saving.model_from_config

    def model_from_json(text: Any, *args: Any, **options: Any) -> Any:
        return from_json(json.dumps(without_training(json.loads(text))), *args, **options)

    def model_from_config(config: Any, *args: Any, **options: Any) -> Any:
        return from_config(without_training(config), *args, **options)

    saving_lib._model_from_config, legacy_saving.model_from_config = model_from_json, model_from_config
    try:
        yield
    finally:
        saving_lib._model_from_config, legacy_saving.model_from_config = from_json, from_config


@contextmanager
def watched_building(
    on_variable: Callable[[Sequence[int], str], None], on_tensor: Callable[[Sequence[int | None], str], None]
) -> Iterator[None]:
    """Inside, Keras says the shape and dtype of every variable and every symbolic tensor before it makes it."""
    common = next(kind for kind in keras.Variable.__mro__ if kind.__module__ == common_variables.__name__)
    make_variable, make_tensor = common.__init__, keras.KerasTensor.__init__

    def variable(self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **options: Any) -> None:
        if shape is not None:
            on_variable((shape,) if isinstance(shape, int) else tuple(shape), str(dtype or "float32"))
        make_variable(self, initializer, shape, dtype, *args, **options)

    def tensor(self: Any, shape: Any, dtype: Any = "float32", *args: Any, **options: Any) -> None:
        if isinstance(shape, (tuple, list)):
            on_tensor(shape, str(dtype))
        make_tensor(self, shape, dtype, *args, **options)

    common.__init__, keras.KerasTensor.__init__ = variable, tensor
    try:
        yield
    finally:
        common.__init__, keras.KerasTensor.__init__ = make_variable, make_tensor


def with_code_from_memory() -> AbstractContextManager[Any]:
    """Inside, Keras makes Lambda layers from configs, whose code it runs: for configs of layers that exist already."""
    return SafeModeScope(False)


def announce_to_file(layer: keras.layers.Layer) -> None:
    """Make the file that Keras is writing now, if any, treat `layer` as one that it has met before."""
    met = global_state.get_global_attribute(_MET_WHILE_WRITING)
    if met is not None:
        met.setdefault(id(layer), {})


def kept_with_file(name: str, make: Callable[[], Any]) -> Any:
    """A value that is kept under a name as long as Keras is writing one file, made at first; `None` if it writes none."""
    met = global_state.get_global_attribute(_MET_WHILE_WRITING)
    if met is not None and name not in met:
        met[name] = make()
    return None if met is None else met[name]


def models_being_written() -> list[keras.Model]:
    """The Functional and Sequential models that Keras is asking for their configs now, the innermost first."""
    codes = {Functional.get_config.__code__, keras.Sequential.get_config.__code__}
    return [frame.f_locals["self"] for frame in _frames() if frame.f_code in codes]


def reads_file() -> bool:
    """Whether Keras is reading a file now, and finds again the layers that it has read from it."""
    return global_state.get_global_attribute(_MET_WHILE_READING) is not None


def read_from_file_before(config: dict[str, Any]) -> bool:
    """Whether the file that Keras is reading now has given the object of a config already."""
    met = global_state.get_global_attribute(_MET_WHILE_READING) or {}
    return met.get(config.get("shared_object_id")) is not None


def reads_hdf5() -> bool:
    """Whether Keras is reading a whole model from HDF5, a format that knows no shared layers."""
    return bool(global_state.get_global_attribute(_READS_HDF5))


def restores_copy() -> bool:
    """Whether Keras is restoring an object for `pickle` or `copy.deepcopy`, which it does object by object."""
    return any(frame.f_code is KerasSaveable._unpickle_model.__code__ for frame in _frames())


def _frames() -> Iterator[FrameType]:
    """The calls that are going on, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
