"""What the way back through a graph is made of: layers, each made once, named after what they undo, told their sizes."""

from collections import defaultdict

import keras
from keras.src.backend.common import global_state

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.registry import describe
from keras_adjoint.models.graph import reverse, zeros


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
        self._taken = set(taken)
        pass_over([*taken, *(call.operation.name for call in graph.calls)])

    def carry_back(self, call, backs):
        """What goes back to each input of a call, for what came back for its outputs."""
        raise NotImplementedError

    def run(self, starts):
        """One symbolic tensor for each of the graph's inputs; zeros for those that nothing comes back to."""
        ends = reverse(self.graph, starts, self.carry_back)
        pairs = zip(self.graph.inputs, ends, strict=True)
        return [zeros(tuple(x.shape[1:]), like=starts[0]) if end is None else end for x, end in pairs]

    def model(self, name):
        """A Functional model from the graph's outputs to its inputs."""
        starts = [
            keras.Input(batch_shape=y.shape, dtype=y.dtype, name=self.name(f"from_{y._keras_history.operation.name}"))
            for y in self.graph.outputs
        ]
        return keras.Model(unpacked(starts), unpacked(self.run(starts)), name=name)

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


def knows_size(layer, y, xs):
    """Whether a layer makes tensors of the sizes of `xs` without being told, because its source recorded them."""
    try:
        found = layer.compute_output_shape(tuple(y.shape))
    except SizeError:
        return False
    found = found if isinstance(found, list) else [found]
    wanted = [tuple(x.shape[1:]) for x in xs]
    return [tuple(shape[1:]) for shape in found] == wanted and not any(None in shape for shape in wanted)


def pass_over(names):
    """Let Keras not give these names to the layers and operations that it names itself, such as the sums of a way back.

    It counts what it has named so far, and a model from a file has names that it did not count.
    """
    counts = global_state.get_global_attribute("object_name_uids", default=defaultdict(int), set_to_default=True)
    for name in names:
        stem, _, number = name.rpartition("_")
        counts[name] = max(counts[name], 1)
        if number.isdecimal():
            counts[stem] = max(counts[stem], int(number) + 1)


def unpacked(tensors):
    """The one tensor of a list that has one, else the list."""
    return tensors[0] if len(tensors) == 1 else list(tensors)
