"""Have Keras write the identity of a shared layer into every file that holds the layer twice.

Keras recognises a layer that it meets a second time while it writes a file, and then adds a `shared_object_id` to
both of the layer's configs. Functional models return copies of their configs, so for a layer inside a nested model the
first config is out of reach by then: the file has one id without a partner, and does not load. If the
layer is announced to Keras from the start as one that it has met before, every config gets the id.
"""

import functools
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.errors import TieError
from keras_adjoint.keras_internals import layers_inside, own_variables
from keras_adjoint.layers.files import announce, is_announced


def share(layer: Layer) -> None:
    """Give `layer` an identity in every file that it is written to from now on.

    Keras asks a layer for its config just before it looks the layer up among those it has met, which makes the
    layer's own `get_config` the one place where it can be announced in time.
    """
    if is_announced(layer):
        return
    get_config = layer.get_config

    @functools.wraps(get_config)
    def announce_and_get_config() -> dict[str, Any]:
        announce(layer)
        return get_config()

    announce_and_get_config.announces = True  # type: ignore[attr-defined]
    layer.get_config = announce_and_get_config


def copy_value(new: keras.Variable, old: keras.Variable) -> None:
    """Give one variable the value of another, in memory of its own.

    JAX would let the two share a buffer, which training either of them gives up.
    """
    new.assign(keras.ops.convert_to_numpy(old))


def copy_values(new: Sequence[keras.Variable], old: Sequence[keras.Variable], *, by: str) -> None:
    """Give variables the values of others with the same `by`, "name" or "path", in the order of those that share it.

    A layer that was quantised makes its variables in another order when it is made from its config. In a `Sequential`
    model the paths begin with the model's name or not, but all end in those of the layer and the variable.
    """
    for key in (lambda variable: getattr(variable, by), _end_of_path):
        named: defaultdict[str, list[keras.Variable]] = defaultdict(list)
        for variable in old:
            named[key(variable)].append(variable)
        wanted = Counter(key(variable) for variable in new)
        if all(len(named[name]) >= count for name, count in wanted.items()):
            pairs = [(variable, named[key(variable)].pop(0)) for variable in new]
            break
    else:  # the names are not those of the originals
        pairs = list(zip(new, old, strict=True))
    for variable, value in pairs:
        copy_value(variable, value)
    freeze_alike([variable for variable, _ in pairs], [value for _, value in pairs])


def freeze_alike(new: Sequence[keras.Variable], old: Sequence[keras.Variable]) -> None:
    """Give variables the switches of their originals. No config has these; it may freeze a layer with one that is trained."""
    for variable, other in zip(new, old, strict=True):
        if variable.trainable != other.trainable:
            variable.trainable = other.trainable


def _end_of_path(variable: keras.Variable) -> str:
    return "/".join(variable.path.split("/")[-2:])


def copy_state(new: Layer, old: Layer, *, by: str) -> None:
    """Give a layer or model the state of another of the same config, as a file would: its variables and what depends on them.

    Args:
        new: The one that gets the state.
        old: The one that has it.
        by: What variables are matched by, see `copy_values`.
    """
    for one, other in _same_layers(new, old):
        load_what_is_derived(one, other)
    copy_values(new.variables, old.variables, by=by)  # to the bit: what is loaded may be merged and rounded before


def load_what_is_derived(new: Layer, old: Layer) -> None:
    """Have a layer load the state of another, if its class has a way of its own to load it.

    `Normalization` computes its mean from its variables then, and vocabularies are in no variable at all.
    """
    if type(new).load_own_variables is not Layer.load_own_variables and _shapes(new) == _shapes(old):
        with suppress(Exception):  # subclasses that cannot be saved fail in whatever way; their variables are copied
            store: dict[str, Any] = {}
            old.save_own_variables(store)
            new.load_own_variables({key: keras.ops.convert_to_numpy(value) for key, value in store.items()})
    if hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _shapes(layer: Layer) -> list[tuple[int, ...]]:
    """The shapes of a layer's own variables: a copy may be without the bias."""
    return sorted(tuple(variable.shape) for variable in own_variables(layer))


def _same_layers(new: Layer, old: Layer) -> Iterator[tuple[Layer, Layer]]:
    """The two, and the layers in them that are of one class and name, in their order."""
    yield new, old
    named: defaultdict[tuple[type, str], list[Layer]] = defaultdict(list)
    for layer in layers_inside(old):
        named[type(layer), layer.name].append(layer)
    for layer in layers_inside(new):
        partners = named[type(layer), layer.name]
        if partners:
            yield layer, partners.pop(0)


# --- layers made anew from their configs

_OWN_EVERYTHING: ContextVar[bool] = ContextVar("_OWN_EVERYTHING", default=False)


@contextmanager
def owning_everything() -> Iterator[None]:
    """Inside, adjoints that are read from configs are copies that own their sources, and no warning is due."""
    before = _OWN_EVERYTHING.set(True)
    try:
        yield
    finally:
        _OWN_EVERYTHING.reset(before)


def owns_everything() -> bool:
    """Whether an adjoint that is read from its config now is meant to own its source."""
    return _OWN_EVERYTHING.get()


def read_config(config: dict[str, Any]) -> Any:
    """The object of a config.

    Raises:
        TieError: If Keras does not find its class, or that of a part of it.
    """
    try:
        return keras.saving.deserialize_keras_object(config)
    except TypeError as error:
        missing = re.search(r"Could not locate (class|function) '([^']+)'", str(error))
        if missing is None:
            raise
        kind, name = missing.groups()
        raise TieError(
            f"Keras makes copies of layers, and reads them from files, by the names of their classes, and finds no {kind} "
            f"`{name}`. Decorate it with `@keras.saving.register_keras_serializable()`, or pass "
            f"`custom_objects={{{name!r}: {name}}}` where a file is loaded. Received: {kind}_name={name!r}"
        ) from error
