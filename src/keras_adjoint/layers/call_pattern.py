"""How a layer is called: which of its arguments are tensors, in whatever nesting, of which shapes, and what comes out."""

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, TypeVar

import keras
from keras import tree
from keras.layers import Layer

from keras_adjoint.keras_internals import Functional, called_aside, calls_of
from keras_adjoint.layers.arguments import called_with, is_recorded_parameter, is_symbolic, positional_parameters
from keras_adjoint.ops import Shape, Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CallPattern:
    """The arguments of one call of a layer, with a symbolic tensor in the place of each tensor.

    Attributes:
        arguments: The positional arguments.
        keywords: The others.
        outputs: The tensors that the layer gives; none if they are not known.
        recorded: Symbolic masks and the like, by parameter, with which it was called. The operator is the one without them.
    """

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[keras.KerasTensor, ...] = ()
    recorded: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The tensors among the arguments, in the order of `flat`."""
        return [leaf for leaf in flat((self.arguments, self.keywords)) if is_symbolic(leaf)]

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        return tuple(tuple(x.shape) for x in self.inputs)

    @cached_property
    def operator(self) -> str:
        """Equal for calls that differ in the sizes of their tensors alone: they compute one operator, at several sizes."""
        return repr(tree.map_structure(_identity, (self.arguments, self.keywords)))

    @property
    def takes_integers(self) -> bool:
        """Whether there are tensors of integers or booleans among the arguments."""
        return any("float" not in x.dtype for x in self.inputs)

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        return tuple(tuple(y.shape) for y in self.outputs)

    @property
    def samples(self) -> int | None:
        """The number of samples; `None` if it is not fixed."""
        return next((shape[0] for shape in self.input_shapes if shape[0] is not None), None)

    @property
    def has_one_argument(self) -> bool:
        """Whether all tensors are in the first argument, in whatever structure, and nothing else is."""
        return len(self.arguments) == 1 and len(flat(self.arguments)) == len(self.inputs) and not self.keywords

    def call(self, layer: Layer, tensors: Sequence[Tensor], **recorded: Any) -> Any:
        """What a layer gives for these arguments with `tensors` in their places, at inference."""
        arguments, keywords = filled((self.arguments, self.keywords), list(tensors))
        with called_aside(layer):
            return layer(*arguments, **keywords, **recorded)

    def spec(self, layer: Layer, tensors: Sequence[keras.KerasTensor]) -> Any:
        """The same of symbolic tensors, without a record of the call."""
        arguments, keywords = filled((self.arguments, self.keywords), list(tensors))
        with called_aside(layer):
            return layer.compute_output_spec(*arguments, **keywords)

    def packed(self, tensors: Sequence[Any]) -> Any:
        """`tensors`, one for each input: as the one argument has them, else as a list, a single one without a list."""
        if self.has_one_argument:
            return filled(self.arguments[0], list(tensors))
        return list(tensors) if len(tensors) > 1 else tensors[0]

    def get_config(self) -> dict[str, Any]:
        parts = {"arguments": list(self.arguments), "keywords": self.keywords, "outputs": list(self.outputs)}
        return {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        parts = {name: keras.saving.deserialize_keras_object(part) for name, part in config.items()}
        return cls(tuple(parts["arguments"]), parts["keywords"], tuple(parts["outputs"]))


def flat(structure: Any) -> list[Any]:
    """The leaves of lists, tuples and dictionaries, as `keras.tree.flatten` has them; `torch.compile` follows this one."""
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in flat(structure[key])]
    if isinstance(structure, (list, tuple)):
        return [leaf for part in structure for leaf in flat(part)]
    return [structure]


def one_or_list(values: Sequence[T]) -> T | list[T]:
    """The one value of a list that has one, else the list."""
    return values[0] if len(values) == 1 else list(values)


def filled(structure: Any, tensors: list[Any]) -> Any:
    """A structure with `tensors`, which are used up, in the place of its symbolic tensors."""
    if isinstance(structure, dict):
        found = {key: filled(structure[key], tensors) for key in sorted(structure)}
        return {key: found[key] for key in structure}
    if isinstance(structure, (list, tuple)):
        parts = [filled(part, tensors) for part in structure]
        return parts if isinstance(structure, list) else tuple(parts)
    return tensors.pop(0) if is_symbolic(structure) else structure


def single_input(shape: Sequence[Any], dtype: str) -> CallPattern:
    """The pattern of a call with one tensor of a shape, batch axis included."""
    return CallPattern((keras.KerasTensor(tuple(shape), dtype),), {})


def recorded_patterns(layer: Layer) -> list[CallPattern]:
    """One pattern for each way in which a layer was called with symbolic tensors; if it was not, the way it was built."""
    found = [pattern_of_node(node, layer.compute_dtype) for node in calls_of(layer)]
    if not found:
        found = list(_pattern_of_build(layer))
    found.sort(key=lambda one: bool(one.recorded))  # of two that are alike, the one with masks
    distinct = {(one.input_shapes, one.takes_integers, one.operator): one for one in found if one.inputs}
    return list(distinct.values())


def _identity(value: Any) -> str:
    """What tells one argument from another: of a constant all its numbers, of a tensor how many axes it has."""
    if is_symbolic(value):
        return f"tensor of {len(value.shape)} axes"
    if isinstance(value, keras.Variable):
        return f"variable {id(value)}"
    if not is_number_array(value):
        return repr(value)
    array = keras.ops.convert_to_numpy(value)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def is_number_array(value: Any) -> bool:
    """Whether a constant is an array or a tensor of numbers."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def pattern_of_node(node: Any, dtype: str, *, masks: bool = False) -> CallPattern:
    """The pattern of a symbolic call, constant masks included.

    Args:
        node: Keras' record of the call.
        dtype: Of its tensors.
        masks: Whether masks that the model computes are tensors like others; else they are the pattern's `recorded`.
    """

    def without_history(leaf: Any) -> Any:
        if not is_symbolic(leaf):
            return leaf
        return keras.KerasTensor(leaf.shape, dtype if "float" in leaf.dtype else leaf.dtype)

    outputs = tuple(map(without_history, node.output_tensors))
    if masks or not isinstance(node.operation, Layer):
        options = {name: value for name, value in node.arguments.kwargs.items() if name != "training"}
        given = tree.map_structure(without_history, (tuple(node.arguments.args), options))
        return CallPattern(given[0], given[1], outputs)
    arguments: list[Any] = []
    keywords: dict[str, Any] = {}
    recorded: dict[str, Any] = {}
    names = positional_parameters(node.operation)
    args, kwargs = called_with(node)
    named = [*zip(names, args, strict=False), *kwargs.items()]
    for number, (name, passed) in enumerate(named):
        leaves = [leaf for leaf in tree.flatten(passed) if leaf is not None]
        value = tree.map_structure(without_history, passed)
        if name == "training" or (is_recorded_parameter(name) and not leaves):
            continue
        if is_recorded_parameter(name) and any(map(is_symbolic, leaves)):
            recorded[name] = value
        elif number < len(args) and len(arguments) == number:
            arguments.append(value)
        else:
            keywords[name] = value
    arguments += [tree.map_structure(without_history, passed) for passed in args[len(names) :]]
    return CallPattern(tuple(arguments), keywords, outputs, recorded)


