"""Linear operators that NumPy and SciPy compute on the host: matrices, which can be saved, and programs, which cannot."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_adjoint.errors import KerasAdjointError, NoRuleError
from keras_adjoint.layers.copying import keep, kept
from keras_adjoint.operators.optional import imported
from keras_adjoint.ops.dot_test import derived_tolerance, residual_of

Array = NDArray[Any]
FILE = "matrix.npz"


class HostOperator:
    """A linear operator A of shape (outputs, inputs) on the host.

    It never changes, so copies of a layer share it.

    Attributes:
        shape: Its shape.
        forward: Rows of `inputs` numbers to rows of `outputs` numbers, A applied to each, as a function of NumPy arrays.
        transposed: The same for Aᵀ.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.forward, self.transposed = Product(self, transposed=False), Product(self, transposed=True)

    def times(self, columns: Array, transposed: bool) -> Array:
        """A or Aᵀ times a matrix."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The config outside of this process."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        name = keep(self)
        return self.config() if name is None else {"kept": name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "HostOperator":
        found: HostOperator = kept(config["kept"]) if "kept" in config else cls(**config)
        return found


class Product:
    """A or Aᵀ as a function of rows. Compilers know it by its identity."""

    def __init__(self, operator: HostOperator, *, transposed: bool) -> None:
        self.operator, self.is_transposed = operator, transposed
        self.outputs, self.inputs = operator.shape[::-1] if transposed else operator.shape

    def __call__(self, rows: Any) -> Array:
        rows = np.asarray(rows)
        if not len(rows):  # some operators of SciPy take no matrix without columns
            return np.zeros((0, self.outputs), rows.dtype)
        columns = rows.T.astype(np.result_type(rows.dtype, np.float32))
        found = np.asarray(self.operator.times(columns, self.is_transposed))
        if np.iscomplexobj(found):
            raise KerasAdjointError(
                f"An operator of real numbers is needed, and this one gave complex ones. Take the real and the imaginary part "
                f"as two operators. Received: a result of dtype {found.dtype}"
            )
        return np.ascontiguousarray(found.T, rows.dtype)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class HostMatrix(HostOperator):
    """A matrix of SciPy or NumPy. Its numbers are stored beside a model's config, and are missing until they are loaded."""

    def __init__(self, shape: tuple[int, int], matrix: Any = None) -> None:
        super().__init__((int(shape[0]), int(shape[1])))
        self.matrix = matrix

    def times(self, columns: Array, transposed: bool) -> Array:
        self.check_loaded()
        found: Array = (self.matrix.T if transposed else self.matrix) @ columns
        return found

    def check_loaded(self) -> None:
        """Raise an error if this was read from a config, and the numbers of the matrix were not."""
        if self.matrix is None:
            raise KerasAdjointError(
                f"The matrix of this layer was not loaded. It is in the `.keras` file of a whole model, and neither in the "
                f"model's config nor in HDF5 files. Load such a file, or make the layer by `from_scipy`. "
                f"Received: a matrix of shape {self.shape} without numbers"
            )

    def save(self, folder: str) -> None:
        """Write the matrix into a folder."""
        self.check_loaded()
        if isinstance(self.matrix, np.ndarray):
            np.savez_compressed(Path(folder) / FILE, dense=self.matrix)
        else:
            imported("scipy.sparse", "This").save_npz(Path(folder) / FILE, self.matrix)

    def load(self, folder: str) -> None:
        """Read the matrix from a folder."""
        with np.load(Path(folder) / FILE, allow_pickle=False) as stored:
            dense = stored.get("dense")
        matrix = imported("scipy.sparse", "This").load_npz(Path(folder) / FILE) if dense is None else dense
        if matrix.shape != self.shape:
            raise KerasAdjointError(
                f"The file has another matrix than the layer's config says. Received: shapes {matrix.shape} and {self.shape}"
            )
        self.matrix = matrix

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}


