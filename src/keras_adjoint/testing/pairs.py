"""Two operators that may be each other's adjoint, as functions of arrays, whatever they are made of."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from keras_adjoint.errors import SizeError
from keras_adjoint.keras_internals import Functional
from keras_adjoint.layers.adjoint import original_of, probe_shape, recorded_source
from keras_adjoint.layers.call_pattern import one_or_list, recorded_patterns
from keras_adjoint.layers.distributed import DistributedAdjoint, innermost
from keras_adjoint.layers.merge import AdjointMerge
from keras_adjoint.layers.options import as_integer, items_of
from keras_adjoint.layers.selection import AdjointSelection
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.tied import Tied, call_at_inference, linear_part
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.dot_test import evaluate, random_probe

Operator: TypeAlias = Callable[..., Any]  # layers and models are callables, too
Array: TypeAlias = NDArray[Any]

UNPOOLING = (AdjointMaxPooling, AdjointGlobalMaxPooling, AdjointSelection)  # they are called with switches


# --- several tensors as one


class Packing:
    """Several tensors read as one vector per sample: side by side, each flattened behind its batch axis.

    So an operator between several tensors is a matrix like any other.

    Args:
        shapes: The tensors' shapes, batch axis included.
        structure: The lists and dictionaries that the tensors come in; by default one list.
    """

    def __init__(self, shapes: Sequence[Shape], structure: Any = None) -> None:
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.structure = list(range(len(self.shapes))) if structure is None else structure
        self.sizes = [math.prod(shape[1:]) for shape in self.shapes]

    @property
    def shape(self) -> Shape:
        """Shape of all of them as one tensor."""
        return self.shapes[0][0], sum(self.sizes)

    def split(self, packed: Tensor) -> Any:
        """The tensors in a packed one, whatever its number of samples."""
        parts, start = [], 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            parts.append(ops.reshape(packed[:, start : start + size], (-1, *shape[1:])))
            start += size
        return tree.pack_sequence_as(self.structure, parts)

    @staticmethod
    def join(tensors: Any) -> Tensor:
        """One tensor of them all."""
        flat = [ops.reshape(tensor, (ops.shape(tensor)[0], -1)) for tensor in tree.flatten(tensors)]
        return ops.concatenate(flat, axis=1)


def packed(operator: Operator, inputs: Packing | None, outputs: Packing | None) -> Operator:
    """`operator` between packed tensors; `None` where there is one tensor."""

    def apply(x: Tensor) -> Tensor:
        y = operator(x if inputs is None else inputs.split(x))
        return y if outputs is None else outputs.join(y)

    return apply


# --- pairs


@dataclass(frozen=True)
class Pair:
    """A and B as functions of float64 arrays, the layers behind them, if they are layers, how y is packed, and its dtypes."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array], Array]
    forward_layer: keras.layers.Layer | None = None
    backward_layer: keras.layers.Layer | None = None
    outputs: Packing | None = None
    floats: frozenset[str] = frozenset()


def pair_of(
    forward: Operator,
    backward: Operator,
    shape: Shape,
    inputs: Packing | None,
    dtype: str,
    generator: np.random.Generator,
) -> Pair:
    """The `Pair` of two operators on x of `shape`; several tensors on either side are packed into one array."""
    if isinstance(innermost(backward), UNPOOLING):
        return unpooling_pair(backward, shape, inputs, dtype, generator)
    linear = forward
    if isinstance(backward, (Tied, DistributedAdjoint)) and source_of(backward) is forward:
        linear = backward.apply_forward
    elif isinstance(forward, Tied) and backward is forward.source:
        linear, backward = linear_part(forward), forward.apply_forward
    elif isinstance(forward, keras.layers.Layer) and (
        not isinstance(forward, keras.Model) or (isinstance(backward, keras.Model) and original_of(backward) is forward)
    ):
        linear = linear_part(forward)

    def apply_backward(y: Tensor) -> Tensor:
        sized = isinstance(backward, (Tied, DistributedAdjoint))
        if not sized or getattr(innermost(backward), "output_size", ()) is not None:
            return call_at_inference(backward, y) if isinstance(backward, keras.layers.Layer) else backward(y)
        try:
            return backward(y, output_size=_zeros(shape, dtype))
        except SizeError:  # the test then shows the size that it takes by itself
            return backward(y)

    result = linear(_zeros(shape, dtype) if inputs is None else inputs.split(ops.zeros(inputs.shape, dtype)))
    several = isinstance(result, (list, tuple, dict))
    outputs = Packing([tuple(y.shape) for y in tree.flatten(result)], result) if several else None
    return Pair(
        forward=lambda x: evaluate(packed(linear, inputs, outputs), x, dtype),
        backward=lambda y: evaluate(packed(apply_backward, outputs, inputs), y, dtype),
        forward_layer=forward if isinstance(forward, keras.layers.Layer) else None,
        backward_layer=backward if isinstance(backward, keras.layers.Layer) else None,
        outputs=outputs,
        floats=frozenset(floats_of(result)),
    )


