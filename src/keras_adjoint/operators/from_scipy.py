"""`from_scipy`: a linear operator of SciPy as a Keras layer, computed on the host and differentiated by its adjoint."""

from typing import Any, Self

import keras
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.host_operator import HostMatrix, HostOperator, host_operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.precision import check_policy


def from_scipy(
    operator: Any, in_shape: Any = None, out_shape: Any = None, *, dtype: Any = None, name: str | None = None
) -> keras.layers.Layer:
    """A linear operator of SciPy as a layer, whose gradient by its input is the operator's adjoint.

    It is computed by SciPy on the host, also within compiled functions, with two exceptions: TensorFlow's XLA cannot call the
    host, and on JAX an operator that itself computes by JAX may wait for itself. `keras_adjoint.adjoint` of the layer is the
    operator's adjoint, and `keras_adjoint.operator` has its norm.

    Args:
        operator: A sparse matrix or a `LinearOperator` of SciPy, PyLops' included, or a matrix of NumPy, of shape
            (numbers that it gives, numbers that it takes).
        in_shape: The shape of what the layer takes, without the batch axis, or one size. By default one axis, of as many
            numbers as the operator has columns.
        out_shape: The shape of what it gives, likewise. By default as many numbers as the operator has rows.
        dtype: A dtype policy. By default Keras' own.
        name: Name of the layer.

    Returns:
        A layer without weights. One of a matrix can be saved, and its copy of the matrix is stored in the `.keras` file. One
        of a `LinearOperator` cannot, and saving it raises a `KerasAdjointError`.

    Raises:
        KerasAdjointError: If SciPy is not installed.
        NoRuleError: If a `LinearOperator` has no `rmatvec`, or one that is not its adjoint, which is tested on random numbers.
        SizeError: If the shapes do not have as many numbers as the operator's sides.
        ValueError: If the operator is none, or has complex numbers.

    Example:

    >>> differences = np.eye(3, 4, 1) - np.eye(3, 4)
    >>> layer = ka.from_scipy(differences, in_shape=(2, 2))
    >>> x = np.array([[[1.0, 2.0], [4.0, 8.0]]])
    >>> keras.ops.convert_to_numpy(layer(x)).tolist()
    [[1.0, 2.0, 4.0]]
    >>> keras.ops.convert_to_numpy(ka.adjoint(layer)(np.array([[1.0, 0.0, 0.0]]))).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]
    """
    check_policy(dtype)
    policy = keras.dtype_policies.get(dtype)
    found = host_operator(operator, policy.compute_dtype)
    asked = zip((out_shape, in_shape), found.shape, strict=True)
    spaces = tuple(Space.of(side if shape is None else shape) for shape, side in asked)
    if any(len(space.shapes) != 1 for space in spaces) or tuple(space.size for space in spaces) != found.shape:
        raise SizeError(
            f"An operator of shape (outputs, inputs) takes tensors with as many numbers as it has inputs, and gives tensors "
            f"with as many as it has outputs. Received: shape {found.shape}, in_shape={in_shape!r}, out_shape={out_shape!r}"
        )
    (given,), (taken,) = (space.shapes for space in spaces)
    return FromSciPy(found, taken, given, dtype=policy, name=name)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class FromSciPy(keras.layers.Layer):
    """A linear operator on the host as a layer. See `from_scipy`, which makes it.

    Args:
        operator: A `HostOperator`.
        in_shape: The shape of what the layer takes, without the batch axis.
        out_shape: The shape of what it gives.

    Input shape: `(batch, *in_shape)`.
    Output shape: `(batch, *out_shape)`.
    """

    def __init__(self, operator: HostOperator, in_shape: Shape, out_shape: Shape, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operator = operator
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.input_spec = keras.layers.InputSpec(shape=(None, *self.in_shape))
        self.supports_jit = current().JIT_CALLS_HOST
        self.build((None, *self.in_shape))

    def call(self, x: Tensor) -> Tensor:
        return self.apply(x, transposed=False)

    def apply(self, x: Tensor, *, transposed: bool) -> Tensor:
        """A x or Aᵀ x, for a batch."""
        if isinstance(self.operator, HostMatrix):
            self.operator.check_loaded()
        product = self.operator.transposed if transposed else self.operator.forward
        back = self.operator.forward if transposed else self.operator.transposed
        rows = ops.reshape(x, (-1, product.inputs))
        found = current().linear_on_host(product, back, rows)
        return ops.reshape(found, (-1, *(self.in_shape if transposed else self.out_shape)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self.out_shape)

    def save_assets(self, dir_path: str) -> None:
        if isinstance(self.operator, HostMatrix):
            self.operator.save(dir_path)

    def load_assets(self, dir_path: str) -> None:
        if isinstance(self.operator, HostMatrix):
            self.operator.load(dir_path)

    def get_config(self) -> dict[str, Any]:
        own = {"operator": self.operator, "in_shape": self.in_shape, "out_shape": self.out_shape}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        operator = config["operator"]
        if isinstance(operator, dict):
            operator = keras.saving.deserialize_keras_object(operator)
        return super().from_config({**config, "operator": operator})


@rule(FromSciPy)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointFromSciPy(Tied):
    """The adjoint of a linear operator on the host.

    Args:
        source: A `FromSciPy` layer.
        tied: See `Tied`.

    Input shape: `(batch, *source.out_shape)`.
    Output shape: `(batch, *source.in_shape)`.
    """

    def __init__(self, source: FromSciPy, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.supports_jit = source.supports_jit

    @property
    def expected(self) -> Expected:
        return Expected.shape((None, *self.source.out_shape))

    def apply_adjoint(self, y: Tensor) -> Tensor:
        found: Tensor = self.source.apply(y, transposed=True)
        return found

    def apply_forward(self, x: Tensor) -> Tensor:
        return self.source(x)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self.source.in_shape)
