"""`SparseCoding`: the sparse codes of signals under a dictionary that is a layer, or the adjoint of one, as a layer."""

import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import one_of
from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.options import boolean, is_real_number
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers import arguments
from keras_adjoint.solvers.atoms import check_atoms, kernel_index, unit_kernel
from keras_adjoint.solvers.dictionary_learning import DictionaryLearning, check_signals
from keras_adjoint.solvers.samples import finite_rows, named
from keras_adjoint.solvers.shapes import from_json, symbolic, with_batch
from keras_adjoint.solvers.solve import packed, rows_of
from keras_adjoint.solvers.sparse_codes import Lasso
from keras_adjoint.solvers.system import Problem

DICTIONARIES = ("adjoint", "layer")
RELATIVE_WEIGHT = 0.1


class SparseCodes(NamedTuple):
    """What `SparseCoding.solution` gives, with a value for each sample of the batch.

    Attributes:
        codes: z, in the structure of what the dictionary takes.
        steps: How many steps each sample took, integers of shape `(batch,)`.
        objective: ½‖y − D z‖² + weight·‖z‖₁, of shape `(batch,)`.
        converged: Whether a step changes z by less than the tolerance, booleans of shape `(batch,)`.
        weight: The weight of each sample, of shape `(batch,)`.
    """

    codes: Any
    steps: Tensor
    objective: Tensor
    converged: Tensor
    weight: Tensor


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SparseCoding(Tied):
    """The layer y ↦ z that minimises ½‖y − D z‖² + weight·‖z‖₁, for a dictionary D made of another layer.

    With A for the linear part of the layer, D is Aᵀ for `dictionary="adjoint"`: the codes are where the layer's outputs are,
    and the signals where its inputs are. For `dictionary="layer"` D is A, and they are the other way round. D is read from the
    layer's own kernel at every call. Every sample is solved by itself with FISTA, whose step is 1/‖D‖² by a bound of the
    current kernel, until a step changes z by at most tolerance·‖Dᵀ y‖/‖D‖². The gradient is that of the solution, by y and by
    the kernel, by solving once more for the columns in use. Layers in half precision are computed with in float32.

    Args:
        source: A built linear layer or model, possibly with a bias, which is left out.
        dictionary: "adjoint" or "layer".
        weight: The weight, a positive number.
        relative_weight: In its place a part of `lambda_max(y)` of each sample, between 0 and 1. By default 0.1.
        unit_atoms: Whether D is computed with atoms of unit norm: in every call the kernel is divided so that the longest atom
            of every channel of the codes has norm 1. Those that a padded edge cuts are shorter, as are, where a layer with a
            stride is the dictionary, those that meet fewer of its taps.
        nonnegative: Whether codes are not negative.
        size: The size that the source takes, without the batch axis, if it takes several.
        linear_part: Whether to leave out activations as well.
        tolerance: By default 1e-5, in float64 1e-10.
        max_steps: By default 1000.
        tied: See `Tied`.

    Call arguments:
        y: A batch of signals.

    Input shape: That of what D gives.
    Output shape: That of what D takes.

    Raises:
        NoRuleError: If the source is not linear, or has no kernel of which the atoms can be made of unit norm.
        SizeError: If its size is not known.
        ValueError: If an option has a value that it does not take.

    Example:

    >>> conv = keras.layers.Conv2D(8, 4, strides=2)
    >>> conv.build((None, 16, 16, 1))
    >>> coding = ka.SparseCoding(conv, dictionary="adjoint", size=(16, 16, 1), unit_atoms=True)
    >>> pictures = np.random.default_rng(0).random((2, 16, 16, 1), "float32")
    >>> codes = coding(pictures)
    >>> tuple(codes.shape), tuple(coding.reconstruct(codes).shape)
    ((2, 7, 7, 8), (2, 16, 16, 1))
    >>> history = coding.fit(pictures, epochs=2, verbose=0)  # learns the kernel of conv
    """

    suffix = "sparse_coding"

    def __init__(
        self,
        source: keras.layers.Layer,
        *,
        dictionary: str = "adjoint",
        weight: float | None = None,
        relative_weight: float | None = None,
        unit_atoms: bool = False,
        nonnegative: bool = False,
        size: Any = None,
        linear_part: bool = False,
        tolerance: float | None = None,
        max_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(source, keras.layers.Layer):
            raise ValueError(f"`SparseCoding` has a layer or model for a dictionary. Received: {source!r}")
        A = operator(source, size=size, linear_part=linear_part)
        super().__init__(source, **{"dtype": A.precision, **kwargs})
        self.dictionary = one_of("dictionary", dictionary, DICTIONARIES)
        # Past Keras' tracking: its layers are no parts of this one.
        self.__dict__["D"] = (A.T if dictionary == "adjoint" else A).widened()
        self.weight, self.relative_weight = _weights(weight, relative_weight)
        self.unit_atoms = boolean("unit_atoms", unit_atoms)
        self.nonnegative, self.linear_part = boolean("nonnegative", nonnegative), linear_part
        self.tolerance = arguments.tolerance_for(tolerance, A.precision)
        self.max_steps = arguments.steps_from(max_steps)
        if unit_atoms:
            check_atoms(source)
        self.__dict__["lasso"] = Lasso(Problem(self.D), self.nonnegative, self.tolerance, self.max_steps)
        given = [(None, *shape) for shape in self.D.out_space.shapes]
        self.build(given[0] if len(given) == 1 else given)

    # --- the codes

    D: Operator
    lasso: Lasso

    @property
    def exact(self) -> bool:
        return False

    def call(self, y: Any) -> Any:
        return self.solution(y).codes

    def solution(self, y: Any) -> SparseCodes:
        """The `SparseCodes`, with the steps, the objective, the status and the weight of each sample.

        Args:
            y: A batch of signals.

        Returns:
            `SparseCodes`. Where Keras computes at once and a sample does not converge, a warning names it.

        Raises:
            SizeError: If `y` is no batch of signals.
        """
        _check_numbers("y", y)
        return _reported(self.without_warning(y), self)

    def without_warning(self, y: Any) -> SparseCodes:
        """`solution`, of which nothing is said where samples do not converge."""
        return SparseCodes(*_found(self, y))

    def lambda_max(self, y: Any) -> Tensor:
        """The largest number of |Dᵀ y| of each sample: all its codes are zero from this weight on.

        Args:
            y: A batch of signals.

        Returns:
            A tensor of shape `(batch,)`, in float32 or float64.

        Raises:
            SizeError: If `y` is no batch of signals.
        """
        _check_numbers("y", y)
        return self.lasso.lambda_max(self.operands(), rows_of(self.D.out_space, y, self.D))[:, 0]

    def reconstruct(self, codes: Any) -> Any:
        """The signals D z.

        Args:
            codes: A batch of codes.

        Returns:
            A batch of signals, which is differentiable by the codes and the kernel.

        Raises:
            SizeError: If `codes` is no batch of codes.
        """
        _check_numbers("codes", codes)
        rows = rows_of(self.D.in_space, codes, self.D)
        with self.lasso.problem.at(self.operands()) as system:
            return packed(self.D.T, system.forward(rows))

    # --- the dictionary

    def operands(self) -> list[Tensor]:
        """What D depends on, with the kernel as it is computed with."""
        problem = self.lasso.problem
        found = problem.operands()
        if self.unit_atoms:
            index = kernel_index(problem, self.source)
            found[index] = unit_kernel(problem, found, self.source, self.dictionary == "adjoint")
        return found

    def atoms(self) -> Tensor:
        """The kernel that D is computed with: the source's, with `unit_atoms` divided by the norms.

        Raises:
            NoRuleError: If the source has other weights than one kernel.
        """
        check_atoms(self.source)
        return self.operands()[kernel_index(self.lasso.problem, self.source)]

    def learner(self, optimizer: Any = "adam", **options: Any) -> "DictionaryLearning":
        """A compiled Keras model that learns the kernel: every step finds codes, and then improves the kernel for them.

        The loss is the objective, the mean over the samples; its gradient by the kernel is that at fixed codes, since they are
        optimal. What else it measures: `error`, the mean of ½‖y − D z‖²; `used`, the part of the codes that are not zero;
        `converged`, the part of the samples that converged.

        Args:
            optimizer: A Keras optimizer.
            **options: Those of `keras.Model.compile`, but for the loss.

        Returns:
            The model. It takes signals alone, in all forms that Keras takes.

        Raises:
            ValueError: If there is nothing to learn, or `unit_atoms` is not set, without which the atoms would grow forever, so
                that the codes cost less.
        """
        return DictionaryLearning(self).ready(optimizer, **options)

    def fit(self, pictures: Any, *, optimizer: Any = "adam", **options: Any) -> Any:
        """Learn the kernel of the source from signals, through `keras.Model.fit`, and leave it with unit atoms.

        Args:
            pictures: Signals: an array, a dataset or what else `fit` takes, without targets. Those that are not finite have
                no codes, and are left out.
            optimizer: A Keras optimizer.
            **options: Those of `keras.Model.fit`: `epochs`, `batch_size`, `validation_data`, `callbacks` and so on.

        Returns:
            The `History` of Keras, see `learner` for what is in it.

        Raises:
            ValueError: See `learner`, or if there are no signals.
        """
        check_signals(pictures)
        if hasattr(pictures, "shape") and len(pictures.shape):
            self.D.out_space.leaves(pictures[:1], self.D.dtype, repr(self.D.T))  # the errors of a call
        history = self.learner(optimizer).fit(pictures, **options)
        self.source.kernel.assign(self.atoms())
        return history

    # --- shapes and files

    @property
    def expected(self) -> Expected:
        shapes = self.D.out_space.shapes
        return Expected.shape((None, *shapes[0])) if len(shapes) == 1 else Expected()

    def compute_output_spec(self, y: Any, **kwargs: Any) -> Any:
        return symbolic(self.D.in_space, y, self.D.dtype, self.D.out_space, self.name)

    def compute_output_shape(self, input_shape: Any, **kwargs: Any) -> Any:
        return with_batch(self.D.in_space, input_shape)

    def get_config(self) -> dict[str, Any]:
        names = (
            *("dictionary", "weight", "relative_weight", "unit_atoms", "nonnegative"),
            *("linear_part", "tolerance", "max_steps"),
        )
        taken = (self.D.T if self.dictionary == "adjoint" else self.D).in_shape
        return {**super().get_config(), **{name: getattr(self, name) for name in names}, "size": taken}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SparseCoding":
        return super().from_config({**config, "size": from_json(config["size"])})


def _find(coding: SparseCoding, y: Any) -> tuple[Any, ...]:
    rows, operands, lasso = rows_of(coding.D.out_space, y, coding.D), coding.operands(), coding.lasso
    has_codes, none = finite_rows(rows), float("nan")
    rows = ops.where(has_codes, rows, 0.0)  # what is not finite times a gradient of zero is not zero
    if coding.weight is None:
        assert coding.relative_weight is not None
        weight = coding.relative_weight * lasso.lambda_max(operands, rows)
    else:
        weight = ops.full((ops.shape(rows)[0], 1), coding.weight, rows.dtype)
    codes, steps, converged = lasso.codes(operands, rows, weight)
    found = has_codes[:, 0]
    objective = ops.where(found, lasso.objective(operands, rows, weight, codes), none)
    codes, weight = ops.where(has_codes, codes, none), ops.where(has_codes, weight, none)
    return packed(coding.D, codes), ops.where(found, steps, 0), objective, converged & found, weight[:, 0]


_found = current().untraced(_find)


def _check_numbers(name: str, tensors: Any) -> None:
    """Raise a ValueError for tensors of a Functional model, which have no numbers yet."""
    if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(tensors)):
        raise ValueError(
            f"The methods of `SparseCoding` compute at once, so that `{name}` has numbers. In a Functional model call the "
            f"layer itself. Received: {name}={tensors!r}"
        )


