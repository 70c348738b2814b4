"""What the configuration in a model file asks Keras for: which classes, from which modules, and how many layers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.limits import Limits

# Whose classes Keras makes by their names. Newer versions of Keras import no others themselves; older ones do.
PACKAGES = ("keras", "keras_adjoint", "keras_hub", "keras_cv", "keras_nlp", "builtins")
TOOLS = ("keras.utils", "keras.saving", "keras.config", "keras.datasets", "keras.src.utils", "keras.src.saving")
OUTSIDE = {  # classes whose layers are in other files, or in pickles
    "TFSMLayer": "runs the program in another folder",
    "TorchModuleWrapper": "runs the code in a pickle",
}
LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization")
OBJECTS = 10  # that a layer may have of its own: initializers, policies of its dtype and the like


def check_config(file: Path, config: Any, limits: Limits, modules: Sequence[str] = ()) -> None:
    """Raise an `Unusable` if a model's configuration asks for too many layers, or for what is no layer.

    Args:
        file: The model file.
        config: Its configuration.
        limits: The `Limits`.
        modules: Those that the user has imported.
    """
    objects = layers = 0
    for value in parts_of(config):
        if isinstance(value.get("layers"), list):
            layers += len(value["layers"])
        if "class_name" in value:
            objects += 1
            check_object(file, value, modules)
    limits.check_count(file, "layers", max(layers, objects // OBJECTS))


def parts_of(config: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a value of JSON's types, however deep it is nested."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(inner for inner in value.values() if isinstance(inner, (dict, list)))
        elif isinstance(value, list):
            waiting.extend(inner for inner in value if isinstance(inner, (dict, list)))


def check_object(file: Path, value: dict[str, Any], modules: Sequence[str]) -> None:
    """Raise an `Unusable` if an object would run or read what is not in the file."""
    kind, config = value["class_name"], value.get("config")
    name = config if kind == "function" else kind
    module = value.get("module") or ""
    if not isinstance(module, str) or not isinstance(name, str):
        return  # which Keras itself refuses
    if kind in OUTSIDE:
        raise Unusable(f"{file} cannot be loaded: It has a {kind}, which {OUTSIDE[kind]}, so it is not safe to load.")
    if kind in LOOKUPS and isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        raise Unusable(
            f"{file} cannot be loaded: It has a {kind}, which would read another file, {config['vocabulary']}, so it is not "
            "safe to load."
        )
    if module and not is_known(module, name, value.get("registered_name"), modules):
        what = "class" if kind == name else "function"
        raise Unusable(
            f"{file} cannot be loaded: Could not locate {what} '{name}'. To import a module that registers it, use --import."
        )


def is_known(module: str, name: str, registered: Any, modules: Sequence[str]) -> bool:
    """Whether an object is Keras', or registered, so that no module has to be imported for it."""
    if any(keras.saving.get_registered_object(one) for one in (registered, name) if isinstance(one, str)):
        return True
    is_tool = any(module == tool or module.startswith(f"{tool}.") for tool in TOOLS)
    return not is_tool and module.partition(".")[0] in (*PACKAGES, *(one.partition(".")[0] for one in modules))
