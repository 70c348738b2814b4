"""A model under examination, with what several examinations need to know about it, found out once."""

from functools import cached_property

from keras_adjoint.doctor.models.kernels import kernels_of
from keras_adjoint.doctor.models.origin import Origin
from keras_adjoint.doctor.models.twins import find_twins, trained
from keras_adjoint.models.graph import graph_of, layers_of, trace


class Patient:
    """A model, its layers, kernels and calls.

    Args:
        model: A built Keras model.
        origin: The `Origin` of its file.
    """

    def __init__(self, model, origin=None):
        self.model = model
        self.origin = origin or Origin()

    @cached_property
    def layers(self):
        """(place, layer) of every layer."""
        return list(layers_of(self.model))

    @cached_property
    def places(self):
        """The place of every layer by its `id`."""
        return {id(layer): place for place, layer in self.layers}

    @cached_property
    def calls(self):
        """The calls of the model's graph; none if it is not known how its layers are wired."""
        try:
            return trace(self.model).calls
        except Exception:  # layers of nested models are called once more, and some of them do not stand that
            return []

    @cached_property
    def twins(self):
        """Kernels of the same numbers."""
        return list(find_twins(list(kernels_of(self.layers, self.calls))))

    @cached_property
    def trained(self):
        """Whether the model was ever trained; `None` if that cannot be seen."""
        return trained(self.layers)

    @cached_property
    def parents(self):
        """The Functional or Sequential model that calls a layer or operation, by the `id` of what is called."""
        found = {}
        self._adopt(self.model, found)
        return found

    def _adopt(self, model, found):
        graph = graph_of(model)
        for operation in graph.operations if graph is not None else ():
            if id(operation) not in found:
                found[id(operation)] = model
                self._adopt(operation, found)
