"""Whether a layer is linear as it is called: at inference, with its constants, whatever masks it is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.layers import Layer

from keras_adjoint.errors import TieError
from keras_adjoint.keras_internals import held_value, layers_inside
from keras_adjoint.layers.call_pattern import CallPattern, flat, shapes_agree
from keras_adjoint.layers.linearity import NotLinear, NotTested, Prober, agree, check_linearity
from keras_adjoint.layers.registry import describe
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current

_UNKNOWN_SIZE = 12  # what an unknown size is tried with
_COMPILED = (
    "this code is being compiled, by `fit` for example, and its weights may have no numbers here. Take the adjoint before, and "
    "only call it here: in a subclassed model take it in `build`, and call `model.build(input_shape)` before `fit`"
)


def check_calls(source: Layer, calls: Sequence[tuple[CallPattern, Sequence[Shape]]]) -> None:
    """Raise a NotLinear unless a layer is linear in each of some calls, and leave the layer as it is.

    JAX computes that at once also where the code around it is being compiled; TensorFlow differentiates nothing then.

    Args:
        source: The layer.
        calls: How it is called, and the shapes of its inputs without the batch axis.
    """
    if "float" not in source.compute_dtype:
        raise NotLinear(f"it computes with `{source.compute_dtype}`, where no operation is linear")
    if not current().is_concrete([]):
        raise NotTested(_COMPILED)
    with current().eagerly():
        _check_calls(source, calls)


def _check_calls(source: Layer, calls: Sequence[tuple[CallPattern, Sequence[Shape]]]) -> None:
    variables = variables_of(source)
    if not current().is_concrete([ops.convert_to_tensor(variable) for variable in variables]):
        raise NotTested(_COMPILED)
    with unchanged(source) as before:
        for pattern, shapes in calls:
            probe = prober(source, pattern, shapes)
            given = [(None, *y.shape[1:]) for y in probe(probe.random())]
            changed = _changed(before)
            if changed:
                raise NotLinear(f"at every call it changes its own variables {', '.join(v.name for v, _ in changed)}")
            called = [(None, *shape) for shape in shapes]
            if shapes_agree(called, pattern.input_shapes):  # else another size was asked for
                _check_shapes(given, pattern.output_shapes)
            check_linearity(probe.function, probe.shapes, source.compute_dtype, pattern.samples)
            _check_integers(probe, pattern)
            _check_recorded(source, probe, pattern)


@contextmanager
def unchanged(layer: Layer) -> Iterator[list[tuple[keras.Variable, Any]]]:
    """Inside, a layer may change its own variables, which get their values of before after that. Gives both."""
    before = [(variable, np.array(ops.convert_to_numpy(variable))) for variable in variables_of(layer)]
    try:
        yield before
    finally:
        for variable, old in _changed(before):
            variable.assign(old)


def prober(source: Layer, pattern: CallPattern, shapes: Sequence[Shape]) -> Prober:
    """Calls a layer on arrays by a pattern, at some size where that is unknown."""
    known = [tuple(_UNKNOWN_SIZE if size is None else int(size) for size in shape) for shape in shapes]
    return Prober(lambda xs: pattern.call(source, xs), known, source.compute_dtype, pattern.samples)


def _check_shapes(given: Sequence[Shape], announced: Sequence[Shape]) -> None:
    if announced and not shapes_agree(given, announced):
        shapes, others = (", ".join(map(str, each)) for each in (given, announced))
        raise NotLinear(f"at inference it gives {shapes}, although it says of a symbolic call that it gives {others}")


def _check_integers(probe: Prober, pattern: CallPattern) -> None:
    """Layers that are called on integers may round what they give."""
    if pattern.takes_integers:

        def typed(xs: list[Tensor]) -> Any:
            return probe.function([ops.cast(x, each.dtype) for x, each in zip(xs, pattern.inputs, strict=True)])

        other = Prober(typed, probe.shapes, probe.dtype, pattern.samples)
        pairs = zip(probe.shapes, pattern.inputs, strict=True)
        xs = [other.generator.integers(*_range(x.dtype), (other.samples, *shape)) for shape, x in pairs]
        what = f"of integers of {' and '.join(x.dtype for x in pattern.inputs)} it gives something else than of floats"
        agree(other(xs), probe(xs), probe.rounding, what)


def _range(dtype: str) -> tuple[int, int]:
    """From where to where integers of a dtype are tried: as far as they go, or as floats hold sums of them."""
    limits = np.iinfo(dtype) if "int" in dtype else None
    return (0, 2) if limits is None else (max(int(limits.min), -(2**20)), min(int(limits.max), 2**20) + 1)


def variables_of(layer: Layer) -> list[keras.Variable]:
    """The variables of a layer, also those that Keras does not count among them, as the states of recurrent layers."""
    values = [value for one in (layer, *layers_inside(layer)) for value in vars(one).values()]
    found = [*layer.variables, *(leaf for value in values for leaf in flat(value) if isinstance(leaf, keras.Variable))]
    return list({id(variable): variable for variable in found}.values())


def functions_of(layer: Layer) -> list[Any]:
    """The functions that a layer holds, by which it may compute: that of a `Lambda`, activations, a `call` of its own."""
    return [value for one in (layer, *layers_inside(layer)) for value in vars(one).values() if callable(value)]


class _Reads(keras.StatelessScope):
    """A scope that notes the variables that are read in it."""

    def __init__(self) -> None:
        super().__init__()
        self.variables: dict[int, keras.Variable] = {}

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.variables[id(variable)] = variable
        return super().get_current_value(variable)


def foreign_variables(source: Layer, calls: Sequence[tuple[CallPattern, Sequence[Shape]]]) -> list[str]:
    """The names of the variables that a layer computes with and does not hold, those of the backend's own among them."""
    reads, raw = _Reads(), []
    for pattern, shapes in calls:
        probe = prober(source, pattern, shapes)
        try:
            with reads:
                raw += current().variables_read(probe.tensors_of_zeros)
        except Exception:  # of whatever kind the layer's code raises: it takes no zeros
            continue
    own = variables_of(source)
    known = {id(held_value(variable)) for variable in (*own, *reads.variables.values())}
    keys = {id(variable) for variable in own}
    foreign = {key: variable.path for key, variable in reads.variables.items() if key not in keys}
    foreign.update({id(each): _description(each) for each in raw if id(each) not in known})
    return list(foreign.values())


