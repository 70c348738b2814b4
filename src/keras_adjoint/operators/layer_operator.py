"""`operator`: a linear layer or model as an operator, applied by the layer and transposed by its tied adjoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.adjoint import original_of
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.layers.call_pattern import CallPattern, recorded_patterns
from keras_adjoint.layers.dense import AdjointEmbedding
from keras_adjoint.layers.kernel import check_readable
from keras_adjoint.layers.options import as_integer
from keras_adjoint.layers.registry import class_with_rule, describe, options_of
from keras_adjoint.layers.tied import Tied, call_at_inference
from keras_adjoint.models.adjoint import adjoint
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import LEAF, Space
from keras_adjoint.ops import Shape, Tensor


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
        fixed: keras.Model | None = None,
    ) -> None:
        super().__init__(in_space, out_space, forward.compute_dtype)
        self.source, self.forward, self.backward = source, forward, backward
        self.linear_part, self.is_adjoint = linear_part, is_adjoint
        self.fixed = fixed  # a model of known sizes that calls the source

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        found = call_at_inference(self.forward, self.in_space.pack(leaves))
        return [found] if hasattr(found, "shape") else tree.flatten(found)

    def transposed(self) -> Operator:
        return LayerOperator(
            self.source,
            self.backward,
            self.forward,
            self.out_space,
            self.in_space,
            linear_part=self.linear_part,
            is_adjoint=not self.is_adjoint,
            fixed=self.fixed,
        )

    def layer(self, name: str | None = None) -> keras.layers.Layer:
        return self.forward if name is None else super().layer(name)

    def describe(self) -> str:
        return f"{self.source.name}{'.T' if self.is_adjoint else ''}"

    def __repr__(self) -> str:
        made = self.forward if self.is_adjoint else self.backward
        how = "automatic" if isinstance(made, AutomaticAdjoint) else f"by {type(made).__name__}"
        return f"{super().__repr__()[:-1]}, of a {type(self.source).__name__}, adjoint {how}>"

    def __reduce__(self) -> Any:
        taken = self.out_space if self.is_adjoint else self.in_space
        return _restored, (self.source, taken.shape, self.linear_part, self.is_adjoint)


def _restored(source: keras.layers.Layer, size: Any, linear_part: bool, is_adjoint: bool) -> Operator:
    found = operator(source, size=size, linear_part=linear_part)
    return found.T if is_adjoint else found


def operator(source: keras.layers.Layer, *, size: Any = None, linear_part: bool = False) -> Operator:
    """A linear layer or model as an operator A between the tensors that it takes and gives.

    Biases are no part of it. `A @ x` is the layer applied to a batch, `A.T` its tied adjoint, and operators are combined as
    matrices are: `A @ B`, `A + B`, `2 * A`, `A.gram()`.

    Args:
        source: A built, linear Keras layer, or a Functional or Sequential model of such layers.
        size: The shape of what the layer takes, without the batch axis, or its spatial sizes alone; a list of shapes where
            it takes several tensors. By default the size that it was built or called with.
        linear_part: Whether to take the linear part of a layer that ends in an activation.

    Returns:
        An `Operator`.

    Raises:
        NoRuleError: If the layer is not linear.
        SizeError: If the size is not known, or the layer recorded several.
        TieError: If the layer is not built.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
    >>> conv.build((None, 27, 27, 3))
    >>> A = ka.operator(conv)
    >>> A.in_shape, A.out_shape, A.shape
    ((27, 27, 3), (14, 14, 8), (1568, 2187))
    >>> x = np.ones((4, 27, 27, 3), "float32")
    >>> (A.T @ (A @ x)).shape
    (4, 27, 27, 3)
    >>> A.T.T is A
    True
    """
    if not isinstance(source, keras.layers.Layer):
        raise ValueError(f"`operator` takes a Keras layer or model. Received: {source!r} of type {type(source).__name__}")
    if isinstance(source, keras.Model) and class_with_rule(source) is None and getattr(source, "inputs", None):
        return _of_model(source, size, linear_part)
    return _of_layer(source, size, linear_part)


def _of_model(model: keras.Model, size: Any, linear_part: bool) -> Operator:
    templates = [tuple(x.shape[1:]) for x in model.inputs]
    shapes = sizes_meant(model, templates, size)
    if shapes == templates:
        fixed = model
    else:
        inputs = [keras.Input(shape, dtype=x.dtype) for shape, x in zip(shapes, model.inputs, strict=True)]
        x = inputs[0] if isinstance(model, keras.Sequential) else tree.pack_sequence_as(model.input, inputs)
        fixed = keras.Model(x, model(x), name=model.name)
    backward = adjoint(fixed, linear_part=linear_part)
    is_chain = isinstance(fixed, keras.Sequential)
    ends = (fixed.inputs[0], fixed.outputs[0]) if is_chain else (fixed.input, fixed.output)
    taken, given = map(Space.like, ends)
    return LayerOperator(model, adjoint(backward), backward, taken, given, linear_part=linear_part, fixed=fixed)


def _of_layer(source: keras.layers.Layer, size: Any, linear_part: bool) -> Operator:
    patterns = recorded_patterns(source)
    original = original_of(source) if size is None and not patterns else None
    if original is not None:
        return _of_layer(original, None, linear_part=True).T  # what it takes is what its source gives
    check_readable(source)
    shapes = sizes_meant(source, _templates(source, patterns, size), size)
    taken = Space(tuple(shapes), _structure(patterns, shapes))
    options: dict[str, Any] = {"linear_part": True} if linear_part else {}
    if not isinstance(source, Tied) and (class_with_rule(source) is None or "output_size" in options_of(source)[0]):
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
    return LayerOperator(source, forward, backward, taken, _given_by(forward, taken), linear_part=linear_part)


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


def _templates(source: keras.layers.Layer, patterns: Sequence[CallPattern], size: Any) -> list[Shape]:
    """The shapes that a layer recorded, without the batch axis; with `None` for sizes that it recorded several of."""
    recorded = list(dict.fromkeys(tuple(shape[1:] for shape in pattern.input_shapes) for pattern in patterns))
    if not recorded:
        return []
    if len(recorded) > 1 and size is None and len({shapes for shapes in recorded if None not in sum(shapes, ())}) > 1:
        raise SizeError(
            f"`{source.name}` was called with several sizes, which are different operators. Pass the one that is meant as "
            f"`size`. Received: {' and '.join(str(one[0] if len(one) == 1 else one) for one in recorded)}"
        )
    return list(next((shapes for shapes in recorded if None not in sum(shapes, ())), recorded[-1]))


def sizes_meant(source: keras.layers.Layer, templates: Sequence[Shape], size: Any) -> list[tuple[int, ...]]:
    """The shapes, without the batch axis, that a user means by `size`.

    Args:
        source: The layer or model that takes them.
        templates: The shapes that it recorded, with `None` where a size is unknown; none if it recorded none.
        size: `None`; a shape; the sizes of the spatial axes; one size for all of these; or a structure of such.

    Raises:
        SizeError: If sizes remain unknown, or others are known.
    """
    given = _one_for_each(templates, size)
    if given is None or (not templates and size is None):
        raise SizeError(
            f"`{source.name}` takes {len(templates)} tensors, and `size` has a shape for each. Received: size={size!r}"
            if templates
            else f"The size of what `{source.name}` takes is not known. Pass its shape without the batch axis as `size`. "
            f"Received: size=None, {describe(source)}"
        )
    shapes = [_meant(source, *pair) for pair in zip(templates or [None] * len(given), given, strict=True)]
    for shape in shapes:
        if not all(shape):
            raise SizeError(
                f"An operator has known sizes, and `{source.name}` takes {_text(shape)}. Pass the shape without the batch "
                f"axis as `size`. Received: size={size!r}, {describe(source)}"
            )
    return [tuple(axis for axis in shape if axis) for shape in shapes]


def _one_for_each(templates: Sequence[Shape], size: Any) -> list[Any] | None:
    """`size` as a list with an entry for each tensor; `None` if that cannot be."""
    several = isinstance(size, Mapping) or (
        isinstance(size, (list, tuple)) and any(isinstance(one, (list, tuple, Mapping)) for one in size)
    )
    if not several:
        return [size] * max(1, len(templates))
    shapes = list(Space.of(size).shapes)
    return shapes if not templates or len(shapes) == len(templates) else None


def _meant(source: keras.layers.Layer, template: Shape | None, size: Any) -> list[int | None]:
    """One shape."""
    if size is None:
        return list(template or ())
    given = [as_integer(one) for one in (size if isinstance(size, (list, tuple, np.ndarray)) else [size])]
    if not all(one and one > 0 for one in given):
        raise SizeError(f"`size` has positive integers. Received: size={size!r}")
    if template is None:
        return given
    axes = _spatial_axes(source, template)
    if len(given) == 1 and not isinstance(size, (list, tuple)):
        given = given * len(axes)
    if len(given) == len(template):
        shape = list(given)
    elif len(given) == len(axes):
        shape = list(template)
        for axis, one in zip(axes, given, strict=True):
            shape[axis] = one
    else:
        shape = []
    fixed = [axis for axis in range(len(template)) if axis not in axes and template[axis] is not None]
    if len(shape) != len(template) or any(shape[axis] != template[axis] for axis in fixed):
        raise SizeError(
            f"`size` has the {len(template)} sizes of {_text(template)}, which `{source.name}` takes, or those of its "
            f"{len(axes)} spatial axes. Received: size={size!r}"
        )
    return shape


def _spatial_axes(source: keras.layers.Layer, template: Shape) -> list[int]:
    """Axes of a shape without the batch axis whose size may be asked for: all but that of the channels."""
    channels_first = getattr(source, "data_format", keras.config.image_data_format()) == "channels_first"
    return list(range(1, len(template))) if channels_first else list(range(len(template) - 1))


def _text(shape: Sequence[Any]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
