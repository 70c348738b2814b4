"""Kernels as arrays: layouts, the rearrangements that are called a transpose, and adapted channels and biases.

A layout names the axes of a kernel by one letter each: `HWIO` (Keras), `OIHW` (PyTorch), `OHWI` (TFLite, many
articles), `WIO`, `DHWIO`, ... `I` is the forward layer's input channels per group and `O` its filters; every other
letter is a spatial axis. NumPy arrays give NumPy arrays, tensors their framework's; gradient and dtype are kept.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_adjoint.errors import one_of
from keras_adjoint.kernels.arrays import ArrayFunctions, open_array
from keras_adjoint.kernels.channels import METHODS, adapter_matrix, inverse_matrix, mix, positive


def convert_layout(kernel: Any, source: str = "OHWI", target: str = "HWIO") -> Any:
    """Reorders the axes of a kernel from one layout to another.

    Args:
        kernel: A NumPy array, a variable, or a tensor of any framework.
        source: The layout of `kernel`, one letter per axis, with `I` for the input channels per group and `O` for the
            filters: `"HWIO"` (Keras), `"OIHW"` (PyTorch), `"OHWI"` (TFLite, many articles), `"WIO"`, `"DHWIO"`, ...
        target: The layout wanted, a reordering of the same letters.

    Returns:
        The same values in the other layout, an array of the same kind as `kernel`.

    Raises:
        ValueError: If a layout is malformed, the two have different letters, or `kernel` has another number of axes.

    Example:

    >>> ka.convert_layout(np.zeros((32, 5, 3, 64)), "OHWI", "HWIO").shape
    (5, 3, 64, 32)
    """
    functions, kernel = open_array(kernel)
    check_layout(source, kernel, "source")
    check_layout(target, kernel, "target")
    if sorted(source) != sorted(target):
        raise ValueError(
            "`source` and `target` must name the same axes, in any order. "
            f"Received: source={source!r}, target={target!r}"
        )
    return reorder(functions, kernel, [source.index(axis) for axis in target])


def transpose_kernel(kernel: Any, kind: str = "conv_transpose", *, layout: str = "HWIO", groups: int = 1) -> Any:
    """Rearranges a forward convolution's kernel into one of the five things that are called its transpose.

    Two of them give the adjoint, each together with the layer that it is meant for; the others do not. With
    `(..., I, O)` the kernel's shape and `groups` the forward layer's groups, the kinds are:

    - `"conv_transpose"`: the kernel to set on a stock transposed convolution, which then computes the adjoint. Its
      layout is `(..., filters, in)`, and its filters are the forward layer's input channels, so the same array fits
      as it is. No stock transposed layer of Keras has groups, so for `groups > 1` the result is the equivalent dense
      kernel `(..., I * groups, O)`, zero outside of the groups' blocks. (PyTorch's own grouped `ConvTranspose` takes
      the forward weight unchanged: `groups=1` is right there.)
    - `"conv"`: the kernel of a plain convolution of the same `groups` which, at stride 1 and after padding, computes
      the adjoint: spatially flipped and channels swapped within each group, `(..., O / groups, I * groups)`.
    - `"flip"`: spatially flipped only. It turns cross-correlation, which Keras computes, into convolution.
    - `"swap_spatial"`: the spatial axes in reverse order, H and W swapped. Right for transposed images:
      conv(xᵀ, Wᵀ) = conv(x, W)ᵀ.
    - `"swap_channels"`: channels swapped within each group without a flip, `(..., O / groups, I * groups)`. Adjoint
      for kernels that equal their own flip, such as 1 × 1 ones.

    A depthwise kernel `(..., in, multiplier)` is a grouped one: reshape it to `(..., 1, in * multiplier)` and pass
    `groups=in`.

    Args:
        kernel: A NumPy array, a variable, or a tensor of any framework.
        kind: `"conv_transpose"`, `"conv"`, `"flip"`, `"swap_spatial"` or `"swap_channels"`.
        layout: The layout of `kernel` and of the result (see `convert_layout`).
        groups: The groups of the forward convolution.

    Returns:
        An array of the same kind as `kernel`, in the same layout. Read as the kernel of a new convolution, `I` stands
        for the new input channels per group and `O` for the new filters, except in a `"conv_transpose"` kernel, where
        they keep meaning those of the forward layer.

    Raises:
        ValueError: If `kind` is unknown, `layout` does not fit, or `groups` does not divide the filters.

    Example:

    >>> kernel = np.zeros((5, 3, 64, 32))
    >>> ka.transpose_kernel(kernel).shape, ka.transpose_kernel(kernel, "conv").shape
    ((5, 3, 64, 32), (5, 3, 32, 64))
    >>> ka.transpose_kernel(kernel, "conv", groups=2).shape
    (5, 3, 16, 128)
    """
    rearrange = KINDS[one_of("kind", kind, KINDS)]
    functions, kernel = open_array(kernel)
    check_layout(layout, kernel)
    filters = kernel.shape[layout.index("O")]
    if filters % positive(groups, "groups"):
        raise ValueError(
            f"`groups` must divide the filters, which are {filters}. "
            f"Received: groups={groups}, kernel.shape={tuple(kernel.shape)}, layout={layout!r}"
        )
    # Every kind is written for kernels of shape (spatial axes, I, O).
    axes = [axis for axis, letter in enumerate(layout) if letter not in "IO"] + [layout.index("I"), layout.index("O")]
    result = rearrange(functions, reorder(functions, kernel, axes), groups)
    return reorder(functions, result, [axes.index(axis) for axis in range(len(axes))])


def block_diagonal(functions: ArrayFunctions, kernel: Any, groups: int) -> Any:
    """The kernel of the same operator without groups, zero where a filter and an input differ in group."""
    if groups == 1:
        return kernel
    *taps, inputs, filters = kernel.shape
    blocks = np.repeat(np.eye(groups), filters // groups, axis=1).reshape(groups, 1, filters)
    kernel = functions.reshape(kernel, (*taps, 1, inputs, filters)) * functions.constant(blocks, kernel)
    return functions.reshape(kernel, (*taps, groups * inputs, filters))


def flip(functions: ArrayFunctions, kernel: Any, groups: int) -> Any:
    return functions.flip(kernel, list(range(len(kernel.shape) - 2)))


def swap_spatial(functions: ArrayFunctions, kernel: Any, groups: int) -> Any:
    *taps, inputs, filters = range(len(kernel.shape))
    return reorder(functions, kernel, [*reversed(taps), inputs, filters])


def swap_channels(functions: ArrayFunctions, kernel: Any, groups: int) -> Any:
    *taps, inputs, filters = kernel.shape
    kernel = functions.reshape(kernel, (*taps, inputs, groups, filters // groups))
    *spatial, input_axis, group_axis, filter_axis = range(len(kernel.shape))
    kernel = functions.transpose(kernel, [*spatial, filter_axis, group_axis, input_axis])
    return functions.reshape(kernel, (*taps, filters // groups, groups * inputs))


KINDS: dict[str, Callable[[ArrayFunctions, Any, int], Any]] = {
    "conv_transpose": block_diagonal,
    "conv": lambda functions, kernel, groups: swap_channels(functions, flip(functions, kernel, groups), groups),
    "flip": flip,
    "swap_spatial": swap_spatial,
    "swap_channels": swap_channels,
}


def adapt_channels(
    kernel: Any,
    *,
    in_channels: int | None = None,
    out_channels: int | None = None,
    method: str = "repeat",
    layout: str = "HWIO",
) -> Any:
    """Gives a kernel other numbers of channels, at the same scale.

    Filters are adapted like the features that they make: y becomes y M, and so does the kernel along `O`. Input
    channels are adapted so that the kernel answers to adapted features x M as it did to x: it becomes M⁺ · kernel
    along `I`, where M⁺ undoes M as far as that can be done.

    - `"repeat"` (to more): channel j is channel j mod n. Filters are copied; among inputs each copy is divided by the
      number of copies, so that their sum is what it was.
    - `"average"` (to fewer): the channels i mod n are averaged, so that `"average"` undoes `"repeat"`. Filters are
      averaged; inputs are summed, so that features which were equal within a group give what they gave.
    - `"truncate"` (to fewer): the first n channels remain, and the answer to them is what it was.
    - `"pad"` (to more): new filters are zero, new inputs are ignored.

    So conv(x M, M⁺ · kernel) = conv(x, kernel): with `"repeat"` and `"pad"` for all x, with `"average"` and
    `"truncate"` for the x that lose nothing, x M M⁺ = x. The filters of a transposed convolution lie along `I`: to
    adapt those, read its kernel as its own, `layout="HWOI"`.

    Args:
        kernel: A NumPy array, a variable, or a tensor of any framework.
        in_channels: The input channels wanted, per group. Unchanged if `None`.
        out_channels: The filters wanted. Unchanged if `None`. In a grouped kernel their places say to which group they
            belong, so make such a kernel dense first, with `transpose_kernel(kernel, groups=...)`.
        method: `"repeat"`, `"average"`, `"truncate"` or `"pad"`.
        layout: The layout of `kernel` and of the result (see `convert_layout`).

    Returns:
        An array of the same kind as `kernel`, in the same layout and dtype.

    Raises:
        ValueError: If the method is unknown or does not fit the numbers of channels, `layout` does not fit, or integers
            would have to be averaged.

    Example:

    >>> kernel = np.ones((3, 3, 64, 32))
    >>> ka.adapt_channels(kernel, out_channels=64).shape
    (3, 3, 64, 64)
    >>> ka.adapt_channels(kernel, in_channels=128)[0, 0, :2, 0]
    array([0.5, 0.5])
    """
    one_of("method", method, METHODS)
    kernel = open_array(kernel)[1]
    check_layout(layout, kernel)
    inputs, filters = layout.index("I"), layout.index("O")
    if in_channels is not None:
        kernel = mix(kernel, inverse_matrix(kernel.shape[inputs], in_channels, method).T, inputs)
    if out_channels is not None:
        kernel = mix(kernel, adapter_matrix(kernel.shape[filters], out_channels, method), filters)
    return kernel


def adapt_bias(bias: Any, size: int, method: str = "repeat") -> Any:
    """Gives a bias another size, as `adapt_channels` does with the filters that it is added to.

    Args:
        bias: A one-dimensional NumPy array, a variable, or a tensor of any framework.
        size: The size wanted.
        method: `"repeat"`, `"average"`, `"truncate"`, `"pad"`, or `"zeros"` for zeros of any size.

    Returns:
        An array of shape `(size,)`, of the same kind and dtype as `bias`.

    Raises:
        ValueError: If `bias` has other than one axis, or the method does not fit, as in `adapt_channels`.

    Example:

    >>> ka.adapt_bias(np.array([1.0, 2.0, 3.0]), 5)
    array([1., 2., 3., 1., 2.])
    >>> ka.adapt_bias(np.array([1.0, 2.0, 3.0]), 2, "average")
    array([2., 2.])
    """
    one_of("method", method, (*METHODS, "zeros"))
    functions, bias = open_array(bias)
    if len(bias.shape) != 1:
        raise ValueError(f"A bias has one axis. Received: bias.shape={tuple(bias.shape)}")
    if method == "zeros":
        return functions.constant(np.zeros(positive(size, "size")), bias)
    return mix(bias, adapter_matrix(bias.shape[0], size, method), 0)


def reorder(functions: ArrayFunctions, array: Any, axes: Sequence[int]) -> Any:
    """Transposes the array, unless its axes are in order already."""
    return array if list(axes) == sorted(axes) else functions.transpose(array, axes)


def check_layout(layout: str, kernel: Any, argument: str = "layout") -> None:
    """Raises unless `layout` has a letter of its own for each axis of the kernel, `I` and `O` among them."""
    letters = set(layout) if isinstance(layout, str) and layout.isalpha() else set()
    if not letters >= {"I", "O"} or len(letters) != len(layout):
        raise ValueError(
            "A layout names each axis of a kernel by a letter of its own, `I` for the input channels and `O` for the "
            f'filters, such as "HWIO", "OIHW" or "WIO". Received: {argument}={layout!r}'
        )
    if len(layout) != len(kernel.shape):
        raise ValueError(
            f"The layout names {len(layout)} axes, but the kernel has {len(kernel.shape)}. "
            'Keras\' layouts are "WIO", "HWIO" and "DHWIO". '
            f"Received: kernel.shape={tuple(kernel.shape)}, {argument}={layout!r}"
        )
