"""`OperatorLayer`: an operator as a layer, tied to the layer whose kernel it has: what the steps of an unrolled network call.

A is the linear part of the source. It is computed in float32, or float64, also where the source computes in half precision.
"""

import warnings
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops, tree

from keras_adjoint.errors import one_of
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.shapes import from_json, symbolic
from keras_adjoint.solvers.step_layers import SMALLEST

# What a call may compute.
PARTS = ("forward", "adjoint", "residual", "gradient", "bound")


@keras.saving.register_keras_serializable(package="keras_adjoint")
class OperatorLayer(Tied):
    """All that a network computes with an operator: A x, Aᵀ y, A x − y, Aᵀ (A x − y), and L = `A.bound()`.

    They are calls of one layer, so that there is one kernel, also in a copy that was made layer by layer: steps of length 1/L²
    converge with the L of that kernel alone. L is never below the norm of A with the kernel that it has now. Its derivative by
    the kernel is a part of the derivative of what the steps give, which would be wrong without it.

    Args:
        source: A built linear layer or model, possibly with a bias, which is left out.
        size: The size that the source takes, without the batch axis, if it takes several.
        linear_part: Whether to leave out an activation as well.
        tied: See `Tied`.

    Call arguments:
        x: A batch of what the source takes; for "adjoint" of what it gives. For "bound" it is not looked at.
        y: A batch of what the source gives, for "residual" and "gradient".
        part: One of "forward", "adjoint", "residual", "gradient", "bound".
    """

    suffix = "operator"

    def __init__(
        self, source: keras.layers.Layer, *, size: Any = None, linear_part: bool = False, **kwargs: Any
    ) -> None:
        found = operator(source, size=size, linear_part=linear_part)
        super().__init__(source, **{"dtype": found.precision, **kwargs})
        self.__dict__["A"] = found.widened()  # past Keras' tracking: its layers are no parts of this one
        looks_up = isinstance(
            source, keras.layers.Embedding
        )  # whose operator takes one-hot vectors in place of indices
        self.size = found.in_shape if size is None and not looks_up else size
        self.linear_part = linear_part
        self.built = True

    A: Operator

    @property
    def exact(self) -> bool:
        return False

    def part(self, part: str, x: Any, y: Any = None) -> Any:
        """What a call gives for a part, in its structure."""
        found = tree.flatten(self(x, y, part=part))
        if part == "bound":
            return found[0]
        space = self.spaces(part)[1]
        return space.pack(found[: len(space.shapes)])

    def call(self, x: Any, y: Any = None, part: str = "forward") -> Any:  # type: ignore[override]  # of several
        computed: dict[str, Callable[[], Any]] = {
            "forward": lambda: apply(self.A, x, self.name),
            "adjoint": lambda: apply(self.A.T, x, self.name),
            "residual": lambda: self._residual(x, y),
            "gradient": lambda: apply(self.A.T, self._residual(x, y), self.name),
            "bound": self._bound,
        }
        return self._as_many(tree.flatten(computed[one_of("part", part, PARTS)]()))

    def _as_many(self, tensors: list[Any]) -> Any:
        """Some tensors and the first one again: Keras takes each call of a layer to give as many as the first call."""
        most = max(len(space.shapes) for space in (self.A.in_space, self.A.out_space))
        return tensors[0] if most == 1 else [*tensors, *tensors[:1] * (most - len(tensors))]

    def _residual(self, x: Any, y: Any) -> Any:
        space = self.A.out_space
        given = space.leaves(apply(self.A, x, self.name), self.compute_dtype, self.name)
        left = [a - b for a, b in zip(given, space.leaves(y, self.compute_dtype, self.name), strict=True)]
        return space.pack(left)

    def _bound(self) -> Tensor:
        bound = self.A.bound()
        if current().is_concrete([bound]):
            self._warn(float(ops.convert_to_numpy(ops.stop_gradient(bound))))
        return ops.reshape(bound, (1,))

    def _warn(self, bound: float) -> None:
        """Warn of a kernel for which the length of a step is no number."""
        smallest = SMALLEST[current().held_dtype(self.A.precision)]
        if bound != 0 and not smallest <= bound <= 1 / smallest:
            warnings.warn(
                f"`{self.name}`: steps of length 1/L² need an L between {smallest:g} and {1 / smallest:g}, or none but zero. "
                f"Divide the kernel of `{self.source.name}` by a number. Received: L={bound:g}",
                stacklevel=3,
            )

    def spaces(self, part: str) -> tuple[Space, Space]:
        """Those of the first tensor that a part is called with, and of what it gives."""
        taken, given = self.A.in_space, self.A.out_space
        return {"adjoint": (given, taken), "gradient": (taken, taken)}.get(part, (taken, given))

    def compute_output_spec(self, y: Any, *others: Any, part: str = "forward", **kwargs: Any) -> Any:
        if one_of("part", part, PARTS) == "bound":
            return self._as_many([keras.KerasTensor((1,), dtype=self.compute_dtype)])
        taken, given = self.spaces(part)
        return self._as_many(tree.flatten(symbolic(given, y, self.compute_dtype, taken, self.name)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "linear_part": self.linear_part}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config({**config, "size": None if config["size"] is None else from_json(config["size"])})


def apply(A: Any, x: Any, name: str) -> Any:
    """A x in A's precision."""
    leaves = A.in_space.leaves(x, A.dtype, name)
    found = A.apply([ops.cast(leaf, A.dtype) for leaf in leaves])
    return A.out_space.pack([ops.cast(leaf, A.precision) for leaf in found])
