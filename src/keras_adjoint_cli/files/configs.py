"""What the configuration in a model file asks Keras for: which classes and functions, how many layers, and how many calls."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_adjoint.errors import with_article
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.allowed import candidates, is_allowed, registered, registered_last
from keras_adjoint_cli.files.limits import Limits

OUTSIDE = {  # classes whose layers are in other files, or in pickles
    "TFSMLayer": "runs the program in another folder",
    "TorchModuleWrapper": "runs the code in a pickle",
}
LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization")
VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
ARRAYS = ("__numpy__", "__tensor__")  # whose numbers stand in the configuration
DTYPE = r"[a-z]+\d{0,2}(_?e\dm\d\w*)?"  # but those of texts and of bytes, whose length is a claim
FLOAT = 4  # bytes
STEPS = ("strides", "dilation_rate")
LONGEST = 2**31 - 1  # of a step, which backends store in 32 bits, or end the process
OBJECTS = 10  # that a layer may have of its own: initializers, policies of its dtype and the like
LAMBDA = (
    "It has a Lambda layer, whose function could do anything, so it is not safe to load. If you trust it, load it in Python "
    "with safe_mode=False, and replace the Lambda by a layer of a registered class."
)


def check_config(file: Path, config: Any, limits: Limits, modules: Sequence[str] = ()) -> None:
    """Raise an `Unusable` if a model's configuration asks for too many layers or calls, or for what is no layer.

    Args:
        file: The model file.
        config: Its configuration, without what says how it was trained, which is not read.
        limits: The `Limits`.
        modules: Those that the user has imported.
    """
    objects = layers = 0
    for value in parts_of(config):
        if isinstance(value.get("layers"), list):
            layers += len(value["layers"])
        if "class_name" in value:
            objects += 1
            reason = why_refused(value, modules)
            if reason:
                raise Unusable(f"{file} cannot be loaded: {reason}")
            check_matrix(file, value, limits)
            check_steps(file, value)
    limits.check_count(file, "layers", max(layers, objects // OBJECTS))
    limits.check_count(file, "calls", calls_in(config))


def calls_in(value: Any) -> int:
    """The calls of layers that a model makes, with those of the models inside of it as often as these are called.

    A model that calls another one twice, which calls another one twice, makes 2ⁿ calls with n models.
    """
    inner = value.get("config") if isinstance(value, dict) and "class_name" in value else value
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if isinstance(layers, list):
        return sum(times_called(layer) * max(1, calls_in(layer)) for layer in layers)
    parts = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
    return sum(calls_in(part) for part in parts if isinstance(part, (dict, list)))


def times_called(layer: Any) -> int:
    """How often a layer of a graph is called; once where its configuration does not say."""
    nodes = layer.get("inbound_nodes") if isinstance(layer, dict) else None
    return len(nodes) if isinstance(nodes, list) else 1


def parts_of(config: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a value of JSON's types."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend(one for one in inner if isinstance(one, (dict, list)))


def why_refused(value: dict[str, Any], modules: Sequence[str]) -> str:
    """Why an object in a configuration is not made, for it would run, read or allocate what is not in the file; or ""."""
    kind, config = value["class_name"], value.get("config")
    is_function = kind == "function"
    name = config if is_function else kind
    module = value.get("module") or ""
    if not isinstance(module, str) or not isinstance(name, str):
        return ""  # which Keras itself refuses
    if kind in OUTSIDE:
        return f"It has {with_article(kind)}, which {OUTSIDE[kind]}, so it is not safe to load."
    options = config if isinstance(config, dict) else {}
    if kind in LOOKUPS and isinstance(options.get("vocabulary"), str):
        listed = options["vocabulary"]
        return f"It has {with_article(kind)}, which would read another file, {listed}, so it is not safe to load."
    if kind in ARRAYS and not re.fullmatch(DTYPE, str(options.get("dtype"))):
        return f"It has an array of the dtype {options.get('dtype')}, which is not one of numbers."
    if kind == "__lambda__" or kind == "Lambda" and not is_users_function(options.get("function")):
        return LAMBDA
    if calls_without_tensors(value.get("inbound_nodes")):
        return f"It calls {options.get('name') or name} without a tensor of the model, so it is no graph of layers."
    found = [] if kind in VALUES else candidates(module, name, is_function=is_function, modules=modules)
    if is_registered(value, name, is_function=is_function):
        found = candidates(
            "", name, is_function=is_function, modules=modules
        )  # HDF5 files are read by the class's name
    elif module and not found and kind not in VALUES:
        what = "function" if is_function else "class"
        return f"Could not locate {what} '{name}'. To import a module that registers it, use --import."
    if not all(is_allowed(one, modules) for one in found):
        return f"It names {module or 'keras.layers'}.{name}, which is no part of a layer, so it is not safe to load."
    return ""


def check_matrix(file: Path, value: dict[str, Any], limits: Limits) -> None:
    """Raise an `Unusable` if a layer would compute too large a matrix that is neither one of its weights nor its output."""
    options = value.get("config")
    if value["class_name"] == "MelSpectrogram" and isinstance(options, dict):
        sizes = options.get("fft_length", 2048), options.get("num_mel_bins", 128)
        frequencies, bands = (size if isinstance(size, int) else 1 for size in sizes)
        claimed = FLOAT * (abs(frequencies) // 2 + 1) * abs(bands)
        limits.check_memory(file, claimed, f"the matrix of a MelSpectrogram with an fft_length of {frequencies}")


def check_steps(file: Path, value: dict[str, Any]) -> None:
    """Raise an `Unusable` if the window of a layer takes longer steps than a backend can store."""
    options = value.get("config")
    if not isinstance(options, dict):
        return
    for name in STEPS:
        steps = options[name] if isinstance(options.get(name), list) else [options.get(name)]
        if any(isinstance(step, int) and step > LONGEST for step in steps):
            layer = options.get("name") or value["class_name"]
            raise Unusable(f"{file} is too large: the {name} of {layer} are above {LONGEST:,}, which no backend takes.")


def is_registered(value: dict[str, Any], name: str, *, is_function: bool) -> bool:
    """Whether Keras finds an object by a name that it is registered under."""
    if is_function and value.get("module") == "builtins" and registered_last(name):
        return True
    return registered(name if is_function else value.get("registered_name", name)) is not None


def is_users_function(function: Any) -> bool:
    """Whether the function of a `Lambda` is one that was registered, as by a module that the user has imported."""
    if isinstance(function, dict):
        return function.get("class_name") == "function" and registered(function.get("config")) is not None
    return registered(function) is not None


def calls_without_tensors(nodes: Any) -> bool:
    """Whether one of a layer's calls takes numbers alone, so that it would be computed while the model is made."""
    return isinstance(nodes, list) and any(
        isinstance(node, dict) and not any(part.get("class_name") == "__keras_tensor__" for part in parts_of(node))
        for node in nodes
    )
