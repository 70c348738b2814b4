"""What this package takes from Keras beyond its public API to read and write files; `keras_internals` has all else.

`tests/test_keras_files.py` holds every name here to what its docstring says, and names the versions it was seen on.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import keras
from keras.src import layers as layers_package
from keras.src.backend.common import global_state
from keras.src.backend.common import variables as common_variables
from keras.src.legacy.saving import saving_utils as legacy_saving
from keras.src.models.functional import Functional
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope

_MET_WHILE_WRITING = "shared_objects/id_to_config_map"
_MET_WHILE_READING = "shared_objects/id_to_obj_map"
_READS_HDF5 = "use_legacy_config"


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
