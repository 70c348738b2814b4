"""Names for the layers and operations of a backward pass, none of which another has."""

import re
from collections import defaultdict
from collections.abc import Iterable

import keras

from keras_adjoint.keras_internals import call_of
from keras_adjoint.models.graph import Graph


class Names:
    """The names in use around a graph.

    Keras numbers operations by what it has named since it started, and a model from a file has names besides.

    Args:
        graph: A `Graph`, whose operations keep their names.
        taken: Further names that are in use.
    """

    def __init__(self, graph: Graph, taken: Iterable[str] = ()) -> None:
        self._taken = {*taken, *(call.operation.name for call in graph.calls)}
        self._holders: defaultdict[str, set[int | None]] = defaultdict(set)  # ids of operations; `None` is a new one
        for call in graph.calls:
            self._holders[call.operation.name].add(id(call.operation))
        self._named = {id(call.operation) for call in graph.calls}
        self._known = {id(x) for x in (*graph.inputs, *(y for call in graph.calls for y in call.outputs))}

    def new(self, wanted: str) -> str:
        """A name that is not in use yet: the wanted one, or with a number behind it."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        return self._give(name)

    def _give(self, name: str) -> str:
        self._taken.add(name)
        self._holders[name].add(None)
        return name

    def keep(self, operation: keras.Operation) -> None:
        """Let an operation that has got a new name keep it."""
        self._named.add(id(operation))

    def for_input(self, wanted: str) -> str:
        """A name for an input: the wanted one also where operations of the graph have it, unless they are to come with it."""
        return self._give(wanted) if None not in self._holders[wanted] else self.new(wanted)

    def admit(self, operation: keras.Operation) -> bool:
        """Whether an operation that has a name already may come with it, since no other has that name."""
        name = operation.name
        if name not in self._taken:
            self._taken.add(name)
            self._holders[name].add(id(operation))
        return self._holders[name] == {id(operation)}

    def stop_at(self, tensors: Iterable[keras.KerasTensor]) -> None:
        """Leave the operations alone that lead to these tensors."""
        self._known.update(map(id, tensors))

    def rename_others(self, tensors: Iterable[keras.KerasTensor]) -> None:
        """Give a new name to every other operation on the way to these tensors."""
        waiting = list(tensors)
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in self._known:
                continue
            self._known.add(id(tensor))
            call = call_of(tensor)
            waiting += call.input_tensors
            if id(call.operation) not in self._named:
                self._named.add(id(call.operation))
                call.operation.name = self.new(without_number(call.operation.name))


def name_of_model(wanted: str) -> str:
    """A name for a model that was given none, numbered from the second on, as Keras numbers layers."""
    number = keras.backend.get_uid(wanted)
    return wanted if number == 1 else f"{wanted}_{number - 1}"


def without_number(name: str) -> str:
    """The name that Keras made another one from by a number: "add" of "add_2"."""
    return re.sub(r"_\d+$", "", name)
