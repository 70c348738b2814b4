"""Operators as those of PyLops, lineax and DeepInverse, each with the axes, the batch and the arrays of that library."""

from typing import Any

import keras
from keras import tree

from keras_adjoint.errors import KerasAdjointError, one_of
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.operators.optional import check_backend, imported
from keras_adjoint.operators.scipy_bridge import to_scipy
from keras_adjoint.operators.space import LEAF, Space
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.axes import move_axis

FORMATS = ("channels_first", "channels_last")


def to_pylops(operator: LinearMap) -> Any:
    """See `Operator.to_pylops`."""
    pylops = imported("pylops", "`to_pylops`")
    dims, dimsd = (_dims(space) for space in (operator.in_space, operator.out_space))
    return pylops.LinearOperator(to_scipy(operator), dims=dims, dimsd=dimsd)


def _dims(space: Space) -> Shape:
    """The shape of PyLops' arrays: that of the one tensor; of several, all numbers in a row."""
    return space.shapes[0] if len(space.shapes) == 1 else (space.size,)


def to_lineax(operator: LinearMap) -> Any:
    """See `Operator.to_lineax`."""
    check_backend("jax", "`to_lineax`")
    lineax, jax = (imported(name, "`to_lineax`", "lineax") for name in ("lineax", "jax"))

    def structure(space: Space) -> Any:
        return space.pack([jax.ShapeDtypeStruct(shape, operator.dtype) for shape in space.shapes])

    def adjoint(y: Any) -> Any:
        found = operator.T.apply([leaf[None] for leaf in tree.flatten(y)])
        return operator.in_space.pack([leaf[0] for leaf in found])

    def forward(x: Any) -> Any:
        # lineax transposes this, and the transpose of the transposed adjoint is the adjoint as this package computes it.
        (y,) = jax.linear_transpose(adjoint, structure(operator.out_space))(x)
        return y

    return lineax.FunctionLinearOperator(forward, structure(operator.in_space))


def to_deepinv(operator: LinearMap, data_format: str | None) -> Any:
    """See `Operator.to_deepinv`."""
    check_backend("torch", "`to_deepinv`")
    channels_last = data_format_of(operator, data_format) == "channels_last"
    deepinv = imported("deepinv", "`to_deepinv`", "deepinv")

    def applied(part: LinearMap, x: Any) -> Any:
        tensors = list(x) if isinstance(x, deepinv.utils.TensorList) else [x]
        found = (
            apply_channels_first(part, tensors) if channels_last else part.apply(_leaves(part.in_space, tensors, part))
        )
        return found[0] if len(found) == 1 else deepinv.utils.TensorList(found)

    def forward(x: Any, **kwargs: Any) -> Any:
        return applied(operator, x)

    def adjoint(y: Any, **kwargs: Any) -> Any:
        return applied(operator.T, y)

    space = _channels_first(operator.in_space) if channels_last else operator.in_space
    size = space.shapes[0] if len(space.shapes) == 1 else None
    return deepinv.physics.LinearPhysics(A=forward, A_adjoint=adjoint, img_size=size)


def apply_channels_first(operator: LinearMap, tensors: list[Tensor]) -> list[Tensor]:
    """A x of an operator with its channels last, for tensors with the channels behind the batch axis."""
    leaves = _leaves(_channels_first(operator.in_space), tensors, operator)
    found = operator.apply([move_axis(leaf, 1, -1) for leaf in leaves])
    return [move_axis(leaf, -1, 1) for leaf in found]


def _channels_first(space: Space) -> Space:
    return Space(tuple((shape[-1], *shape[:-1]) for shape in space.shapes), [LEAF] * len(space.shapes))


def _leaves(space: Space, tensors: list[Tensor], operator: LinearMap) -> list[Tensor]:
    flat = Space(space.shapes, [LEAF] * len(space.shapes))
    return flat.leaves(tensors, operator.dtype, f"The physics of {operator!r}")


def data_format_of(operator: LinearMap, data_format: str | None) -> str:
    """Where the operator has its channels: as asked for, as its layers say, or as Keras is set."""
    if data_format is not None:
        return one_of("data_format", data_format, FORMATS)
    layers = [inner for layer in operator.layers() for inner in (layer, *layers_inside(layer))]
    found = {layer.data_format for layer in layers if getattr(layer, "data_format", None) in FORMATS}
    if len(found) > 1:
        raise KerasAdjointError(
            f"Some layers of this operator have channels first and others last, so it cannot be known which its own tensors "
            f'have. Pass `data_format="channels_first"` or `data_format="channels_last"`. Received: {operator!r}'
        )
    return next(iter(found), keras.config.image_data_format())
