"""Channel adapters: which channel becomes which, as a matrix M, and M applied along one axis of an array.

A row of features x with `size` channels becomes x M with `target` channels. Every adapter says only what its M is.
"""

from typing import Any

import numpy as np

from keras_adjoint.errors import one_of
from keras_adjoint.kernels.arrays import open_array


def repeat(size: int, target: int) -> np.ndarray:
    """Channel j is a copy of channel j mod `size`: all channels in turn, then again from the first."""
    return np.equal.outer(np.arange(size), np.arange(target) % size).astype("float64")


def average(size: int, target: int) -> np.ndarray:
    """Channel j is the mean of the channels i with i mod `target` = j: exactly those that `repeat` copies from j."""
    members = repeat(target, size).T
    return members / members.sum(axis=0)


def eye(size: int, target: int) -> np.ndarray:
    """The first channels as they are; the rest is left out, or filled with zeros."""
    return np.eye(size, target)


# method     matrix    adapts size to target  the one that undoes it
METHODS = {
    "repeat":   (repeat,  np.less_equal,    "average"),
    "average":  (average, np.greater_equal, "repeat"),
    "truncate": (eye,     np.greater_equal, "pad"),
    "pad":      (eye,     np.less_equal,    "truncate"),
}  # fmt: skip


def adapter_matrix(size: int, target: int, method: str, *, argument: str = "method") -> np.ndarray:
    """Returns the matrix M of shape `(size, target)` that takes `size` channels x to `target` channels x M.

    Args:
        size: How many channels there are.
        target: How many channels are asked for.
        method: `"repeat"` or `"pad"` (to as many channels or more), `"average"` or `"truncate"` (to as many or fewer).
        argument: What the method was given as, for messages.

    Returns:
        A NumPy array in float64.

    Raises:
        ValueError: If the method is unknown, a size is not a positive integer, or the method does not fit the two numbers.

    Example:

    >>> adapter_matrix(2, 3, "repeat")
    array([[1., 0., 1.],
           [0., 1., 0.]])
    >>> adapter_matrix(3, 2, "average")
    array([[0.5, 0. ],
           [0. , 1. ],
           [0.5, 0. ]])
    """
    build, fits, opposite = METHODS[one_of(argument, method, METHODS)]
    size, target = positive(size, "size"), positive(target, "target")
    if not fits(size, target):
        direction = "more" if target > size else "fewer"
        raise ValueError(
            f"`{argument}={method!r}` cannot make {direction} channels ({target}) out of {size}. "
            f"Use `{argument}={opposite!r}` instead. Received: {argument}={method!r}, size={size}, target={target}"
        )
    return build(size, target)


def inverse_matrix(size: int, target: int, method: str) -> np.ndarray:
    """Returns M⁺ of shape `(target, size)`, the pseudo-inverse of `adapter_matrix(size, target, method)`.

    The methods come in pairs, each the pseudo-inverse of the other, so no M⁺ is ever computed by decomposition:

    - repeat: the rows of M hold its copies and do not overlap, M Mᵀ = diag(copies), hence
      M⁺ = Mᵀ (M Mᵀ)⁻¹ = Mᵀ diag(1 / copies): the mean over the copies, which is `average`.
    - average: the columns of M do not overlap, Mᵀ M = diag(1 / count), hence
      M⁺ = (Mᵀ M)⁻¹ Mᵀ = diag(count) Mᵀ, whose entries are count · 1 / count = 1, which is `repeat`.
    - truncate, pad: M is a part of the identity, hence M⁺ = Mᵀ.
    """
    adapter_matrix(size, target, method)  # its errors speak of the direction that was asked for
    opposite = METHODS[method][2]
    return adapter_matrix(target, size, opposite)


def mix(array: Any, matrix: np.ndarray, axis: int) -> Any:
    """Returns `array` with axis `axis`, read as a row of channels x, replaced by x · matrix.

    An adapter's columns are nearly empty: one source each, or one group. So the sources are picked and their weighted
    sum is taken. That costs one reading of the array, is exact where a matrix product may round (TF32, bfloat16), and
    plain copies work in any dtype.
    """
    functions, array = open_array(array)
    terms = max(1, int((matrix != 0).sum(axis=0).max()))
    sources = np.argsort(matrix == 0, axis=0, kind="stable")[:terms]  # (terms, target): the nonzero rows come first
    weights = np.take_along_axis(matrix, sources, axis=0)
    picked = functions.take(array, sources.ravel(), axis)
    if terms == 1 and np.all(weights == 1):
        return picked
    if holds_integers(array) and (terms > 1 or np.any(weights % 1)):
        raise ValueError(
            "Integers can be copied, cut or padded, but not averaged, summed or divided among copies. "
            f"Convert them to floating point first. Received: dtype={array.dtype}"
        )
    before, after = tuple(array.shape[:axis]), tuple(array.shape[axis + 1 :])
    if terms == 1:
        return picked * functions.constant(weights.reshape(-1, *(1 for _ in after)), array)
    picked = functions.reshape(picked, (*before, *weights.shape, *after))
    return functions.sum(picked * functions.constant(weights.reshape(*weights.shape, *(1 for _ in after)), array), axis)


def holds_integers(array: Any) -> bool:
    """Whether the array's dtype is one of integers; true alike for `int8`, `torch.int8` and `<dtype: 'uint8'>`."""
    return "int" in str(array.dtype)


def positive(value: Any, argument: str) -> int:
    """Returns `value` as an integer if it is a positive one; raises otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={value!r}")
    return int(value)