def floats_of(tensors: Any) -> Iterable[str]:
    """The dtypes of floats among those of some tensors."""
    dtypes = (keras.backend.standardize_dtype(y.dtype) for y in tree.flatten(tensors) if hasattr(y, "dtype"))
    return (dtype for dtype in dtypes if "float" in dtype)


def source_of(adjoint: Tied | DistributedAdjoint) -> keras.layers.Layer | None:
    """What a layer was made the adjoint of."""
    return adjoint.source if isinstance(adjoint, Tied) else recorded_source(adjoint)


def unpooling_pair(
    backward: Any, shape: Shape, inputs: Packing | None, dtype: str, generator: np.random.Generator
) -> Pair:
    """The `Pair` of max pooling and unpooling with the switches of one random input; several tensors may be selected from."""
    random = ops.convert_to_tensor(random_probe(shape if inputs is None else inputs.shape, dtype, generator), dtype)
    switches = random if inputs is None else inputs.split(random)
    return Pair(
        forward=lambda x: evaluate(packed(lambda t: backward.apply_forward(t, switches), inputs, None), x, dtype),
        backward=lambda y: evaluate(packed(lambda t: backward(t, switches=switches), None, inputs), y, dtype),
    )


def _zeros(shape: Shape, dtype: str) -> Tensor | list[Tensor]:
    """Zeros of a shape, or a list of zeros of several shapes."""
    if isinstance(shape[0], int):
        return ops.zeros(shape, dtype)
    return [ops.zeros(one, dtype) for one in shape]


def shapes_in(given: Any, forward: Operator, backward: Operator) -> tuple[Any, Any]:
    """(shape of x, or shapes of several x; the structure that A takes these in, or `None` for a list).

    Raises:
        ValueError: If what is given is no shape, or none is known.
    """
    if given is not None and not _has_shapes(given):
        raise ValueError(
            f"`input_shape` must be a shape of positive sizes, batch axis included, or a list or dictionary of such shapes if "
            f"the operator takes several tensors. Received: input_shape={given!r}"
        )
    given = _plain(given)
    if given is not None:
        _check_structure(given, forward)
    if isinstance(given, Mapping):
        return tuple(given[key] for key in sorted(given)), dict.fromkeys(sorted(given), 0)
    space = getattr(forward, "in_space", None) if isinstance(forward, Tied) else None
    if given is None and space is not None:
        return one_or_list([(2, *shape) for shape in space.shapes]), None if len(space.shapes) == 1 else space.structure
    taken = None if isinstance(forward, (keras.Model, Tied)) else _taken(forward)
    if given is None and tree.is_nested(taken):
        return [probe_shape(forward, [x.shape]) for x in tree.flatten(taken)], taken
    structure = getattr(forward, "input", None) if isinstance(forward, keras.Model) else None
    structure = structure if isinstance(structure, Mapping) else None
    shape = tuple(given) if given is not None else known_shape(forward, backward)
    return (shape if structure is None or given is not None or len(structure) > 1 else (shape,)), structure