def _pattern_of_build(layer: Layer) -> Iterator[CallPattern]:
    if isinstance(layer, Functional):  # whose own `call` is replaced, or which is inside of another layer
        inputs = tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), layer.input)
        yield with_outputs(layer, CallPattern((inputs,), {}))
        return
    config = layer.get_build_config() or {}
    single = config.get("input_shape")
    shapes = config.get("shapes_dict") or {} if single is None else {"": single}
    structures = {name.removesuffix("_shape"): _tensors(shape, layer.compute_dtype) for name, shape in shapes.items()}
    first = next(iter(structures), None)
    if first is None:
        return
    arguments = (structures.pop(first),)
    known = inspect.signature(layer.call).parameters
    pattern = CallPattern(arguments, {name: value for name, value in structures.items() if name in known})
    yield with_outputs(layer, pattern)


def _tensors(shape: Any, dtype: str) -> Any:
    """Symbolic tensors for the shapes in a structure of shapes. The batch of a call with numbers says nothing."""
    if isinstance(shape, dict):
        return {name: _tensors(each, dtype) for name, each in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.KerasTensor((None, *shape[1:]), dtype)
    return [_tensors(each, dtype) for each in shape]


def with_outputs(layer: Layer, pattern: CallPattern) -> CallPattern:
    """The same pattern with what the layer gives, where Keras can say so."""
    with called_aside(layer):
        try:
            outputs = layer.compute_output_spec(*pattern.arguments, **pattern.keywords)
        except Exception:  # of whatever kind the layer's code raises
            return pattern
    return CallPattern(pattern.arguments, pattern.keywords, tuple(filter(is_symbolic, flat(outputs))))


def shapes_agree(received: Sequence[Shape], expected: Sequence[Shape]) -> bool:
    """Whether shapes agree wherever both are known, the batch axis left out."""
    return len(received) == len(expected) and all(
        len(one) == len(two)
        and all(
            a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(one[1:], two[1:], strict=True)
        )
        for one, two in zip(received, expected, strict=True)
    )
