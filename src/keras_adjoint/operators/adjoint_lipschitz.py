"""The adjoint of a `Lipschitz` layer: that of the layer inside, times the same factor."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.layers.distributed import DistributedAdjoint, innermost, read_sizes_of
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import axes_of_steps
from keras_adjoint.layers.wrappers import adjoint_inside
from keras_adjoint.operators.layer_bounds import bound_of, bound_rule
from keras_adjoint.operators.lipschitz import Lipschitz
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Shape, Tensor


@rule(Lipschitz)
def lipschitz(source: Lipschitz, *, tied: bool = True, name: str | None = None, **options: Any) -> keras.layers.Layer:
    """s·Aᵀ, where s is the factor of the layer at the size of its input."""
    return AdjointLipschitz(source, options=options, tied=tied, name=name)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointLipschitz(Tied):
    """The adjoint s·Aᵀ of a `Lipschitz` layer x ↦ φ(s·A x + b) without its activation and bias.

    The adjoint of the layer inside is made anew wherever this layer is, so that both always read the same kernel.

    Args:
        source: A built `Lipschitz` layer.
        options: Those of the adjoint of the layer inside; its bias is scaled as well.
        tied: See `Tied`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call, if several give the same number of outputs.

    Input shape: That of the source's output.
    Output shape: That of the source's input.

    Example:

    >>> layer = ka.Lipschitz(keras.layers.Conv2D(8, 3, strides=2, padding="same"), constant=0.5)
    >>> y = layer(np.ones((1, 9, 9, 3)))
    >>> ka.adjoint(layer)(y).shape
    (1, 9, 9, 3)
    """

    def __init__(self, source: Lipschitz, *, options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.inner_options = dict(options or {})
        self.inner = adjoint_inside(source, True, **self.inner_options)
        read_sizes_of(self.inner, source)
        self.inner.built = self.built = True  # whatever an adjoint has of its own is made with it

    @property
    def of_layer_inside(self) -> bool:
        """Whether the adjoint of the layer inside was made here, and is no layer that was there before."""
        return isinstance(self.inner, (Tied, DistributedAdjoint))

    @property
    def bias_mode(self) -> str:
        """What is done with biases, by the adjoint of the layer inside."""
        return getattr(innermost(self.inner), "bias_mode", "none")

    @property
    def exact(self) -> bool:
        return bool(getattr(innermost(self.inner), "exact", True))

    def call(self, y: Tensor, output_size: Any = None) -> Tensor:
        x = self.inner(y) if output_size is None else self.inner(y, output_size=output_size)
        return x * ops.cast(self.source.factor(tuple(x.shape)), x.dtype)

    def _freeze(self, value: bool) -> None:
        Tied.trainable.fset(self, value)  # type: ignore[attr-defined]
        if getattr(self, "inner", None) is not None and self.of_layer_inside:
            self.inner.trainable = value  # which has a bias of its own at most

    trainable = property(Tied.trainable.fget, _freeze)  # type: ignore[attr-defined]

    # --- sizes

    @property
    def output_size(self) -> Any:
        """What the adjoint of the layer inside was asked for; `()` if it takes none."""
        return getattr(innermost(self.inner), "output_size", ())

    def read_sizes_of(self, wrapper: keras.layers.Layer, axes: int) -> None:
        inner = innermost(self.inner)
        if isinstance(inner, Tied):
            inner.read_sizes_of(wrapper, axes)
        super().read_sizes_of(wrapper, axes - axes_of_steps(self.source))

    @property
    def needs_output_size(self) -> bool:
        return bool(getattr(self.inner, "needs_output_size", False))

    def output_size_like(self, *xs: keras.KerasTensor) -> Any:
        """The `output_size` that makes the output as large as a symbolic tensor; `None` if that is not known."""
        return self.inner.output_size_like(*xs)

    def size_for_graph(self, y: keras.KerasTensor) -> Any:
        return self.inner.size_for_graph(y)

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None) -> Shape:
        options = {} if output_size is None else {"output_size": output_size}
        return tuple(self.inner.compute_output_shape(input_shape, **options))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "options": self.inner_options}


@bound_rule(AdjointLipschitz)
def _of_lipschitz(layer: AdjointLipschitz, taken: Space, given: Space) -> Any:
    found = bound_of(layer.inner, taken, given)
    return None if found is None else found * layer.source.factor((None, *taken.shapes[0]))
