"""Whether a function of tensors is linear up to a constant, sample by sample, and has that linear map as its derivative.

Nothing is read off the function's code: it is called on random numbers of many sizes. Factors that are powers of two change no
rounding, so that what is linear passes almost to the last bit and a kink of one in a thousand is seen.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_adjoint.errors import in_short
from keras_adjoint.layers.call_pattern import flat
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.dot_test import SAFETY
from keras_adjoint.ops.precision import epsilon, product_epsilon, smallest_normal

Array: TypeAlias = NDArray[Any]
Function: TypeAlias = Callable[[list[Tensor]], Any]

SAMPLES = 3
# From about 1e-3 to 1e4; half precision holds no numbers of such sizes.
FACTORS = tuple(2.0**power for power in (-10, -5, -2, 3, 7, 10, 14))
FACTORS_IN_FLOAT16 = (2.0**-4, 2.0**3)
_SYMBOLIC = (
    "a function in it computes with a symbolic tensor of the model that is none of the function's arguments, and gives no "
    "numbers. Pass that tensor as an argument, or write a layer that has all of this in its `call`"
)
_COMPUTED_AGAIN = (
    "parts of it are computed again in backward passes, as in a `keras.RematScope`, and PyTorch's `torch.func`, by which it "
    "would be differentiated, does not pass through those. Make it outside of that scope"
)


class NotLinear(Exception):
    """What showed that a function is not linear, with numbers."""

    def __str__(self) -> str:
        return f"it is not linear: {super().__str__()}"


class NotTested(NotLinear):
    """Why it cannot be tested whether a function is linear."""

    def __str__(self) -> str:
        return f"it cannot be tested whether it is linear: {Exception.__str__(self)}"


class Prober:
    """Calls a function on arrays of several samples.

    Args:
        function: A function of a list of tensors.
        shapes: Their shapes, without the batch axis.
        dtype: Their dtype.
        samples: The number of samples, where the function takes no other.
    """

    def __init__(self, function: Function, shapes: Sequence[Shape], dtype: str, samples: int | None = None) -> None:
        dtype = ops.dtype(ops.zeros((), dtype))  # JAX may be set to know no double precision
        self.function, self.shapes, self.dtype = function, list(shapes), dtype
        self.samples, self.any_samples = samples or SAMPLES, samples is None
        self.generator = np.random.default_rng(0)
        self.factors = FACTORS_IN_FLOAT16 if dtype == "float16" else FACTORS
        inputs = sum(math.prod(shape) for shape in self.shapes)
        # Some of Keras' operations round what is in double precision to single precision.
        product = max(product_epsilon(dtype), epsilon("float32"))
        self.rounding = SAFETY * (product + epsilon("float32") * math.sqrt(inputs))
        self.last_bits = 8 * epsilon(dtype)

    def random(self) -> list[Array]:
        return self._exact([self._standard_normal((self.samples, *shape)) for shape in self.shapes])

    def of_zeros(self) -> list[Array]:
        """What the function gives of zeros."""
        return self([np.zeros((self.samples, *shape)) for shape in self.shapes])

    def tensors_of_zeros(self) -> list[Tensor]:
        """The same as tensors, with whatever the backend records of how they were computed."""
        return flat(self.function([self._tensor(np.zeros((self.samples, *shape))) for shape in self.shapes]))

    def random_like(self, outputs: list[Array]) -> list[Array]:
        return self._exact([self._standard_normal(y.shape) for y in outputs])

    def _standard_normal(self, shape: Shape) -> Array:
        try:
            return self.generator.standard_normal(shape)
        except (MemoryError, ValueError) as error:  # of sizes beyond those of any array
            raise NotTested(f"no memory is left for numbers of shape {shape} to test it with") from error

    def _exact(self, arrays: list[Array]) -> list[Array]:
        """Numbers that the dtype holds."""
        return [self._numbers(self._tensor(array)) for array in arrays]

    def _tensor(self, array: Array) -> Tensor:
        exact = array.astype("float64" if self.dtype == "float64" else "float32")
        return ops.cast(ops.convert_to_tensor(exact), self.dtype)

    @staticmethod
    def _numbers(tensor: Tensor) -> Array:
        return ops.convert_to_numpy(ops.stop_gradient(tensor)).astype("float64")  # a cast to float64 would warn on JAX

    def __call__(self, xs: list[Array]) -> list[Array]:
        """What the function gives."""
        try:
            found = flat(self.function([self._tensor(x) for x in xs]))
        except Exception as error:  # of whatever kind the function's code raises
            raise NotTested(self._failure(len(xs[0]), error)) from error
        if any(isinstance(y, keras.KerasTensor) for y in found):
            raise NotTested(_SYMBOLIC)
        for y in found:
            dtype = keras.backend.standardize_dtype(y.dtype) if hasattr(y, "dtype") else type(y).__name__
            if not hasattr(y, "dtype") or "float" not in dtype:
                hint = "; stack the real and the imaginary parts" if "complex" in dtype else ""
                raise NotLinear(f"it gives {dtype}, not tensors of floating point numbers{hint}")
        arrays = [self._numbers(y) for y in found]
        wrong = [y.shape for y in arrays if y.shape[:1] != (len(xs[0]),)]
        if wrong:
            raise NotLinear(f"it turns {len(xs[0])} samples into a tensor of shape {wrong[0]}, so it mixes samples")
        if not all(np.isfinite(y).all() for y in arrays):
            given = f"numbers up to {largest(xs):.4g}" if largest(xs) else "zeros"
            raise NotLinear(f"of {given} it gives some that are not finite")
        return arrays

    def _failure(self, count: int, error: Exception) -> str:
        """What happened in a call on so many samples."""
        if "KerasTensor" in str(error):  # in the words of each backend
            return _SYMBOLIC
        try:
            found = flat(self.function([self._tensor(np.zeros((1, *shape))) for shape in self.shapes]))
            fixed = {y.shape[0] for y in found} - {1}
        except Exception:
            fixed = set()
        if fixed and self.any_samples:
            return (
                f"it takes {' or '.join(map(str, fixed))} samples and no other number of them, as something that it computes "
                f"with has so many. Give that one sample, as in `constant[:1]`"
            )
        return f"called on {count} samples of random numbers it fails with {type(error).__name__}: {in_short(error)}"

    def transposed(self, xs: list[Array], ys: list[Array]) -> list[Array]:
        """The transpose of the function's derivative at `xs`, of `ys`."""
        tensors, cotangents = [self._tensor(x) for x in xs], [self._tensor(y) for y in ys]

        def function(tensors: list[Tensor]) -> list[Tensor]:
            return [ops.cast(y, self.dtype) for y in flat(self.function(tensors))]

        try:
            return [self._numbers(x) for x in current().vjp(function, tensors, cotangents)]
        except Exception as error:
            if "saved tensor hooks" in str(error):
                raise NotTested(_COMPUTED_AGAIN) from error
            raise NotTested(
                f"the backend cannot differentiate it, and fails with {type(error).__name__}: {in_short(error)}"
            ) from error


