"""The arguments of the solvers, checked alike wherever they are taken."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.layers.options import as_integer, is_real_number
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space, is_real
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
MAX_STEPS = 1000
METHODS = ("cgls", "lsmr")
GRADIENTS = ("implicit", "unrolled")


def check_operator(operator: Any, asked_for: str) -> None:
    """Raise a ValueError unless it is an operator."""
    if not isinstance(operator, Operator):
        hint = " Pass `keras_adjoint.operator(layer)`." if isinstance(operator, keras.layers.Layer) else ""
        raise ValueError(
            f"`{asked_for}` solves equations of an operator of this library.{hint} Received: {operator!r} of type "
            f"{type(operator).__name__}"
        )


def check_numbers(name: str, tensors: Any) -> None:
    """Raise a ValueError for tensors of a Functional model, which have no numbers yet."""
    if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(tensors)):
        raise ValueError(
            f"`lstsq` computes at once, so that `{name}` has numbers. In a Functional model call the layer "
            f"`keras_adjoint.LeastSquares(layer)`. Received: {name}={tensors!r}"
        )


def tolerance_for(value: Any, dtype: str) -> float:
    """A relative tolerance, by default that of the dtype which the backend has for this one."""
    if value is None:
        return TOLERANCES[current().held_dtype(dtype)]
    if not is_real_number(value) or not 0 < value < 1:
        raise ValueError(f"`tolerance` is a relative error between 0 and 1. Received: tolerance={value!r}")
    return float(value)


def steps_from(value: Any) -> int:
    """The most steps, by default a thousand."""
    steps = MAX_STEPS if value is None else as_integer(value)
    if steps is None or not 1 <= steps < 2**31:
        raise ValueError(f"`max_steps` is a positive integer of 32 bits. Received: max_steps={value!r}")
    return steps


def ridge_from(value: Any, dtype: str) -> Tensor | None:
    """The ridge as a scalar tensor; `None` for the number zero.

    Raises:
        ValueError: If it is negative, not finite, or no scalar. What a compiler traces is taken to be positive.
    """
    given = getattr(value, "dtype", None)
    is_tensor = given is not None and not tuple(value.shape) and is_real(given) and "bool" not in str(given)
    if not is_real_number(value) and not is_tensor:
        raise ValueError(f"`ridge` is one number that is not negative. Received: ridge={value!r}")
    number = _number_of(value)
    if number is not None:
        if not 0 <= number < float("inf"):
            raise ValueError(f"`ridge` is one number that is not negative. Received: ridge={number}")
        if number == 0:
            return None
    return ops.convert_to_tensor(value, dtype)


def _number_of(value: Any) -> float | None:
    """The number behind a value, if it is known: not what it becomes as a tensor, which compilers trace."""
    if is_real_number(value) or isinstance(value, np.ndarray):
        return float(value)
    tensor = value.value if isinstance(value, keras.Variable) else value
    return float(ops.convert_to_numpy(tensor)) if current().is_concrete([tensor]) else None


def weights_from(value: Any, operator: Operator) -> Tensor | None:
    """Weights of the outputs as rows, of one or of all samples.

    Raises:
        ValueError: If one is negative, or they fit neither A x nor a batch of it.
    """
    with _at_once(value):
        rows = None if value is None else _broadcast("weights", value, operator.out_space, operator.precision)
        if rows is not None and current().is_concrete([rows]):
            numbers = ops.convert_to_numpy(rows)
            if not np.all(np.isfinite(numbers) & (numbers >= 0)):
                raise ValueError(
                    f"`weights` are finite and not negative. Received: weights from {numbers.min()} to {numbers.max()}"
                )
    return rows


def limits_from(lower: Any, upper: Any, operator: Operator) -> tuple[Tensor | None, Tensor | None]:
    """The limits of x as rows, of one or of all samples.

    Raises:
        ValueError: If no x is between them, or they fit neither x nor a batch of it.
    """
    space, dtype = operator.in_space, operator.precision
    with _at_once(lower, upper):
        low, high = (
            None if value is None else _broadcast(name, value, space, dtype)
            for name, value in (("lower", lower), ("upper", upper))
        )
        given = [each for each in (low, high) if each is not None]
        if given and current().is_concrete(given):
            least = -np.inf if low is None else ops.convert_to_numpy(low)
            most = np.inf if high is None else ops.convert_to_numpy(high)
            if not np.all(least <= most) or np.any(least == np.inf) or np.any(most == -np.inf):
                raise ValueError(
                    "`lower` is nowhere above `upper`, and neither is NaN. Received: limits that no number is between"
                )
    return low, high


def _at_once(*values: Any) -> AbstractContextManager[Any]:
    """Within this, values without tensors are computed with at once, so that they are checked while a compiler traces."""
    has_tensors = any(ops.is_tensor(leaf) or isinstance(leaf, keras.Variable) for leaf in keras.tree.flatten(values))
    return nullcontext() if has_tensors else current().eagerly()


def _broadcast(name: str, value: Any, space: Space, dtype: str) -> Tensor:
    """One value for every number of a sample as rows, of one or of all samples."""
    if any(hasattr(leaf, "dtype") and not is_real(leaf.dtype) for leaf in keras.tree.flatten(value)):
        raise ValueError(f"`{name}` has real numbers. Received: {name}={value!r}")
    is_leaf = hasattr(value, "shape") or not isinstance(value, (list, tuple, dict))
    leaves = [value] if is_leaf else keras.tree.flatten(value)
    if is_leaf and not len(getattr(value, "shape", ())):
        leaves = leaves * len(space.shapes)
    try:
        tensors = [ops.convert_to_tensor(leaf, dtype) for leaf in leaves]
    except (TypeError, ValueError) as error:  # of texts and the like, by the backend
        raise ValueError(f"`{name}` has numbers. Received: {name}={value!r}") from error
    fits = len(tensors) == len(space.shapes) and all(
        len(tensor.shape) <= len(shape) + 1
        and all(size in (1, wanted) for size, wanted in zip(tensor.shape[::-1], shape[::-1], strict=False))
        for tensor, shape in zip(tensors, space.shapes, strict=False)
    )
    if not fits:
        raise ValueError(
            f"`{name}` has a number for each of those of {space}, of one sample or of a batch, or shapes that broadcast to "
            f"that. Received: {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}"
        )
    batches = [ops.shape(t)[0] for t, shape in zip(tensors, space.shapes, strict=True) if len(t.shape) > len(shape)]
    batch = next((size for size in batches if not (isinstance(size, int) and size == 1)), 1)
    return space.join([ops.broadcast_to(t, (batch, *s)) for t, s in zip(tensors, space.shapes, strict=True)])


def preconditioner_for(value: Any, operator: Operator, method: str, has_ridge: bool) -> Operator | None:
    """An operator on the x of another one, or `None`.

    Raises:
        ValueError: If it is none, or the method has no use for it, or it would change the solution.
    """
    if value is None:
        return None
    if not isinstance(value, Operator) or (value.in_shape, value.out_shape) != (operator.in_shape, operator.in_shape):
        raise ValueError(
            f"`preconditioner` is an operator from {operator.in_space} to the same. Received: preconditioner={value!r}"
        )
    if method != "cgls":
        raise ValueError(f'`preconditioner` goes with `method="cgls"`. Received: method={method!r}')
    if not has_ridge and operator.shape[0] < operator.shape[1]:
        raise ValueError(
            f"With a `preconditioner`, an operator that gives fewer numbers than it takes needs a `ridge`: several x are "
            f"equally good, and it would not be the smallest one that is found. Received: ridge=0, {operator!r}"
        )
    return value


def callback_from(value: Any) -> Any:
    """A function, or `None`."""
    if value is not None and not callable(value):
        raise ValueError(f"`callback` is a function of (number of the step, x). Received: callback={value!r}")
    return value
