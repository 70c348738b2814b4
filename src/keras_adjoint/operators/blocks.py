"""Block operators: `vstack`, `hstack` and `block`, between structures of tensors."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.operators.operator import ABOVE, Operator, all_in_precision, check_dtypes
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import untraced

Row = tuple[Operator | None, ...]


class Block(Operator):
    """Rows of operators: y_i = Σ_j A_ij x_j. `None` stands for zero, and the transposed blocks are the adjoint."""

    def __init__(self, rows: Sequence[Row], in_spaces: Sequence[Space], out_spaces: Sequence[Space]) -> None:
        dtype = next(each.dtype for row in rows for each in row if each is not None)
        super().__init__(side_by_side(in_spaces), side_by_side(out_spaces), dtype)
        self.rows, self.in_spaces, self.out_spaces = tuple(rows), tuple(in_spaces), tuple(out_spaces)

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        given, start = [], 0
        for space in self.in_spaces:
            given.append(leaves[start : start + len(space.shapes)])
            start += len(space.shapes)
        found: list[Tensor] = []
        for row in self.rows:
            terms = [each.apply(x) for each, x in zip(row, given, strict=True) if each is not None]
            found += [reduce(ops.add, parts) for parts in zip(*terms, strict=True)]
        return found

    def transposed(self) -> Operator:
        columns = [tuple(each and each.T for each in column) for column in zip(*self.rows, strict=True)]
        return Block(columns, self.out_spaces, self.in_spaces)

    def in_precision(self) -> Operator | None:
        if all_in_precision(each for row in self.rows for each in row if each is not None) is None:
            return None
        wide: list[Any] = [tuple(each and each.widened() for each in row) for row in self.rows]
        return Block(wide, self.in_spaces, self.out_spaces)

    def bounded(self) -> Tensor | float:
        """The norm of the matrix of norms, which √(‖·‖₁‖·‖∞) and ‖·‖_F bound."""
        bounds = [[0.0 if each is None else each.bounded() for each in row] for row in self.rows]
        rows = reduce(ops.maximum, [sum(row) for row in bounds])
        columns = reduce(ops.maximum, [sum(column) for column in zip(*bounds, strict=True)])
        squares = sum(one * one for row in bounds for one in row)
        return ops.sqrt(ops.minimum(rows * columns, squares)) * ABOVE

    def parts(self) -> Sequence[Operator]:
        return [each for row in self.rows for each in row if each is not None]

    def describe(self) -> str:
        rows = [", ".join("0" if each is None else each.describe() for each in row) for row in self.rows]
        return f"[{'; '.join(rows)}]"


@untraced
def block(rows: Sequence[Sequence[Operator | None]]) -> Operator:
    """An operator of rows and columns of operators: y_i = Σ_j A_ij x_j.

    Args:
        rows: Lists of operators, of one length. The operators of a column take the same tensors, and those of a row give the
            same; `None` is zero. With one column the result takes what its operators take, and else a list with an entry
            for every column; likewise for what it gives.

    Returns:
        An `Operator`.

    Raises:
        SizeError: If the shapes do not fit, or a row or column has nothing but zeros.
        ValueError: If the rows are not of one length, or the operators of different dtypes.

    Example:

    >>> one = ka.identity((2,))
    >>> ka.block([[one, None], [one, 2 * one]]).to_matrix().astype(int).tolist()
    [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 1, 0, 2]]
    """
    is_table = isinstance(rows, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in rows)
    given = [tuple(row) for row in rows] if is_table else []
    entries = [each for row in given for each in row]
    if not entries or any(len(row) != len(given[0]) for row in given):
        raise ValueError(
            f"Blocks are given as a list, and for `block` as lists of one length, of operators. Received: {rows!r}"
        )
    if not all(each is None or isinstance(each, Operator) for each in entries):
        raise ValueError(f"`block` takes rows of operators and of `None`. Received: {rows!r}")
    check_dtypes(*(each for each in entries if each is not None))
    outs = [
        _common([None if each is None else each.out_space for each in row], f"row {i}") for i, row in enumerate(given)
    ]
    columns = enumerate(zip(*given, strict=True))
    ins = [
        _common([None if each is None else each.in_space for each in column], f"column {j}") for j, column in columns
    ]
    return Block(given, ins, outs)


@untraced
def vstack(operators: Sequence[Operator]) -> Operator:
    """x ↦ [A x, B x, …], for operators that take the same tensors.

    Args:
        operators: The operators, from top to bottom.

    Returns:
        An `Operator` that gives a list.

    Raises:
        SizeError: If they take different shapes.

    Example:

    >>> one = ka.identity((2,))
    >>> ka.vstack([one, 3 * one]).shape
    (4, 2)
    """
    return block([[operator] for operator in _listed(operators)])


@untraced
def hstack(operators: Sequence[Operator]) -> Operator:
    """[x, z, …] ↦ A x + B z + …, for operators that give the same tensors.

    Args:
        operators: The operators, from left to right.

    Returns:
        An `Operator` that takes a list.

    Raises:
        SizeError: If they give different shapes.

    Example:

    >>> one = ka.identity((2,))
    >>> ka.hstack([one, 3 * one]).shape
    (2, 4)
    """
    return block([_listed(operators)])


def _listed(operators: Any) -> list[Operator | None]:
    if not isinstance(operators, (list, tuple)) or not operators:
        raise ValueError(f"Operators are put together from a list of some. Received: {operators!r}")
    return list(operators)


def _common(spaces: Sequence[Space | None], place: str) -> Space:
    known = [space for space in spaces if space is not None]
    if not known:
        raise SizeError(
            f"Nothing but zeros stand in {place}, so its shape is not known. Write `0 * keras_adjoint.identity(shape)`, or "
            f"leave it out. Received: {list(spaces)}"
        )
    if any(space.shapes != known[0].shapes for space in known):
        raise SizeError(
            f"The operators of a row give the same shapes, and those of a column take the same. Received in {place}: "
            f"{', '.join(map(str, known))}"
        )
    return known[0]


def side_by_side(spaces: Sequence[Space]) -> Space:
    """The one space, or a list of several."""
    if len(spaces) == 1:
        return spaces[0]
    return Space(tuple(shape for space in spaces for shape in space.shapes), [space.structure for space in spaces])
