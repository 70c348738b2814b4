"""What the way back through a graph is made of: layers, each made once, named after what they undo, told their sizes."""

import re

import keras

from keras_adjoint.errors import SizeError
from keras_adjoint.keras_internals import call_of, producer_of
from keras_adjoint.layers.registry import describe
from keras_adjoint.models.graph import reverse, zeros
from keras_adjoint.ops.precision import epsilon


class BackwardPass:
    """Builds the tensors that lead from a graph's outputs back to its inputs.

    A subclass says in `carry_back` what each call is undone by.

    Args:
        graph: A `Graph`.
        remembers: Whether tensors of the way forth may be used on the way back.
        taken: Names that the new layers may not have.
    """

    def __init__(self, graph, *, remembers=False, taken=()):
        self.graph = graph
        self.remembers = remembers
        self.recalled = []  # the tensors of the way forth that were used
        self._made = {}
        self._taken = {*taken, *(call.operation.name for call in graph.calls)}
        self._named = {id(call.operation) for call in graph.calls}
        self._known = {id(x) for x in (*graph.inputs, *(y for call in graph.calls for y in call.outputs))}

    def carry_back(self, call, backs):
        """What goes back to each input of a call, for what came back for its outputs."""
        raise NotImplementedError

    def run(self, starts):
        """One symbolic tensor for each of the graph's inputs; zeros for those that nothing comes back to."""
        self._known.update(map(id, starts))
        ends = reverse(self.graph, starts, self.carry_back, self.total)
        pairs = zip(self.graph.inputs, ends, strict=True)
        return [zeros(tuple(x.shape[1:]), like=starts[0]) if end is None else end for x, end in pairs]

    def model(self, name):
        """A Functional model from the graph's outputs to its inputs."""
        starts = [
            keras.Input(batch_shape=y.shape, dtype=y.dtype, name=self.name(f"from_{producer_of(y).name}"))
            for y in self.graph.outputs
        ]
        return self.build(starts, self.run(starts), name)

    def build(self, inputs, outputs, name):
        """The Functional model between two lists of tensors, in which the way back lies."""
        outputs = [self._passed_on(y) if any(y is x for x in inputs) else y for y in outputs]
        self.name_operations(outputs)
        return keras.Model(unpacked(inputs), unpacked(outputs), name=name)

    def _passed_on(self, tensor):
        """The same tensor as a layer's output: Keras before 3.14 makes no model that returns its input itself."""
        identity = keras.layers.Identity(dtype=tensor.dtype, name=self.name("identity"))
        self._named.add(id(identity))
        return identity(tensor)

    def layer(self, call, role, make):
        """The layer that has a role in undoing a call, the same one for every call of the same layer.

        Args:
            call: The call.
            role: A word for the layer's name.
            make: Makes the layer from its name.
        """
        key = id(call.operation), role
        if key not in self._made:
            name = self.name("_".join([*call.place.split("/")[1:], role]))
            self._made[key] = make(name)
            self._named.add(id(self._made[key]))
        return self._made[key]

    def made_for(self, call):
        """The layers that undo a call, or another call of the same layer, by their role."""
        return {role: layer for (operation, role), layer in self._made.items() if operation == id(call.operation)}

    def apply(self, layer, call, backs):
        """Call a layer on what came back for a call, and tell it the size of the call's input if it needs to know.

        Returns:
            One symbolic tensor for each of the call's inputs.
        """
        y = backs if len(backs) > 1 else backs[0]
        result = layer(y, **self._size(layer, call, y))
        return list(result) if isinstance(result, (list, tuple)) else [result]

    def _size(self, layer, call, y):
        if not getattr(layer, "needs_output_size", False) or knows_size(layer, y, call.inputs):
            return {}
        size = layer.output_size_like(*call.inputs)
        if size is None:
            remembered = [self.recall(x, call, "an input of unknown size") for x in call.inputs]
            size = unpacked(remembered)
        return {"output_size": size}

    def total(self, tensor, backs):
        """The sum of what came back for a tensor that several calls read."""
        finest = min((back.dtype for back in backs), key=epsilon)  # Keras' own choice knows no float64
        add = keras.layers.Add(dtype=finest, name=self.name(f"{producer_of(tensor).name}_sum"))
        self._named.add(id(add))
        return add(backs)

    def recall(self, tensor, call, what):
        """A tensor of the way forth.

        Raises:
            ValueError: If the way back knows nothing but the code.
        """
        if not self.remembers:
            raise ValueError(
                f"To undo {what}, a decoder needs memory, that is, it must know what happened in the encoder at "
                f"`{call.place}`, and `mirror` builds one from the code alone. Use `keras_adjoint.autoencoder`, which wires "
                f"it, choose a policy that needs no memory, or give the encoder an input of known size: "
                f"`keras.Model(x, encoder(x))` with `x = keras.Input(...)`. Received: {describe(call.operation)}"
            )
        self.recalled.append(tensor)
        return tensor

    def name(self, wanted):
        """A name that nothing else has here: the wanted one, or with a number behind it."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def name_operations(self, tensors):
        """Let no operation on the way to `tensors` have the name of another.

        Keras numbers operations by what it has named since it started, and a model from a file has names besides.
        """
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
                call.operation.name = self.name(without_number(call.operation.name))


def knows_size(layer, y, xs):
    """Whether a layer makes tensors of the sizes of `xs` without being told, because its source recorded them."""
    try:
        found = layer.compute_output_shape(tuple(y.shape))
    except SizeError:
        return False
    found = found if isinstance(found, list) else [found]
    wanted = [tuple(x.shape[1:]) for x in xs]
    return [tuple(shape[1:]) for shape in found] == wanted and not any(None in shape for shape in wanted)


def without_number(name):
    """The name that Keras made another one from by a number: "add" of "add_2"."""
    return re.sub(r"_\d+$", "", name)


def unpacked(tensors):
    """The one tensor of a list that has one, else the list."""
    return tensors[0] if len(tensors) == 1 else list(tensors)