@keras.saving.register_keras_serializable(package="keras_adjoint")
class HostProgram(HostOperator):
    """A `LinearOperator`, of which nothing is known but what it computes."""

    def __init__(self, linear: Any) -> None:
        super().__init__((int(linear.shape[0]), int(linear.shape[1])))
        self.linear = linear

    def times(self, columns: Array, transposed: bool) -> Array:
        found: Array = self.linear.rmatmat(columns) if transposed else self.linear.matmat(columns)
        return found

    def check_adjoint(self, dtype: str) -> None:
        """Refuse an operator whose `rmatvec` is missing, or is not the adjoint of its `matvec`."""
        generator = np.random.default_rng(0)
        y, x = (generator.standard_normal((1, size)).astype(dtype) for size in self.shape)
        try:
            found = self.forward(x), self.transposed(y)
        except KerasAdjointError:
            raise
        except Exception as error:  # whatever others raise
            raise NoRuleError(
                f"`from_scipy` needs an operator with its adjoint, which SciPy calls `rmatvec`, and one of the two failed. "
                f"Received: {self.linear!r}, {type(error).__name__}: {error}"
            ) from error
        forward_x, backward_y = (each.astype("float64") for each in found)
        residual = residual_of(forward_x, y.astype("float64"), x.astype("float64"), backward_y)
        tolerance = derived_tolerance(dtype, self.shape[1], self.shape[0])
        if not residual <= tolerance:
            raise NoRuleError(
                f"The `rmatvec` of this operator is not the adjoint of its `matvec`: the residual of ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ is "
                f"{residual:.1e}, and rounding explains no more than {tolerance:.1e}. Received: {self.linear!r}"
            )

    def config(self) -> dict[str, Any]:
        raise KerasAdjointError(
            f"A layer made of a SciPy `LinearOperator` is a program without numbers, so it cannot be saved. Make the layer "
            f"of a matrix, or save the model's weights alone (`save_weights`) and make the layer again in code. "
            f"Received: {self.linear!r}"
        )


def host_operator(operator: Any, dtype: str) -> HostOperator:
    """A matrix or `LinearOperator` of SciPy, or a matrix of NumPy, as a `HostOperator`.

    Raises:
        NoRuleError: If it has no adjoint, or a wrong one.
        ValueError: If it is something else, or has complex numbers.
    """
    sparse, linalg = (imported(f"scipy.sparse{part}", "`from_scipy`") for part in ("", ".linalg"))
    if isinstance(operator, np.ma.MaskedArray):
        raise ValueError(
            f"What a matrix has in the place of masked numbers is not known. Fill them first: `matrix.filled(0)`. "
            f"Received: {_described(operator)}"
        )
    is_matrix = sparse.issparse(operator) or isinstance(operator, np.ndarray)
    if len(getattr(operator, "shape", ())) != 2 or not (is_matrix or hasattr(operator, "matvec")):
        raise ValueError(
            f"`from_scipy` takes a sparse matrix or a `LinearOperator` of SciPy, or a matrix of NumPy. Of an operator of this "
            f"package, `A.layer()` is the layer. Received: {_described(operator)}"
        )
    if _computes_by_keras(operator):
        raise ValueError(
            f"This operator computes by Keras, and a compiled function that waits for the host may never get its result. "
            f"The operator that it was made of is a layer already: `A.layer()`. Received: {operator!r}"
        )
    number_type = getattr(operator, "dtype", None)
    if number_type is not None and np.dtype(number_type).kind not in "fiub":
        raise ValueError(f"`from_scipy` takes operators of real numbers. Received: {_described(operator)}")
    if is_matrix:
        matrix = np.array(operator) if isinstance(operator, np.ndarray) else sparse.csr_array(operator, copy=True)
        return HostMatrix(operator.shape, matrix)
    found = HostProgram(linalg.aslinearoperator(operator))
    is_double = dtype == "float64" and number_type in (None, np.float64)
    found.check_adjoint("float64" if is_double else "float32")
    return found


def _computes_by_keras(operator: Any) -> bool:
    """Whether an operator of SciPy or PyLops is one of this package, or is made of one."""
    parts = (getattr(operator, "Op", None), *getattr(operator, "args", ()))  # what PyLops wraps, and SciPy combines
    return hasattr(operator, "keras_operator") or any(
        _computes_by_keras(part) for part in parts if hasattr(part, "matvec")
    )


def _described(operator: Any) -> str:
    parts = [f"{name}={getattr(operator, name)}" for name in ("shape", "dtype") if hasattr(operator, name)]
    return " ".join([f"an operator of type {type(operator).__name__}", *parts])