def _weights(weight: Any, relative: Any) -> tuple[float | None, float | None]:
    for name, value, limit in (("weight", weight, float("inf")), ("relative_weight", relative, 1.0)):
        if value is not None and not (is_real_number(value) and 0 < value < limit):
            wanted = "a positive number" if name == "weight" else "a part of `lambda_max(y)`, between 0 and 1"
            raise ValueError(f"`{name}` is {wanted}. Received: {name}={value!r}")
    if weight is not None and relative is not None:
        raise ValueError(
            f"Pass `weight` or `relative_weight`, not both. Received: weight={weight!r}, relative_weight={relative!r}"
        )
    if weight is not None:
        return float(weight), None
    return None, RELATIVE_WEIGHT if relative is None else float(relative)


def _reported(found: SparseCodes, coding: SparseCoding) -> SparseCodes:
    """The codes, after a warning that names the samples that did not converge, if that is known now."""
    if not current().is_concrete([found.converged]):
        return found
    failed = ~np.asarray(ops.convert_to_numpy(found.converged))
    if failed.any():
        samples = named(failed)
        objective = ops.stop_gradient(found.objective)  # of which JAX knows numbers while it differentiates
        objective, steps = (np.asarray(ops.convert_to_numpy(each))[failed] for each in (objective, found.steps))
        if not np.isfinite(objective).any():
            text = f"y, or what D makes of it, is not finite in sample {samples}, which has no codes."
        elif steps.max() < coding.max_steps:
            text = f"the steps for sample {samples} were not finite from the {steps.max()}th on; its codes are the last ones."
        else:
            text = (
                f"the codes of sample {samples} did not reach the tolerance of {coding.tolerance:g} in {steps.max()} steps; "
                "they are the last ones, see `converged`. Pass more `max_steps`, a larger `tolerance`, or a larger weight."
            )
        warnings.warn(f"`SparseCoding`: {text} Other samples are not touched by that.", stacklevel=3)
    return found
