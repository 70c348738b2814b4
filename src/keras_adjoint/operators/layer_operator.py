"""A layer as an operator, applied by the layer and transposed by its tied adjoint."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.errors import NoRuleError, with_article
from keras_adjoint.keras_internals import computing_in, layers_inside
from keras_adjoint.layers.adjoint import original_of
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.layers.call_pattern import CallPattern, recorded_patterns
from keras_adjoint.layers.dense import AdjointEmbedding
from keras_adjoint.layers.kernel import check_readable
from keras_adjoint.layers.registry import class_with_rule, describe, options_of
from keras_adjoint.layers.tied import Tied, call_at_inference
from keras_adjoint.layers.wrapped import inside_linear_wrappers
from keras_adjoint.models.adjoint import adjoint
from keras_adjoint.operators.asked_size import recorded_templates, sizes_meant, taking
from keras_adjoint.operators.eigenvalues import matrix_bound
from keras_adjoint.operators.layer_bounds import bound_of, rounding_of
from keras_adjoint.operators.layer_convolutions import layer_convolution, near_maximum
from keras_adjoint.operators.linear_map import HALF
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import LEAF, Space
from keras_adjoint.ops import Shape, Tensor

MOST_NUMBERS = 2**22  # of a matrix that a bound is taken from


class LayerOperator(Operator):
    """The linear part of a layer or model, computed by one layer, and its adjoint, computed by another."""

    def __init__(
        self,
        source: keras.layers.Layer,
        forward: keras.layers.Layer,
        backward: keras.layers.Layer,
        in_space: Space,
        out_space: Space,
        *,
        linear_part: bool = False,
        is_adjoint: bool = False,
    ) -> None:
        super().__init__(in_space, out_space, forward.compute_dtype)
        self.source, self.forward, self.backward = source, forward, backward
        self.linear_part, self.is_adjoint = linear_part, is_adjoint

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        found = call_at_inference(self.forward, self.in_space.pack(leaves))
        return [found] if hasattr(found, "shape") else tree.flatten(found)

    def transposed(self) -> "LayerOperator":
        return type(self)(
            self.source,
            self.backward,
            self.forward,
            self.out_space,
            self.in_space,
            linear_part=self.linear_part,
            is_adjoint=not self.is_adjoint,
        )

    def layer(self, name: str | None = None) -> keras.layers.Layer:
        return self.forward if name is None else super().layer(name)

    def adjoint_first(self) -> list[tuple[keras.layers.Layer, Space, Space]]:
        """(layer that computes the transpose of the other, what that takes, what it gives), for both, the adjoint first."""
        pairs = [(self.backward, self.in_space, self.out_space), (self.forward, self.out_space, self.in_space)]
        return pairs[::-1] if self.is_adjoint else pairs

    def near_maximum(self) -> tuple[Tensor, Tensor] | None:
        for made, taken, given in self.adjoint_first():
            found = None if getattr(made, "channels", None) else layer_convolution(made, taken, given)
            if found is not None and found.is_large:
                row, bound = near_maximum(made, found)
                takes_row = (made is self.forward) != found.is_transposed  # the row is what the convolution gives
                return row if takes_row else self.T.apply_to_rows(row), bound
        return None

    def bounded(self) -> Tensor | float:
        """By the rule of whichever of the two layers is an adjoint layer; ‖A‖ = ‖Aᵀ‖."""
        pairs = self.adjoint_first()
        if isinstance(self.source, Tied):  # as one of a policy, whose linear part another layer may compute here
            pairs.append((self.source, *pairs[-1][1:]))
        for made, taken, given in pairs:
            found = bound_of(made, taken, given)
            if found is not None:
                return found * rounding_of(self.dtype)
        return self.bounded_by_matrix() * rounding_of(self.dtype)

    def bounded_by_matrix(self) -> Tensor:
        """By the matrix, where nothing else is known."""
        if math.prod(self.shape) > MOST_NUMBERS:
            raise NoRuleError(
                f"No bound is known for this layer, and its matrix is too large to take one from, with more than "
                f"{MOST_NUMBERS} numbers. `norm` estimates the norm. Received: {self!r}"
            )
        narrow = self if self.in_space.size <= self.out_space.size else self.T
        return matrix_bound(narrow.apply_to_rows(ops.eye(narrow.in_space.size, dtype=self.precision)))

    def rounds(self) -> bool:
        return super().rounds() or any(layer.compute_dtype in HALF for layer in layers_inside(self.source))

    def in_precision(self) -> Operator | None:
        twin = computing_in(self.source, self.precision)
        if twin is None:
            return None
        taken = self.out_space if self.is_adjoint else self.in_space
        return restored(type(self), twin, taken.shape, self.linear_part, self.is_adjoint)

    def variables(self) -> list[keras.Variable]:
        found = [*self.forward.variables, *self.backward.variables]
        return list({id(variable): variable for variable in found}.values())

    def layers(self) -> list[keras.layers.Layer]:
        return [self.source]

    def describe(self) -> str:
        return f"{self.source.name}{'.T' if self.is_adjoint else ''}"

    def __repr__(self) -> str:
        made = self.forward if self.is_adjoint else self.backward
        how = "automatic" if isinstance(made, AutomaticAdjoint) else f"by {type(made).__name__}"
        return f"{super().__repr__()[:-1]}, of {with_article(type(self.source).__name__)}, adjoint {how}>"

    def __reduce__(self) -> Any:
        taken = self.out_space if self.is_adjoint else self.in_space
        return restored, (type(self), self.source, taken.shape, self.linear_part, self.is_adjoint)

    @classmethod
    def of(cls, source: Any, size: Any, linear_part: bool) -> Operator:
        """See `keras_adjoint.operator`."""
        return layer_operator(source, size, linear_part=linear_part)


def restored(
    made_by: type[LayerOperator], source: keras.layers.Layer, size: Any, linear_part: bool, is_adjoint: bool
) -> Operator:
    """An operator that was pickled."""
    found = made_by.of(source, size, linear_part)
    return found.T if is_adjoint else found


def layer_operator(source: keras.layers.Layer, size: Any = None, *, linear_part: bool = False) -> Operator:
    """See `keras_adjoint.operator`."""
    patterns = recorded_patterns(source)
    original = original_of(source) if size is None and not patterns else None
    if original is not None:
        return layer_operator(original, linear_part=True).T  # what it takes is what its source gives
    check_readable(source)
    shapes = sizes_meant(source, recorded_templates(source, patterns, size), size)
    taken = Space(tuple(shapes), _structure(patterns, shapes))
    is_adjoint = original_of(source) is not None  # which has no activation, and takes no options
    options: dict[str, Any] = {"linear_part": True} if linear_part and not is_adjoint else {}
    core = inside_linear_wrappers(source)
    may_ask = not isinstance(core, Tied) and (class_with_rule(core) is None or "output_size" in options_of(core)[0])
    with taking(source, size):
        if not is_adjoint and may_ask:
            like = [np.broadcast_to(np.float32(0), (1, *shape)) for shape in shapes]
            options["output_size"] = like[0] if len(like) == 1 else like
        backward = adjoint(source, **options)
    if getattr(backward, "needs_switches", False):
        raise NoRuleError(
            f"`{source.name}` is not linear: its inputs decide which of them it passes on. Received: {describe(source)}"
        )
    forward = adjoint(backward)
    if isinstance(backward, AdjointEmbedding):  # which is linear in one-hot vectors
        taken = Space((backward.shape_of_x(shapes[0]),))
    with taking(source, size):
        given = _given_by(forward, taken)
    return LayerOperator(source, forward, backward, taken, given, linear_part=linear_part)


def _given_by(forward: keras.layers.Layer, taken: Space) -> Space:
    """What a layer gives for tensors of a space."""
    symbolic = taken.pack([keras.KerasTensor((None, *shape), forward.compute_dtype) for shape in taken.shapes])
    given = forward.compute_output_spec(symbolic)
    if any(None in y.shape[1:] for y in tree.flatten(given)):  # some layers say less than they know
        zeros = taken.pack([ops.zeros((1, *shape), forward.compute_dtype) for shape in taken.shapes])
        given = call_at_inference(forward, zeros)
    return Space.like(given)


def _structure(patterns: Sequence[CallPattern], shapes: Sequence[Shape]) -> Any:
    """How a layer takes its tensors: as it was called, else one, or a list of several."""
    if patterns and patterns[-1].has_one_argument:
        return tree.map_structure(lambda x: LEAF, patterns[-1].arguments[0])
    return LEAF if len(shapes) == 1 else [LEAF] * len(shapes)
