"""`Regularized`: a layer whose loss has the norm of its linear part, and how far that is from having orthonormal rows."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.keras_internals import called_aside
from keras_adjoint.layers.options import as_integer, is_real_number
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.layers.wrappers import adjoint_inside
from keras_adjoint.operators.eigenvalues import scaled
from keras_adjoint.operators.measured import Measured
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.exporting import is_exporting
from keras_adjoint.ops.geometry import is_known

if TYPE_CHECKING:
    from keras_adjoint.operators.operator import Operator

EXACT_SIDE = 256  # of the smaller side of a matrix that is made in every call
EXACT_NUMBERS = 2**21


class _Calls(threading.local):
    """The `Regularized` layers that are being called in this thread."""

    layers: tuple[keras.layers.Layer, ...] = ()


_GOING_ON = _Calls()


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Regularized(Measured):
    """A linear layer, with its activation, that adds to the loss what its linear part A is to be kept small in.

    Every call gives what the layer inside gives, and adds `spectral`·‖A‖ + `orthogonality`·‖A Aᵀ − I‖²_F / m, where m is the
    number of rows of A; if A has more rows than columns, AᵀA and the columns take their place, since A Aᵀ cannot be I then.
    A is taken at the size of the call, without the bias and the activation.

    Where A is small, both are those of its matrix. Elsewhere ‖A‖ is the bound `A.bound()`, which is never below it, and for
    the other term random signs z are drawn in every call: the mean of ‖(A Aᵀ − I) z‖² over them has the right expectation, and
    its derivative the right one, since E z zᵀ = I. `how` and `repr` say which.

    Args:
        layer: A linear layer, possibly with a bias and an activation.
        spectral: The weight of the norm.
        orthogonality: The weight of the distance from orthonormal rows, or columns.
        probes: How many random vectors are drawn in a call.
        seed: Their seed.

    Call arguments:
        x: What the layer takes.

    Input shape: That of the layer.
    Output shape: That of the layer.

    Raises:
        NoRuleError: If the layer is not linear up to its activation, or it is large and no bound of its norm is known.
        SizeError: If it is called with tensors of unknown size.
        ValueError: If an argument makes no sense.

    Example:

    >>> layer = ka.Regularized(keras.layers.Dense(2, kernel_initializer="ones"), spectral=0.1, orthogonality=0.01)
    >>> y = layer(np.ones((1, 8)))
    >>> round(float(layer.losses[0]), 4), layer.how
    (1.53, {'spectral': 'exact', 'orthogonality': 'exact'})
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        spectral: float = 0.0,
        orthogonality: float = 0.0,
        *,
        probes: int = 8,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, weight in (("spectral", spectral), ("orthogonality", orthogonality)):
            if not is_real_number(weight) or not 0 <= weight < float("inf"):
                raise ValueError(f"`{name}` is the weight of a loss, not negative. Received: {name}={weight!r}")
        count = as_integer(probes)
        if count is None or count < 1:
            raise ValueError(f"`probes` is a positive integer. Received: probes={probes!r}")
        if seed is not None and as_integer(seed) is None:
            raise ValueError(f"`seed` is an integer, or `None`. Received: seed={seed!r}")
        super().__init__(layer, **kwargs)
        self.spectral, self.orthogonality = float(spectral), float(orthogonality)
        self.probes, self.seed = count, seed
        if self.orthogonality:
            self.seed_generator = keras.random.SeedGenerator(seed)

    # --- the call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._going_on():
            return super().__call__(*args, **kwargs)

    def stateless_call(self, *args: Any, **kwargs: Any) -> Any:
        with self._going_on():  # Keras goes past `__call__`
            return super().stateless_call(*args, **kwargs)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        before = _GOING_ON.layers
        _GOING_ON.layers = (*before, self)
        try:
            yield
        finally:
            _GOING_ON.layers = before

    def call(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        is_itself = self.layer is self.measured  # and no object stands in for it
        if (self.spectral or self.orthogonality) and is_itself and not is_exporting():
            if not any(layer is self for layer in _GOING_ON.layers):
                raise NoRuleError(
                    f"`{self.name}` is called by another layer at every step, where it would add to the loss at each. Put it "
                    f"around that layer: `Regularized(TimeDistributed(layer))`. Received: {describe(self)}"
                )
            self.add_loss(self.penalty(tuple(x.shape)))
        return y

    def penalty(self, shape: Shape) -> Tensor:
        """What a call adds to the loss for inputs of a shape, batch axis included: a scalar tensor in float32 or float64."""
        operator = self.operator_for(shape)
        total = ops.zeros((), operator.precision)
        with called_aside(self.measured):
            if is_small(operator):
                rows = rows_of(operator)
                total += self.spectral * norm_by(rows) if self.spectral else 0.0
                total += self.orthogonality * distance_from_identity(gram_of(rows)) if self.orthogonality else 0.0
                return total
            if self.spectral:
                total += self.spectral * operator.bound()
            if self.orthogonality:
                total += self.orthogonality * self._probed(operator)
        return total

    def _probed(self, operator: "Operator") -> Tensor:
        """‖A Aᵀ − I‖²_F / m or ‖AᵀA − I‖²_F / n by random signs, without bias."""
        first, second = (operator.T, operator) if wide(operator) else (operator, operator.T)
        shape = (self.probes, first.in_space.size)
        signs = 2 * keras.random.randint(shape, 0, 2, seed=self.seed_generator) - 1
        z = ops.cast(signs, operator.precision)
        difference = second.apply_to_rows(first.apply_to_rows(z)) - z
        return ops.sum(ops.square(difference)) / math.prod(shape)

    def operator_for(self, shape: Shape) -> "Operator":
        """The operator that a call with tensors of a shape, batch axis included, is penalised for."""
        recorded = [known for known in recorded_shapes(self) if len(known) == len(shape)]
        own = next((known for known in recorded if None not in known[1:]), shape)
        # Tracers may give a size as something else than an integer, also where it is fixed.
        taken = [size if is_known(size) else known for size, known in zip(shape[1:], own[1:], strict=True)]
        if not all(map(is_known, taken)):
            raise SizeError(
                f"The norm of `{self.layer.name}` depends on the size of what it takes, and that is not known here. Build the "
                f"model for a fixed input size. Received: a tensor of shape {shape}, {describe(self.layer)}"
            )
        found: Any = self.operator_at((None, *taken)).widened()
        return found

    # --- which

    @property
    def how(self) -> dict[str, str]:
        """How the terms of the loss are computed at the size that the layer was built or called with.

        "exact", from the matrix; "bound", from above; or "probes", at random without bias. Empty if no size is known.
        """
        known = next((shape for shape in recorded_shapes(self) if None not in shape[1:]), None)
        if known is None:
            return {}
        small = is_small(self.operator_at(known))
        ways = {"spectral": "exact" if small else "bound", "orthogonality": "exact" if small else "probes"}
        return {term: way for term, way in ways.items() if getattr(self, term)}

    def __repr__(self) -> str:
        how = self.how
        terms = [
            f"{term}={getattr(self, term):g}{f' ({how[term]})' if term in how else ''}"
            for term in ("spectral", "orthogonality")
            if getattr(self, term)
        ]
        return f"<{type(self).__name__} {', '.join([f'name={self.name}', f'layer={self.layer.name}', *terms])}>"

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("spectral", "orthogonality", "probes", "seed")}
        return {**super().get_config(), **own}


