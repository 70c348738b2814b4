"""The adjoints of layers that are one matrix product: `Dense`, `EinsumDense`, and `Embedding` on one-hot vectors."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.keras_internals import calls_of, operations_behind
from keras_adjoint.layers.inputs import Expected, check_symbolic
from keras_adjoint.layers.kernel import kernel_shape
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.tied_channels import TiedChannels, TiedShift
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.products import times_matrix


def times_transpose(y: Tensor, kernel: Tensor) -> Tensor:
    """y Wᵀ, computed as (W yᵀ)ᵀ: converters to other formats store a transposed kernel as a second one."""
    rows = y if len(y.shape) == 2 else ops.reshape(y, (-1, kernel.shape[-1]))
    x = ops.transpose(kernel @ ops.transpose(rows))
    return x if len(y.shape) == 2 else ops.reshape(x, (*ops.shape(y)[:-1], kernel.shape[0]))


@rule(keras.layers.Dense)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointDense(TiedChannels):
    """The transpose of a `Dense` layer, sharing its kernel: y ↦ y Wᵀ.

    Args:
        source: A built `keras.layers.Dense` with kernel of shape `(inputs, units)`.
        bias: See `TiedChannels`.
        channels: See `TiedChannels`.
        channel_method: See `TiedChannels`.
        tied: See `Tied`.

    Input shape: `(batch, ..., units)`.
    Output shape: `(batch, ..., inputs)`.

    Raises:
        TieError: If `source` is not built, or its kernel cannot be read.

    Example:

    >>> dense = keras.layers.Dense(3)
    >>> dense.build((None, 5))
    >>> AdjointDense(dense)(np.ones((2, 3))).shape
    (2, 5)
    """

    def source_channels(self) -> int:
        return kernel_shape(self.source)[0]

    def source_filters(self) -> int:
        return int(self.source.units)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        return times_transpose(y, self.read())

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.channels or self.source_channels())


REVERSIBLE = (keras.layers.ReversibleEmbedding,) if hasattr(keras.layers, "ReversibleEmbedding") else ()  # since 3.12


@rule(keras.layers.Embedding, *REVERSIBLE)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointEmbedding(Tied):
    """The transpose of an `Embedding`, read as the linear map from one-hot vectors: y ↦ y Eᵀ.

    It gives every word of the vocabulary the inner product of `y` with the word's vector, which is how language models
    reuse their embedding as the output layer (Press and Wolf 2017).

    Args:
        source: A built `keras.layers.Embedding` with embeddings of shape `(words, units)`.
        tied: See `Tied`.

    Input shape: `(batch, ..., units)`.
    Output shape: `(batch, ..., words)`.

    Raises:
        TieError: If `source` is not built, or its embeddings cannot be read.

    Example:

    >>> embedding = keras.layers.Embedding(100, 8)
    >>> vectors = embedding(np.array([[3, 5]]))
    >>> AdjointEmbedding(embedding)(vectors).shape
    (1, 2, 100)
    """

    kernel_name = "embeddings"

    @property
    def expected(self) -> Expected:
        return Expected(at_least=2, sizes={-1: self.source.output_dim})

    def apply_adjoint(self, y: Tensor) -> Tensor:
        return times_transpose(y, self.read())

    def apply_forward(self, x: Tensor) -> Tensor:
        return times_matrix(x, self.read())

    def shape_of_x(self, recorded: Shape) -> Shape:
        return (*recorded, self.source.input_dim)  # one-hot vectors instead of words

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.source.input_dim)


@rule(keras.layers.EinsumDense)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointEinsumDense(TiedShift):
    """The transpose of an `EinsumDense` layer, sharing its kernel: the equation read backwards.

    If the forward is `"X,K->Y"`, its transpose is `"Y,K->X"`, since the sum over the axes of X, K and Y together is the
    same whichever of the three is the last to be summed.

    Args:
        source: A built `keras.layers.EinsumDense`.
        bias: "none", or "subtract" for Aᵀ(y − b) with the source's bias b.
        tied: See `Tied`.

    Input shape: That of the source's output.
    Output shape: That of the source's input.

    Raises:
        TieError: If `source` is not built, or its kernel cannot be read.

    Example:

    >>> heads = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4))
    >>> split = heads(np.ones((1, 5, 8)))
    >>> split.shape, AdjointEinsumDense(heads)(split).shape
    ((1, 5, 2, 4), (1, 5, 8))
    """

    @staticmethod
    def covers(source: keras.layers.Layer) -> bool:
        """Whether its equation can be read backwards: it repeats no axis of its input, nor sums over one alone."""
        inputs, kernel, outputs = terms(source.equation)
        letters = inputs.replace("...", "")
        return len(set(letters)) == len(letters) and set(letters) <= {*kernel, *outputs}

    @property
    def equation(self) -> str:
        """That of the transpose. The source's may be set anew."""
        return backward_equation(self.source.equation)

    @property
    def expected(self) -> Expected:
        outputs, kernel = self.equation.partition("->")[0].split(",")
        sizes = dict(zip(kernel, self.source.kernel.shape, strict=True))
        before, dots, after = outputs.partition("...")
        known = {axis: sizes.get(letter) for axis, letter in enumerate(before)}
        known.update({axis - len(after): sizes.get(letter) for axis, letter in enumerate(after)})
        axes = len(before) + len(after)
        return Expected(None if dots else axes, at_least=axes, sizes=known)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        if self.bias_mode == "subtract" and self.source.bias is not None:
            y = y - ops.cast(self.source.bias, y.dtype)
        return ops.cast(ops.einsum(self.equation, y, self.read()), self.compute_dtype)

    def compute_output_spec(self, y: keras.KerasTensor, **kwargs: Any) -> keras.KerasTensor:
        check_symbolic(self, y)
        return keras.KerasTensor(self.compute_output_shape(self._computed_shape(y)), dtype=self.compute_dtype)

    def _computed_shape(self, y: keras.KerasTensor) -> Shape:
        """The shape that y will have. Of "..." at the front Keras announces the axes in reverse, but the batch axis."""
        shape = tuple(y.shape)
        dotted = len(shape) - len(self.equation.partition(",")[0].replace("...", ""))
        if self.equation.startswith("...") and dotted > 2 and any(one is self.source for one in operations_behind(y)):
            for call in calls_of(self.source):
                if tuple(call.output_tensors[0].shape[1:dotted]) == shape[1:dotted]:
                    return (shape[0], *call.input_tensors[0].shape[1:dotted], *shape[dotted:])
        return shape

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        outputs, rest = self.equation.split(",")
        kernel, inputs = rest.split("->")
        sizes = dict(zip(kernel, self.source.kernel.shape, strict=True))
        elided = len(input_shape) - len(outputs.replace("...", ""))
        before, _, after = outputs.partition("...")
        sizes.update(zip(before, input_shape, strict=False))
        sizes.update(zip(reversed(after), reversed(input_shape), strict=False))
        middle = input_shape[len(before) : len(before) + elided]
        start, dots, end = inputs.partition("...")
        return tuple(sizes[a] for a in start) + tuple(middle if dots else ()) + tuple(sizes[a] for a in end)


def backward_equation(equation: str) -> str:
    """`"X,K->Y"` as `"Y,K->X"`."""
    inputs, kernel, outputs = terms(equation)
    return f"{outputs},{kernel}->{inputs}"


def terms(equation: str) -> tuple[str, str, str]:
    """X, K and Y of an equation `"X,K->Y"`."""
    inputs, rest = equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    return inputs, kernel, outputs