def check_linearity(function: Function, shapes: Sequence[Shape], dtype: str, samples: int | None = None) -> None:
    """Test that a function is linear up to a constant and acts on each sample alike.

    Args:
        function: A function of a list of tensors, at inference.
        shapes: Their shapes, without the batch axis.
        dtype: Their dtype.
        samples: The number of samples, where the function takes no other.

    Raises:
        NotLinear: If it does not, with the numbers that showed it.
    """
    probe = Prober(function, shapes, dtype, samples)
    x = probe.random()
    at_x = probe(x)
    agree(probe(x), at_x, probe.last_bits, "called twice on the same x it gives two results")
    constant = probe.of_zeros()
    try:
        _check_sums(probe, x, at_x, constant)
    except NotTested:
        raise
    except NotLinear as found:
        sizes = [largest([y]) for y in minus(at_x, constant)]
        size, tiny = min(filter(None, sizes), default=1.0), smallest_normal(probe.dtype)
        if size * min(probe.factors) * probe.last_bits < tiny:
            raise NotTested(
                f"of random numbers around 1 it gives some around {size:.2g}, of which parts are below {tiny:.2g}, where "
                f"{probe.dtype} holds few digits and some backends hold 0. Scale the layer to numbers nearer to 1"
            ) from found
        raise