def wide(operator: "Operator") -> bool:
    """Whether A Aᵀ can be the identity, rather than AᵀA."""
    return operator.shape[0] <= operator.shape[1]


def is_small(operator: "Operator") -> bool:
    """Whether the matrix of an operator is made in every call."""
    return min(operator.shape) <= EXACT_SIDE and math.prod(operator.shape) <= EXACT_NUMBERS


def rows_of(operator: "Operator") -> Tensor:
    """A or Aᵀ, whichever has no more rows than columns, as a matrix."""
    narrow = operator.T if wide(operator) else operator
    return narrow.apply_to_rows(ops.eye(narrow.in_space.size, dtype=operator.precision))


def gram_of(rows: Tensor) -> Tensor:
    """G = R Rᵀ for the rows R, which is A Aᵀ or AᵀA."""
    return ops.matmul(rows, ops.transpose(rows))


def norm_by(rows: Tensor) -> Tensor:
    """‖A‖ = √(vᵀ G v) for the top eigenvector v of G, differentiable by the rows: its derivative is that at a fixed v."""
    rows, scale = scaled(rows)  # whose squares neither overflow nor vanish
    gram = gram_of(rows)
    # LAPACK may refuse what is not finite, where the norm of weights that diverged is NaN as their loss is.
    finite = ops.where(ops.isfinite(gram), gram, ops.zeros_like(gram))
    _, vectors = ops.eigh(ops.stop_gradient(finite))
    top = ops.stop_gradient(vectors[:, -1:])
    return scale * ops.sqrt(ops.sum(top * ops.matmul(gram, top)))


def distance_from_identity(gram: Tensor) -> Tensor:
    """‖G − I‖²_F over the number of rows."""
    size = gram.shape[0]
    return ops.sum(ops.square(gram - ops.eye(size, dtype=gram.dtype))) / size


@rule(Regularized)
def regularized(
    source: Regularized, *, tied: bool = True, name: str | None = None, **options: Any
) -> keras.layers.Layer:
    """The adjoint of the layer inside, which computes the same."""
    return adjoint_inside(source, tied, name=name, **options)
