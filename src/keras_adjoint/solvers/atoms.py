"""Atoms of unit norm: the kernel divided so that of every channel of the codes the longest atom has length 1.

An atom is D e, for one number e of the codes. Its squared length is a number of (D∘D)ᵀ 1, and where every number of the matrix
is one of the kernel or zero, D∘D is the same layer with the squares of the kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.scaling import largest
from keras_adjoint.solvers.system import Problem

Spread = Callable[[Tensor, keras.layers.Layer], Tensor]


def _last(norms: Tensor, layer: keras.layers.Layer) -> Tensor:
    return norms


def _next_to_last(norms: Tensor, layer: keras.layers.Layer) -> Tensor:
    return ops.expand_dims(norms, -1)


def _of_groups(norms: Tensor, layer: Any) -> Tensor:
    """Those of a convolution's inputs: filter o reads the channels of its own group."""
    by_group = ops.transpose(ops.reshape(norms, (layer.groups, -1)))
    return ops.repeat(by_group, layer.filters // layer.groups, axis=1)


def _of_multiplier(norms: Tensor, layer: Any) -> Tensor:
    return ops.reshape(norms, (-1, layer.depth_multiplier))


# By the class of the layer, how one number for each channel comes to stand beside the kernel: (of its outputs, of its inputs).
SPREADS: dict[type, tuple[Spread, Spread]] = {
    layers.Dense: (_last, _next_to_last),
    **{getattr(layers, f"Conv{rank}D"): (_last, _of_groups) for rank in (1, 2, 3)},
    **{getattr(layers, f"Conv{rank}DTranspose"): (_next_to_last, _last) for rank in (1, 2, 3)},
    **{getattr(layers, f"DepthwiseConv{rank}D"): (_of_multiplier, _next_to_last) for rank in (1, 2)},
}


def check_atoms(source: Any) -> None:
    """Raise unless the atoms of a layer can be made of unit norm.

    Raises:
        NoRuleError: If the layer is of another kind, or its kernel is no plain variable.
    """
    plain = source.quantization_mode is None and not getattr(source, "lora_enabled", False)
    if type(source) not in SPREADS or not plain:
        known = ", ".join(sorted(each.__name__ for each in SPREADS))
        raise NoRuleError(
            f"Atoms of unit norm are known for layers with one kernel, neither quantised nor with LoRA: {known}. Pass "
            f"`unit_atoms=False`. Received: {type(source).__name__} `{source.name}`"
        )


def unit_kernel(problem: Problem, operands: Sequence[Tensor], source: Any, of_outputs: bool) -> Tensor:
    """The kernel with unit atoms, differentiable by the kernel. Atoms that are zero stay so.

    Args:
        problem: That of D.
        operands: Of the problem, with the kernel as it is.
        source: The layer.
        of_outputs: Whether the codes are what the layer gives, rather than what it takes.
    """
    index = kernel_index(problem, source)
    given = operands[index]
    kernel = ops.cast(given, problem.operator.precision)
    kernel = kernel / largest(ops.reshape(kernel, (1, -1)))[0, 0]
    squared = [*operands[:index], ops.square(kernel), *operands[index + 1 :]]
    with problem.at(squared) as system:
        squares = system.adjoint(ops.ones((1, problem.operator.shape[0]), kernel.dtype))
    (codes,) = problem.operator.in_space.split(squares)
    axis = (
        1 if getattr(source, "data_format", "") == "channels_first" and len(codes.shape) > 2 else len(codes.shape) - 1
    )
    squares = ops.max(codes, axis=[other for other in range(len(codes.shape)) if other != axis])
    norms = ops.where(squares > 0, ops.sqrt(ops.where(squares > 0, squares, 1.0)), 1.0)
    return ops.cast(kernel / SPREADS[type(source)][0 if of_outputs else 1](norms, source), given.dtype)


def kernel_index(problem: Problem, source: Any) -> int:
    """Which of the operands the layer's kernel is."""
    return next(index for index, each in enumerate(problem.variables()) if each is source.kernel)
