"""One call of a layer or operation: what each of its arguments is, wherever it stands.

Keras records a call as positional and keyword arguments in any nesting of lists, tuples and dictionaries. Among them are
tensors that the operation is to be linear in, tensors that it depends on otherwise, such as the mask that Keras hands in
by itself, and constants. For the backward pass they differ, so each argument has a role.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import keras
from keras import tree

from keras_adjoint.keras_internals import Node
from keras_adjoint.layers.arguments import bind, called_with, default_training, is_recorded_parameter, is_symbolic


class Role(StrEnum):
    """What an argument is to the operation that is called with it."""

    DATA = "data"  # a tensor that the operation acts on; cotangents go to these
    RECORDED = "recorded"  # a tensor that the operation depends on otherwise: a mask, switches, a size, a condition
    CONSTANT = "constant"  # whatever is no symbolic tensor


@dataclass(frozen=True, eq=False)
class Argument:
    """One argument of a call.

    Attributes:
        path: The name of the parameter, and the way into the lists and dictionaries that were passed for it.
        value: A symbolic tensor, or a constant.
        role: Its `Role`.
    """

    path: tuple[Any, ...]
    value: Any
    role: Role

    @property
    def name(self) -> str:
        """The path as in "inputs.image"."""
        return ".".join(map(str, self.path))


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation.

    Attributes:
        operation: What was called, usually a layer.
        place: Where it is, as in "classifier/encoder/conv1".
        parameters: What was passed, by the parameters' names, however it was passed.
        arguments: The same as a list of single values, each with its role.
        outputs: The symbolic tensors that it returned.
        training: Whether the model makes the call in training, as it says so itself; `None` if it leaves that open.
        by_all: Whether it is to be differentiated by all its tensors: those that it depends on otherwise are data, too.
    """

    operation: keras.Operation
    place: str
    parameters: Mapping[str, Any]
    arguments: tuple[Argument, ...]
    outputs: list[keras.KerasTensor]
    training: bool | None = None
    by_all: bool = False

    @classmethod
    def of(cls, node: Node, place: str, training: bool | None = None) -> "Call":
        """The call that Keras recorded as `node`, in a model that is called with that `training`."""
        operation = node.operation
        parameters = bind(operation, *called_with(node))
        alike = all(tensor.dtype == "bool" for tensor in node.input_tensors)
        arguments = tuple(
            Argument((name, *path), value, role_of(operation, name, value, conditions=not alike))
            for name, passed in parameters.items()
            for path, value in tree.flatten_with_path(passed)
        )
        training = training_of(operation, node, training)
        return cls(operation, place, parameters, arguments, list(node.output_tensors), training)

    @property
    def path(self) -> str:
        """The place inside of the model, without the model's own name."""
        return self.place.partition("/")[2]

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The tensors that it acts on."""
        return self._of_role(Role.DATA)

    @property
    def recorded(self) -> list[keras.KerasTensor]:
        """The tensors that it depends on otherwise, such as masks."""
        return self._of_role(Role.RECORDED)

    @property
    def constants(self) -> list[Any]:
        """Everything else that was passed."""
        return self._of_role(Role.CONSTANT)

    @property
    def several_outputs(self) -> bool:
        """Whether there is not just one output."""
        return len(self.outputs) != 1

    def _of_role(self, role: Role) -> list[Any]:
        return [argument.value for argument in self.arguments if argument.role == role]


def role_of(operation: keras.Operation, parameter: str, value: Any, *, conditions: bool = True) -> Role:
    """The role of a single value that was passed for a parameter.

    Args:
        operation: What was called.
        parameter: The name of the parameter.
        value: The value.
        conditions: Whether booleans are conditions for other tensors. If there are no others, they are what is acted on.
    """
    if not is_symbolic(value):
        return Role.CONSTANT
    is_layer = isinstance(operation, keras.layers.Layer)
    recorded = is_recorded_parameter(parameter) if is_layer else value.dtype == "bool" and conditions
    return Role.RECORDED if recorded else Role.DATA


def training_of(operation: keras.Operation, node: Node, outer: bool | None) -> bool | None:
    """Whether a recorded call is in training: what the model around it was called with holds for all calls inside."""
    is_layer = isinstance(operation, keras.layers.Layer)
    own = node.arguments.kwargs.get("training") if is_layer else None
    if own is default_training(operation):  # Keras records it where nobody passed it
        own = None
    found = own if outer is None or not is_layer else outer
    return None if found is None else bool(found)
