"""Whether Keras can load the model that it is writing to a file now; a model that it cannot is refused in time.

In the file of a Functional model, a tensor is the n-th call of a layer, counted within that model. While the file is read, a
layer keeps the calls of the models that were read before. So where two models call one layer, the second finds the first
one's tensors.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_adjoint.errors import TieError
from keras_adjoint.keras_files import announce_to_file, kept_with_file, models_being_written
from keras_adjoint.keras_internals import Functional, calls_of, nodes_of


@dataclass(eq=False)
class Reading:
    """One reading of a model, inside of the reading of others, and the layers that it found."""

    model: keras.Model
    outer: "tuple[Reading, ...]" = ()
    found: dict[int, object] = field(default_factory=dict)


class File:
    """What Keras would find if it read the models of a file in the order in which they are written.

    Attributes:
        read: The models that were read.
        met: Where each layer was met first.
        made: The layer that was made for each, of those that have an identity in the file.
        calls: The calls of each layer so far, and the readings that they are from.
    """

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.met: dict[int, Reading] = {}
        self.made: dict[int, object] = {}
        self.calls: defaultdict[object, list[tuple[Any, Reading]]] = defaultdict(list)

    def add(self, reading: Reading) -> None:
        """Read a model.

        Raises:
            TieError: If a layer would be found twice where it was one, or with the calls of another model.
        """
        self.read.add(id(reading.model))
        calls = _calls_in(reading.model)
        for layer in calls:
            self.find(layer, reading)
            if isinstance(reading.model, keras.Sequential):
                # It is called as soon as it is read, and once more for each that is read after it.
                self.calls[reading.found[id(layer)]].extend((call, reading) for call in calls[layer])
        if isinstance(reading.model, Functional):
            inputs = [id(layer) for layer in calls if isinstance(layer, keras.layers.InputLayer)]
            for layer, nodes in calls.items():
                found = self.calls[reading.found[id(layer)]]
                found.extend((node, reading) for node in nodes)
                for (call, other), node in zip(found, nodes, strict=False):  # what each number stands for
                    if call is not node or any(other.found.get(one) is not reading.found[one] for one in inputs):
                        _refuse(layer, found[0][1], reading)

    def find(self, layer: Any, reading: Reading) -> None:
        """Read a layer of a model, unless it is known by its identity."""
        key = id(layer)
        first = self.met.get(key)
        is_model = isinstance(layer, (Functional, keras.Sequential))
        if first is None:
            self.met[key] = reading
        if first is not None or is_announced(layer):
            # Where a finished model holds the layer too, that has been written without an identity: there will be two.
            if first in (*reading.outer, reading):
                self.made.setdefault(key, first.found[key])
            elif first is not None and key not in self.made and not is_model and getattr(layer, "weights", None):
                _refuse(layer, first, reading)
            if key in self.made:
                reading.found[key] = self.made[key]
                return
        made = reading.found[key] = object()
        if first is not None or is_announced(layer):
            self.made[key] = made
        if is_model:
            self.add(Reading(layer, (*reading.outer, reading)))


def _calls_in(model: keras.Model) -> dict[Any, list[Any]]:
    """The layers and operations of a model, and their calls in it."""
    is_sequential = isinstance(model, keras.Sequential)
    own = {id(node) for node in nodes_of(model)}
    operations = model.layers if is_sequential else model.operations
    return {each: [call for call in calls_of(each) if id(call) in own] for each in operations}


def _refuse(layer: Any, first: Reading, second: Reading) -> None:
    models = [reading.model.name for reading in (first, second)]
    hint = (
        ""
        if getattr(layer, "weights", None)
        else (
            "The adjoint of a model's adjoint calls the pooling and reshaping layers of it; if the model is linear, call that "
            "instead. "
        )
    )
    raise TieError(
        f"Keras would save this model, but could not load it: `{layer.name}` is called in `{models[0]}` and in `{models[1]}`, "
        f"and a file counts the calls of a layer within one model. Call the layer in one model, and call that model wherever "
        f"the layer is needed; or save the weights alone with `model.save_weights`. {hint}"
        f"Received: {layer.name!r} of type {type(layer).__name__} in the models {models[0]!r} and {models[1]!r}"
    )


def announce(layer: keras.layers.Layer) -> None:
    """Give a layer that is asked for its config the identity in the file that Keras is writing, if any, see `sharing`.

    Raises:
        TieError: If Keras could not load the file.
    """
    announce_to_file(layer)
    check_file()


def is_announced(layer: Any) -> bool:
    """Whether a layer announces itself, as all tied layers and their sources do."""
    return any(getattr(part, "announces", False) for part in (layer, getattr(layer, "get_config", None)))


def check_file() -> None:
    """Raise a TieError if Keras is writing a model now that it could not load."""
    file = kept_with_file("keras_adjoint", File)
    if file is not None:
        for model in models_being_written()[-1:]:
            if id(model) not in file.read:
                file.add(Reading(model))