def _check_structure(given: Any, forward: Operator) -> None:
    """Raise a ValueError unless shapes are given for what a layer or model is known to take, in its structure."""
    taken, names = _taken(forward), [x.name for x in inputs_of(forward)]
    if taken is None:
        return
    count, keys = len(tree.flatten(taken)), sorted(taken) if isinstance(taken, Mapping) else []
    is_list, is_one = isinstance(given, list), not isinstance(given, (list, Mapping))
    if isinstance(given, Mapping):
        fits = sorted(given) == (keys or sorted(names))
    else:  # of a model, one tensor may be in a list or not
        fits = count == (len(given) if is_list else 1) and (bool(names) or is_list == tree.is_nested(taken))
    if not fits or (is_one and keys):
        several = f"a dictionary of shapes for {', '.join(map(repr, keys))}" if keys else f"a list of {count} shapes"
        raise ValueError(
            f"`{name_of(forward)}` takes {count} tensor{'s' * (count > 1)}, so `input_shape` is "
            f"{several if tree.is_nested(taken) else 'one shape'}, batch axis included. Received: input_shape={given!r}"
        )


def _taken(forward: Operator) -> Any:
    """The structure of the tensors that a layer or model is known to take as its one argument, else `None`."""
    inputs = inputs_of(forward)
    if inputs:
        return getattr(forward, "input", inputs[0])  # which a `Sequential` does not have
    patterns = recorded_patterns(forward) if isinstance(forward, keras.layers.Layer) else []
    return patterns[0].arguments[0] if len(patterns) == 1 and patterns[0].has_one_argument else None


def _has_shapes(given: Any) -> bool:
    """Whether something is a shape, or a list or dictionary of shapes."""
    if isinstance(given, Mapping):
        return bool(given) and all(map(_is_shape, given.values()))
    return _is_shape(given) or (isinstance(given, (list, tuple)) and bool(given) and all(map(_is_shape, given)))


def _plain(given: Any) -> Any:
    """What has shapes with plain tuples of plain integers, whatever arrays, tensors and integers they were."""
    if _is_shape(given):
        return tuple(as_integer(size) for size in given)
    if isinstance(given, Mapping):
        return {key: _plain(shape) for key, shape in given.items()}
    return given if given is None else [_plain(shape) for shape in given]


def _is_shape(given: Any) -> bool:
    if isinstance(given, (str, bytes, Mapping)):
        return False
    sizes = [as_integer(size) for size in items_of(given)]
    return bool(sizes) and all(size is not None and size > 0 for size in sizes)


def known_shape(forward: Operator, backward: Operator) -> Any:
    """The shape of x in A x, as the layers recorded it, or the shapes of several x."""
    if isinstance(backward, Tied) and backward.source is forward:
        shape = _shape_of_x(backward)
    elif isinstance(forward, Tied):
        x = _shape_of_x(forward)
        shape = x and tuple(forward.apply_forward(_zeros(x, forward.compute_dtype)).shape)
    elif inputs_of(forward):
        shape = one_or_list([probe_shape(forward, [x.shape]) for x in inputs_of(forward)])
    else:
        shape = probe_shape(forward) if isinstance(forward, keras.layers.Layer) else None
    if shape is None:
        raise ValueError(
            f"The shape of the input is not known. Pass it as `input_shape`, batch axis included. "
            f"Received: forward={name_of(forward)}, input_shape=None"
        )
    return shape


def inputs_of(operator: Operator) -> list[keras.KerasTensor]:
    """The symbolic inputs of a model that has some; a subclassed one has none, but may have an attribute of that name."""
    return (isinstance(operator, (Functional, keras.Sequential)) and operator.inputs) or []


def _shape_of_x(adjoint: Tied) -> Any:
    if isinstance(adjoint, AdjointMerge):
        return [probe_shape(adjoint.source, [(None, *shape)]) for shape in adjoint.output_size] or None
    recorded = probe_shape(adjoint.source, adjoint.recorded_shapes())
    return recorded and adjoint.shape_of_x(recorded)


def name_of(operator: Operator) -> str:
    """What to call an operator in a report."""
    return getattr(operator, "name", None) or getattr(operator, "__name__", None) or repr(operator)
