"""What an adjoint layer does, at every step: it acts on each sample alike, so steps are further samples to it."""

from typing import Any

import keras
from keras import ops
from keras.layers import Layer

from keras_adjoint.layers.inputs import check_switches, check_tensors
from keras_adjoint.layers.sizes import holds_sizes, sizes_of, without_steps
from keras_adjoint.layers.tied import Tied, with_size
from keras_adjoint.layers.wrapped import WRAPPERS, axes_of_steps
from keras_adjoint.ops import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_adjoint")
class DistributedAdjoint(keras.layers.TimeDistributed):
    """`TimeDistributed` around an adjoint layer, which passes on what the adjoint takes besides y.

    Args:
        layer: A layer of this package that acts on each sample alike.

    Call arguments:
        y: Tensor of shape `(batch, steps, ...)`.
        output_size: The size of one step, as `layer` takes it, or a tensor with steps whose size is meant.
        switches: A tensor with steps, of which each goes to `layer`.

    Input shape: `(batch, steps, ...)`.
    Output shape: `(batch, steps, ...)`.

    Example:

    >>> conv = keras.layers.Conv1D(4, 3, strides=2, padding="same")
    >>> each = keras.layers.TimeDistributed(conv)
    >>> y = each(np.ones((1, 5, 28, 2)))
    >>> ka.adjoint(each)(y).shape, ka.adjoint(each)(y, output_size=27).shape
    ((1, 5, 28, 2), (1, 5, 27, 2))
    """

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.built = True  # around an adjoint there is nothing to build

    def __call__(self, y: Any, *args: Any, **kwargs: Any) -> Any:
        check_tensors(innermost(self), y)
        axes = len(getattr(y, "shape", (None,) * 3))
        if axes < 3:
            raise ValueError(
                f"`{self.name}` takes a tensor with an axis of steps behind that of the batch, and what `{self.layer.name}` "
                f"takes at each step. Received: a tensor of shape {tuple(y.shape)}"
            )
        check_switches(self, y, args[1] if len(args) > 1 else kwargs.get("switches"))
        return super().__call__(y, *args, **with_size(self, y, kwargs))

    def call(self, y: Tensor, output_size: Any = None, switches: Tensor | None = None) -> Tensor:
        shape = ops.shape(y)
        x = self.layer(as_samples(y), **self._options(as_samples, output_size, switches))
        return ops.reshape(x, (*shape[:2], *ops.shape(x)[1:]))

    def compute_output_spec(self, y: keras.KerasTensor, output_size: Any = None, switches: Any = None) -> Any:
        x = self.layer.compute_output_spec(step_of(y), **self._options(step_of, output_size, switches))
        return keras.KerasTensor((*y.shape[:2], *x.shape[1:]), x.dtype)

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None, switches_shape: Any = None) -> Shape:
        switches = None if switches_shape is None else keras.KerasTensor(switches_shape)
        y = keras.KerasTensor(input_shape, self.compute_dtype)
        return tuple(self.compute_output_spec(y, output_size, switches).shape)

    def _options(self, at_a_step: Any, output_size: Any, switches: Any) -> dict[str, Any]:
        """What the layer inside takes besides y: `at_a_step` of the tensors that have steps."""
        options = {} if switches is None else {"switches": at_a_step(switches)}
        if output_size is None:
            return options
        if hasattr(output_size, "shape") and not holds_sizes(output_size):
            is_symbolic = isinstance(output_size, keras.KerasTensor)
            return {**options, "output_size": step_of(output_size) if is_symbolic else output_size[:1, 0]}
        sizes, axes = sizes_of(output_size), self.axes_of_x
        is_whole = sizes is not None and axes is not None and len(sizes) == axes
        return {**options, "output_size": without_steps(sizes) if is_whole and sizes is not None else output_size}

    def count_params(self) -> int:
        """Number of parameters, without those of a source that belongs to another model."""
        return int(self.layer.count_params())

    # --- sizes

    @property
    def axes_of_x(self) -> int | None:
        """How many axes there are in a whole shape of Aᵀ y; `None` if that is not known."""
        rank = getattr(innermost(self.layer), "rank", None)
        return None if rank is None else int(rank) + 2 + axes_of_steps(self)

    @property
    def needs_output_size(self) -> bool:
        """Whether y alone does not determine the size of one step."""
        return bool(getattr(self.layer, "needs_output_size", False))

    @property
    def needs_switches(self) -> bool:
        """Whether the layer inside is linear for given switches alone."""
        return bool(getattr(self.layer, "needs_switches", False))

    def output_size_like(self, x: keras.KerasTensor) -> Any:
        """The `output_size` that makes the output as large as the symbolic tensor `x`; `None` if that is not known."""
        return self.layer.output_size_like(step_of(x))

    def size_for_graph(self, y: keras.KerasTensor) -> Any:
        """The `output_size` that a symbolic call is recorded with, or `None` where it says nothing."""
        return self.layer.size_for_graph(step_of(y))

    def apply_forward(self, x: Tensor, switches: Tensor | None = None) -> Tensor:
        """A x."""
        shape = ops.shape(x)
        y = self.layer.apply_forward(as_samples(x), **self._options(as_samples, None, switches))
        return ops.reshape(y, (*shape[:2], *ops.shape(y)[1:]))


def as_samples(x: Tensor) -> Tensor:
    """A tensor whose steps are further samples."""
    batch, steps, *rest = ops.shape(x)
    return ops.reshape(x, (batch * steps, *rest))


def step_of(x: keras.KerasTensor) -> keras.KerasTensor:
    """One step of a symbolic tensor, as one of any number of samples."""
    return keras.KerasTensor((None, *x.shape[2:]), x.dtype)


def innermost(layer: Any) -> Any:
    """The adjoint layer inside of all axes of steps; a layer without any is that layer itself."""
    while isinstance(layer, DistributedAdjoint):
        layer = layer.layer
    return layer


def distributed(adjoint: Layer, source: Layer, *, name: str | None = None) -> Layer:
    """An adjoint of what is inside of a `TimeDistributed`, or what stands for one, at every step."""
    ours = isinstance(adjoint, (Tied, DistributedAdjoint))
    result = (DistributedAdjoint if ours else keras.layers.TimeDistributed)(
        adjoint, dtype=source.dtype_policy, name=name
    )
    result.built = True
    return result


def read_sizes_of(adjoint: Layer, wrapper: Layer) -> None:
    """Have an adjoint of what is inside of a wrapper, if it is one, go by the sizes that the wrapper records."""
    reader = innermost(adjoint)
    if isinstance(reader, Tied) and isinstance(wrapper, WRAPPERS):
        reader.read_sizes_of(wrapper, axes_of_steps(wrapper))
