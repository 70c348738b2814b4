"""The automatic adjoint: of a layer that has no rule and proves to be linear, the transpose of the backend's own derivative."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.call_pattern import (
    CallPattern,
    flat,
    one_or_list,
    recorded_patterns,
    shapes_agree,
    single_input,
)
from keras_adjoint.layers.inputs import check_real, name_of_dtype
from keras_adjoint.layers.linear_source import check_calls, check_owned, functions_of, prober
from keras_adjoint.layers.linearity import NotLinear
from keras_adjoint.layers.own_copy import own_copy
from keras_adjoint.layers.registry import apply_rule, describe, why_no_rule
from keras_adjoint.layers.sizes import holds_sizes, sizes_of
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current

_MOST_NUMBERS = 2**20  # in inputs of a size at which it is still tested whether a source is linear


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AutomaticAdjoint(Tied):
    """The adjoint of a layer that is linear up to a constant, by transposing the backend's derivative of it.

    A x = source(x) − source(0) is its own derivative everywhere, so Aᵀ y is the vector-Jacobian product of the source at 0
    with y. It is differentiable by y and by whatever the source computes with.

    Args:
        source: A layer, of which `automatic_adjoint` has tested that it is linear.
        output_size: The shape of the source's input, without the batch axis, or along its spatial axes alone; for several
            inputs a list of shapes. By default what the source was called or built with.
        patterns: How the source is called. For deserialisation.

    Call arguments:
        y: Tensor of the shape of the source's output; if it gives several, in the structure that it gives them in.
        output_size: The shape wanted in this call, or a tensor that has it; a list for several inputs.

    Input shape: That of the source's output.
    Output shape: That of the source's input. Inputs that are one argument of the source come in its structure, several
        others in a list.

    Raises:
        SizeError: If the source works for several sizes and nothing says which is meant.

    Example:

    >>> differences = keras.layers.Lambda(lambda x: x[:, 1:] - x[:, :-1])
    >>> inputs = keras.Input((4,))
    >>> outputs = differences(inputs)
    >>> np.array(ka.adjoint(differences)(np.array([[1.0, 0.0, 0.0]]))).tolist()
    [[-1.0, 1.0, 0.0, 0.0]]
    """

    options = ("output_size", *Tied.options)

    def __init__(
        self,
        source: Layer,
        *,
        output_size: Any = None,
        patterns: Sequence[CallPattern] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, **kwargs)
        self.patterns = tuple(recorded_patterns(source) if patterns is None else patterns)
        self.output_size = None if output_size is None else tuple(self._asked_shapes(output_size))
        self.__dict__.update(functions=functions_of(source), tested=set())  # past Keras' tracking

    # --- the operator

    def call(self, y: Any, output_size: Any = None) -> Any:
        ys = [self._real(each) for each in flat(y)]
        pattern, shapes = self.resolve([tuple(each.shape) for each in ys], output_size)
        if any(None in shape for shape in shapes):
            raise self._ambiguous([tuple(each.shape) for each in ys], [shapes])
        if current().is_concrete(ys):
            self._check_linear_at(pattern, shapes)
        batch = ops.shape(ys[0])[0]
        xs = [ops.zeros((batch, *shape), dtype=self.compute_dtype) for shape in shapes]

        def forward(xs: list[Tensor]) -> list[Tensor]:
            outputs = [ops.cast(each, self.compute_dtype) for each in flat(pattern.call(self.source, xs))]
            self._check_fits([tuple(each.shape) for each in ys], [tuple(each.shape) for each in outputs])
            return outputs

        return pattern.packed(current().linear_vjp(forward, xs, ys))

    def _real(self, y: Any) -> Tensor:
        if hasattr(y, "dtype"):
            check_real(self, name_of_dtype(y.dtype))
        return ops.convert_to_tensor(y, dtype=self.compute_dtype)

    def apply_forward(self, x: Any) -> Any:
        """A x."""
        pattern = self._pattern_like(x)
        xs = flat(x)
        at_x, at_zero = (pattern.call(self.source, each) for each in (xs, list(map(ops.zeros_like, xs))))
        return tree.map_structure(ops.subtract, at_x, at_zero)

    def calls(self) -> list[tuple[CallPattern, list[Shape]]]:
        """(how the source is called, the shapes of its inputs without the batch axis), for each way that is known."""
        if self.output_size is not None:
            return [self.resolve([], None)]
        return [(pattern, [shape[1:] for shape in pattern.input_shapes]) for pattern in self.patterns]

    def source_is_forward(self) -> bool:
        """Whether the source, called on what this layer gives, is the operator A: it adds nothing."""
        calls = self.calls()
        return all(pattern.has_one_argument for pattern, _ in calls) and not any(
            np.any(y) for pattern, shapes in calls for y in prober(self.source, pattern, shapes).of_zeros()
        )

    def forward_spec(self, x: Any) -> Any:
        """What A gives for symbolic tensors."""
        return self._pattern_like(x).spec(self.source, flat(x))

    def packed_as_given(self, xs: Sequence[Tensor]) -> Any:
        """Tensors of the shapes that this layer gives, in the structure that it gives them in and the source takes."""
        pattern = self._of_ranks([len(x.shape) for x in xs])
        return one_or_list(xs) if pattern is None else pattern.packed(xs)

    def _pattern_like(self, x: Any) -> CallPattern:
        return self._of_ranks([len(each.shape) for each in flat(x)]) or single_input(tuple(x.shape), self.compute_dtype)

    def _of_ranks(self, ranks: list[int]) -> CallPattern | None:
        """How the source is called on tensors with as many axes, batch axis included; `None` if that is not known."""
        fitting = [one for one in self.patterns if [len(shape) for shape in one.input_shapes] == ranks]
        self._check_one_operator(fitting)
        return next(iter(fitting), None)

    def _check_one_operator(self, fitting: Sequence[CallPattern]) -> None:
        operators = {one.operator for one in fitting}
        if len(operators) > 1:
            raise NoRuleError(
                f"`{self.source.name}` was called with different arguments beside its tensors, so it stands for several "
                f"operators. Take the adjoint of a model that holds the call that is meant. Received: "
                f"{len(operators)} different calls of {describe(self.source)}"
            )

    # --- sizes

    def resolve(self, received: Sequence[Shape], output_size: Any = None) -> tuple[CallPattern, list[Shape]]:
        """(how the source is called, the shapes of its inputs without the batch axis), for shapes of y."""
        asked = self.output_size if output_size is None else self._asked_shapes(output_size)
        if asked is not None:
            pattern = self._of_ranks([1 + len(shape) for shape in asked])
            return pattern or single_input((None, *asked[0]), self.compute_dtype), list(asked)
        fitting = [p for p in self.patterns if not p.outputs or shapes_agree(received, p.output_shapes)]
        if not fitting and self.patterns:
            self._check_fits(received, self.patterns[0].output_shapes)
        shapes = [[shape[1:] for shape in pattern.input_shapes] for pattern in fitting]
        if len(fitting) == 1:
            return fitting[0], shapes[0]
        self._check_one_operator(fitting)
        raise self._ambiguous(received, shapes)

    def _ambiguous(self, received: Sequence[Shape], shapes: Sequence[Sequence[Shape]]) -> SizeError:
        known = " or ".join(", ".join(map(str, each)) for each in shapes) or "none"
        return SizeError(
            f"`{self.source.name}` may give this for inputs of several sizes, so its adjoint cannot know which is meant. Pass "
            f"the shape of its input as `output_size=...`, without the batch axis, to `adjoint` or when you call the layer. "
            f"Received: y.shape={', '.join(map(str, received))}, recorded sizes: {known}"
        )

    def _asked_shapes(self, output_size: Any) -> list[Shape]:
        """`output_size` in any of its forms as one shape for each input."""
        several = next((pattern for pattern in self.patterns if len(pattern.inputs) > 1), None)
        if several is None:
            one = next(iter(self.patterns), None)
            return [self._asked_shape(output_size, None if one is None else one.input_shapes[0])]
        is_one_shape = hasattr(output_size, "shape") or not isinstance(output_size, (list, tuple, dict))
        asked = [output_size] if is_one_shape else flat_shapes(output_size)
        if len(asked) != len(several.inputs):
            raise SizeError(
                f"`{self.source.name}` takes {len(several.inputs)} tensors, so `output_size` is a list of as many shapes. "
                f"Received: output_size={output_size!r}"
            )
        return [self._asked_shape(size, shape) for size, shape in zip(asked, several.input_shapes, strict=True)]

    def _asked_shape(self, size: Any, recorded: Shape | None) -> Shape:
        shape = sizes_of(size)
        if shape is None:
            raise SizeError(
                "`output_size` takes the sizes of all axes but the batch axis, or a tensor that has them. "
                f"Received: output_size={size!r}"
            )
        if hasattr(size, "shape") and not holds_sizes(size):
            return shape[1:]
        if recorded is None or len(shape) == len(recorded) - 1:
            return shape
        if len(shape) == len(recorded):
            return shape[1:]
        if len(shape) == len(recorded) - 2 and shape:
            first = self.data_format == "channels_first"
            return (recorded[1], *shape) if first else (*shape, recorded[-1])
        raise SizeError(
            f"`{self.source.name}` takes inputs of shape {recorded}, of which `output_size` gives all sizes but the batch's. "
            f"Received: output_size={size!r}"
        )

    def _check_linear_at(self, pattern: CallPattern, shapes: Sequence[Shape]) -> None:
        """Test whether the source is linear at a size, too, or with other functions, as far as that can be tested now."""
        sizes, functions = tuple(shapes), functions_of(self.source)
        is_changed = [*map(id, functions)] != [*map(id, self.functions)]
        tested = set() if is_changed else self.tested or {tuple(known) for _, known in self.calls()}
        if sizes in tested or not all(isinstance(size, int) for shape in sizes for size in shape):
            return
        concrete = current().is_concrete([variable.value for variable in self.source.variables])
        if not concrete or (not is_changed and sum(map(math.prod, sizes)) > _MOST_NUMBERS):
            return
        try:
            check_calls(self.source, [(replace(pattern, outputs=()), shapes)])
        except NotLinear as found:
            before = (
                f"was linear with the functions that it had when its adjoint was taken. Some were set anew, and now {found}"
                if is_changed
                else f"is linear at the sizes that it was tested at before, and at this one {found}"
            )
            raise NoRuleError(
                f"`{self.source.name}` {before}. Received: inputs of shape {', '.join(map(str, sizes))}, "
                f"{describe(self.source)}"
            ) from None
        self.__dict__.update(functions=functions, tested={*tested, sizes})

    def _check_fits(self, received: Sequence[Shape], expected: Sequence[Shape]) -> None:
        if not shapes_agree(received, expected):
            raise ValueError(
                f"`{self.name}` takes the output of `{self.source.name}`: {', '.join(map(str, expected))}. "
                f"Received: {'tensors' if len(received) > 1 else 'a tensor'} of shape {', '.join(map(str, received))}"
            )

    @property
    def needs_output_size(self) -> bool:
        return True

    def output_size_like(self, *xs: keras.KerasTensor) -> list[Shape] | None:
        """The `output_size` that makes the outputs as large as symbolic tensors; `None` if that is not known."""
        shapes = [tuple(x.shape[1:]) for x in xs]
        if any(None in shape for shape in shapes):
            return None
        return shapes if len(shapes) > 1 else shapes[0]  # type: ignore[return-value]

    def compute_output_spec(self, y: Any, output_size: Any = None, **kwargs: Any) -> Any:
        ys = flat(y)
        pattern, shapes = self.resolve([tuple(each.shape) for each in ys], output_size)
        self._check_linear_at(pattern, shapes)
        tensors = [keras.KerasTensor((ys[0].shape[0], *shape), dtype=self.compute_dtype) for shape in shapes]
        if output_size is not None and shapes not in [known for _, known in self.calls()]:
            outputs = flat(pattern.spec(self.source, tensors))
            self._check_fits([tuple(each.shape) for each in ys], [tuple(each.shape) for each in outputs])
        return pattern.packed(tensors)

    def compute_output_shape(self, input_shape: Any, output_size: Any = None) -> Any:
        received = flat_shapes(input_shape)
        _, shapes = self.resolve(received, output_size)
        found = [(received[0][0], *shape) for shape in shapes]
        return found if len(found) > 1 else found[0]

    def get_config(self) -> dict[str, Any]:
        patterns = [pattern.get_config() for pattern in self.patterns]
        return {**super().get_config(), "output_size": self.output_size, "patterns": patterns}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AutomaticAdjoint":
        patterns = [CallPattern.from_config(pattern) for pattern in config["patterns"]]
        return super().from_config({**config, "patterns": patterns})


def flat_shapes(shapes: Any) -> list[Any]:
    """The shapes, or tensors, in a structure of them; a tuple or list of integers is one shape."""
    if isinstance(shapes, dict):
        return [shape for name in sorted(shapes) for shape in flat_shapes(shapes[name])]
    if hasattr(shapes, "shape") or not any(isinstance(one, (tuple, list, dict)) or is_array(one) for one in shapes):
        return [shapes]
    return [shape for each in shapes for shape in flat_shapes(each)]


def is_array(value: Any) -> bool:
    """Whether a value is a tensor with axes."""
    return bool(len(getattr(value, "shape", ())))


# --- making one


def automatic_adjoint(
    source: Layer, *, patterns: Sequence[CallPattern] | None = None, **options: Any
) -> AutomaticAdjoint:
    """The automatic adjoint of a layer without a rule, if the layer proves to be linear.

    Args:
        source: The layer.
        patterns: How it is called, if not in every way in which it was called so far.
        **options: Those of `adjoint`.

    Raises:
        NoRuleError: If it is not linear, with the numbers that showed it, or if that cannot be tested.
    """
    if not source.built and type(source).build is not Layer.build:
        raise NoRuleError(
            f"No adjoint is known for `{type(source).__name__}`: {why_no_rule(source)}; and it is not built, so it cannot be "
            f"tested whether it is linear. Call it, or `source.build(input_shape)`, before asking for its adjoint. "
            f"Received: {describe(source)}"
        )
    separate, original = not options.get("tied", True), source
    if separate:
        patterns = recorded_patterns(source) if patterns is None else patterns
        source = own_copy(source)
    result = apply_rule(AutomaticAdjoint, source, options)
    assert isinstance(result, AutomaticAdjoint)
    if patterns is not None:
        result.patterns = tuple(patterns)
    name = type(source).__name__
    if not result.patterns and result.output_size is None:
        raise NoRuleError(
            f"No adjoint is known for `{name}`: {why_no_rule(source)}. If it is linear, its adjoint is derived, for which the "
            f"shape of its input must be known: call it on a `keras.Input`, build it with `source.build(input_shape)`, or "
            f"pass the shape without the batch axis as `output_size=...`. Received: {describe(original)}"
        )
    try:
        check_calls(source, result.calls())
    except NotLinear as found:
        raise NoRuleError(
            f"No adjoint is known for `{name}`: {why_no_rule(source)}, and {found}. `mirror` and "
            f"`autoencoder` have policies for layers that are not linear. If its adjoint is known nevertheless, teach it with "
            f"`@keras_adjoint.register_rule({name})`. Received: {describe(original)}"
        ) from None
    if separate:
        check_owned(original, result.calls())
    return result