def _check_sums(probe: Prober, x: list[Array], at_x: list[Array], constant: list[Array]) -> None:
    """Everything that a linear function does, but for that it gives the same of the same numbers."""
    linear = minus(at_x, constant)
    _check_factors(probe, x, linear, constant)
    other = probe.random()
    of_other = minus(probe(other), constant)
    sizes = Sizes(linear, of_other, constant)
    agree(
        minus(probe(plus(x, other)), constant),
        plus(linear, of_other),
        probe.rounding,
        "of x + y it gives something else than the sum of what it gives of x and of y",
        sizes.of(1.0),
    )
    _check_samples(probe, x, at_x, sizes)
    _check_derivative(probe, x, other, at_x, constant)


class Sizes:
    """How large the numbers are that rounding is relative to: the terms of a sum, of which the sum may be much smaller.

    Of random x, what a linear function gives is as large as its terms are together, but for chance, which the largest among
    the samples of two x leaves little of.

    Args:
        linear: What the function gives of random x, without the constant.
        other: The same of other x.
        constant: What it gives of zeros.
    """

    def __init__(self, linear: list[Array], other: list[Array], constant: list[Array]) -> None:
        self.linear = [max(peaks(one).max(), peaks(two).max()) for one, two in zip(linear, other, strict=True)]
        self.constant = [peaks(each).max() for each in constant]

    def of(self, factors: float | Array) -> list[float | Array]:
        """The size of what the function gives of that many times a random x, for each tensor; one for each sample."""
        return [factors * linear + constant for linear, constant in zip(self.linear, self.constant, strict=True)]


def _check_factors(probe: Prober, x: list[Array], linear: list[Array], constant: list[Array]) -> None:
    """Multiples of x give multiples, of what comes of x, or beside a constant of what comes of its largest multiple.

    Beside that the constant, to which what it is added to was rounded, is smallest.
    """
    shifted = any(c.any() for c in constant)
    bound = probe.rounding if shifted else probe.last_bits

    def check(factor: float, unit: float, of_unit: list[Array]) -> None:
        agree(
            minus(probe(times(factor, x)), constant),
            times(factor / unit, of_unit),
            bound,
            f"of {factor:.4g} · x it gives something else than {factor / unit:.4g} times what it gives of "
            + ("x" if unit == 1 else f"{unit:.4g} · x")
            + (", the constant that it gives of 0 subtracted" if shifted else ""),
            [peaks(each) for each in constant],
        )

    check(-1.0, 1.0, linear)
    unit = probe.factors[-1] if shifted else 1.0
    of_unit = minus(probe(times(unit, x)), constant) if shifted else linear
    for factor in (1.0, *(sign * size for size in probe.factors for sign in (1.0, -1.0))):
        if factor != unit:
            check(factor, unit, of_unit)


def _check_samples(probe: Prober, x: list[Array], at_x: list[Array], sizes: Sizes) -> None:
    """No sample reads another one, and each is treated alike, wherever it stands and however many there are."""
    count = probe.samples
    factor = probe.factors[-1]
    large = times(factor, probe.random())
    at_large = probe(large)
    for chosen in separating(count):
        agree(
            probe(mixed(chosen, large, x)),
            mixed(chosen, at_large, at_x),
            probe.rounding,
            "what it gives of a sample changes with the other samples, so it mixes them",
            sizes.of(np.where(chosen, factor, 1.0)),
        )
    size = sizes.of(1.0)
    agree(probe(rolled(x)), rolled(at_x), probe.rounding, "the same samples in another order give other results", size)
    if probe.any_samples:
        for few, what in (
            (2, "2 samples give other results than they do"),
            (1, "a sample gives another result than it does"),
        ):
            found, expected = probe([each[:few] for each in x]), [y[:few] for y in at_x]
            agree(found, expected, probe.rounding, f"{what} among {count}", size)


