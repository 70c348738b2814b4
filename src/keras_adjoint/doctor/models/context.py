"""A model and what several rules need to know about it, found out once; and what its file says of its origin."""

import json
import re
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import keras

from keras_adjoint.doctor.models.duplicates import Duplicate, find_duplicates, was_trained
from keras_adjoint.doctor.models.kernels import kernels_of
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import graph_of, layers_of, trace


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as far as its file says so.

    Attributes:
        version: The version of Keras, as integers: (3, 14, 0); `None` if the file does not say.
        backend: The backend that Keras ran on; `None` if the file does not say, and .keras files never do.
    """

    version: tuple[int, ...] | None = None
    backend: str | None = None


def origin_of(file: str | Path) -> Origin:
    """The `Origin` of a model file, all unknown where the file says nothing."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                facts = json.loads(archive.read("metadata.json"))
        else:
            with h5py.File(file, "r") as content:
                facts = dict(content.attrs)
    except (OSError, KeyError, ValueError):
        return Origin()
    version = tuple(map(int, re.findall(r"\d+", text(facts.get("keras_version")))[:3]))
    return Origin(version or None, text(facts.get("backend")) or None)


def text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


class ModelContext:
    """A model, its layers, kernels and calls.

    Args:
        model: A built Keras model.
        origin: The `Origin` of its file.
    """

    def __init__(self, model: keras.Model, origin: Origin | None = None) -> None:
        self.model = model
        self.origin = origin or Origin()

    @cached_property
    def layers(self) -> list[tuple[str, keras.layers.Layer]]:
        """(place, layer) of every layer."""
        return list(layers_of(self.model))

    @cached_property
    def calls(self) -> list[Call]:
        """The calls of the model's graph; none if it is not known how its layers are wired."""
        try:
            return list(trace(self.model).calls)
        except Exception:  # layers of nested models are called once more, which not all of them allow
            return []

    @cached_property
    def duplicates(self) -> list[Duplicate]:
        """Kernels that hold the values of an earlier one."""
        return list(find_duplicates(list(kernels_of(self.layers, self.calls))))

    @cached_property
    def was_trained(self) -> bool | None:
        """Whether the model was ever trained; `None` if that cannot be seen."""
        return was_trained(self.layers)

    @cached_property
    def parents(self) -> dict[int, keras.Model]:
        """The Functional or Sequential model that calls a layer or operation, by the `id` of what is called."""
        found: dict[int, keras.Model] = {}
        self._add_children(self.model, found)
        return found

    def _add_children(self, model: keras.Model, found: dict[int, keras.Model]) -> None:
        graph = graph_of(model)
        for operation in graph.operations if graph is not None else ():
            if id(operation) not in found:
                found[id(operation)] = model
                self._add_children(operation, found)