def _description(variable: Any) -> str:
    return f"a `{type(variable).__name__}` of shape {tuple(variable.shape)}"


def check_owned(source: Layer, calls: Sequence[tuple[CallPattern, Sequence[Shape]]]) -> None:
    """Raise a TieError if a layer computes with variables that are not its own, which a copy would read as well."""
    foreign = foreign_variables(source, calls)
    if foreign:
        raise TieError(
            f"`{source.name}` computes with variables that are not its own, {', '.join(foreign)}, and a copy of it would read "
            f"the same ones, so that `tied=False` could not separate the two. Write a layer that owns them, or that has the "
            f"layers which own them as attributes. Received: tied=False, {describe(source)}"
        )


def _changed(before: list[tuple[keras.Variable, Any]]) -> list[tuple[keras.Variable, Any]]:
    """(variable, value before) of those that are not as they were before."""
    return [(v, old) for v, old in before if not np.array_equal(ops.convert_to_numpy(v), old, equal_nan=True)]


def _check_recorded(source: Layer, probe: Prober, pattern: CallPattern) -> None:
    """Raise a NotLinear if what a layer gives depends on the masks, or other recorded tensors, that it was called with."""
    xs = probe.random()
    for name, symbolic in pattern.recorded.items():

        def function(tensors: list[Tensor], name: str = name, symbolic: Any = symbolic) -> Any:
            return pattern.call(source, tensors, **{name: tree.map_structure(some, symbolic)})

        def some(leaf: Any) -> Any:
            """Numbers of two kinds, no two samples alike."""
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            shape = [probe.samples, *(_UNKNOWN_SIZE if size is None else size for size in leaf.shape[1:])]
            return ops.cast(probe.generator.integers(0, 2, shape[: len(leaf.shape)]), leaf.dtype)

        what = f"what it gives depends on the `{name}` that it is called with, a tensor that the model computes"
        try:
            found = Prober(function, probe.shapes, probe.dtype, pattern.samples)(xs)
        except NotLinear:
            raise NotLinear(what) from None
        agree(found, probe(xs), probe.last_bits, what)