def _check_derivative(
    probe: Prober, x: list[Array], other: list[Array], at_x: list[Array], constant: list[Array]
) -> None:
    y = probe.random_like(at_x)
    zero = [np.zeros_like(each) for each in x]
    expected = probe.transposed(zero, y)
    if not all(np.isfinite(each).all() for each in expected):
        raise NotLinear("its derivative at 0 is not finite")
    for size, point in (("", x), ("opposite ", times(-1.0, x)), ("large ", times(probe.factors[-1], other))):
        agree(
            probe.transposed(point, y),
            expected,
            probe.last_bits,
            f"its derivatives at 0 and at a {size}random x differ",
        )
    forward, backward = dot(minus(at_x, constant), y), dot(x, expected)
    scale = (norm(at_x) + norm(constant)) * norm(y)
    bound = probe.rounding / math.sqrt(sum(each.size for each in y) or 1)
    if not abs(forward - backward) <= bound * scale:
        raise NotLinear(
            f"its derivative is not the linear map that it computes: ⟨A x, y⟩ = {forward:.6g} for random x and y, and by "
            f"the derivative it is {backward:.6g}"
        )


# --- lists of arrays, as vectors


def agree(
    found: list[Array], expected: list[Array], bound: float, what: str, sizes: Sequence[float | Array] | None = None
) -> None:
    """Raise a NotLinear unless every sample of every tensor agrees up to `bound`, relative to its largest number.

    Or relative to `sizes`, where those are larger: of each tensor one, or one for each sample.
    """
    for number, (one, two) in enumerate(zip(found, expected, strict=True)):
        largest = np.maximum(peaks(one), peaks(two))
        if sizes is not None:
            largest = np.maximum(largest, sizes[number])
        errors = peaks(one - two)
        ratio = float(np.max(errors / np.where(largest > 0, largest, 1.0), initial=0.0))
        if not ratio <= bound:
            raise NotLinear(
                f"{what}: relative to the largest number they differ by {ratio:.2g}, of which rounding explains {bound:.1g}"
            )


def peaks(array: Array) -> Array:
    """The largest absolute value of each sample."""
    return np.max(np.abs(array).reshape(len(array), -1), axis=1, initial=0.0)


def largest(arrays: list[Array]) -> float:
    return max((float(np.abs(each).max(initial=0.0)) for each in arrays), default=0.0)


def plus(one: list[Array], two: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(one, two, strict=True)]


def minus(one: list[Array], two: list[Array]) -> list[Array]:
    return [a - b for a, b in zip(one, two, strict=True)]


def times(factor: float, arrays: list[Array]) -> list[Array]:
    return [factor * each for each in arrays]


def rolled(arrays: list[Array]) -> list[Array]:
    return [np.roll(each, 1, axis=0) for each in arrays]


def dot(one: list[Array], two: list[Array]) -> float:
    return float(sum(np.vdot(a, b) for a, b in zip(one, two, strict=True)))


def norm(arrays: list[Array]) -> float:
    return math.sqrt(dot(arrays, arrays))


def separating(count: int) -> Iterator[Array]:
    """Choices among `count` samples such that each two of them are once on different sides."""
    for bit in range((count - 1).bit_length()):
        yield np.arange(count) >> bit & 1 == 1


def mixed(chosen: Array, one: list[Array], two: list[Array]) -> list[Array]:
    """The samples of `one` where they are chosen, else those of `two`."""
    return [np.where(chosen.reshape(-1, *(1 for _ in a.shape[1:])), a, b) for a, b in zip(one, two, strict=True)]
