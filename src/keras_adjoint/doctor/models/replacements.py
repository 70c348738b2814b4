"""What takes the place of a layer that holds another layer's kernel once more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_adjoint.doctor.models.kernels import Kernel
from keras_adjoint.keras_internals import nn_operations, numpy_operations
from keras_adjoint.kernels import VARIABLES
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.registry import class_with_rule, nearest_class
from keras_adjoint.layers.sharing import copy_value
from keras_adjoint.layers.sized import Sized
from keras_adjoint.layers.sizes import recorded_shapes, spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Tensor

if TYPE_CHECKING:
    from keras_adjoint.doctor.models.context import ModelContext
    from keras_adjoint.models.calls import Call

L = keras.layers
REPLACEABLE = (
    L.Conv1D,
    L.Conv2D,
    L.Conv3D,
    L.Conv1DTranspose,
    L.Conv2DTranspose,
    L.Conv3DTranspose,
    L.DepthwiseConv1D,
    L.DepthwiseConv2D,
    L.Dense,
)
FUNCTIONS: dict[type[keras.Operation], tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    nn_operations.Conv: (ops.conv, ("strides", "padding", "data_format", "dilation_rate")),
    nn_operations.ConvTranspose: (
        ops.conv_transpose,
        ("strides", "padding", "output_padding", "data_format", "dilation_rate"),
    ),
    numpy_operations.Matmul: (ops.matmul, ()),
    numpy_operations.Dot: (ops.dot, ()),
}
UNKNOWN = 2  # what an unknown size, that of the batch, is tried with


@dataclass(frozen=True, eq=False)
class Replacement:
    """Layers in the place of another one.

    Attributes:
        replaced: The layer, or the operation, that is replaced.
        make: Makes the layers that are called one after the other instead.
        keeps_outputs: Whether the outputs must stay what they were.
        description: What is there now, in words.
        call: The call of an operation, if one is replaced.
    """

    replaced: Any
    make: Callable[[], list[keras.layers.Layer]]
    keeps_outputs: bool
    description: str
    call: "Call | None" = None

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape that an operation is called with; `None` for a layer, which records its own."""
        return None if self.call is None else tuple(size or UNKNOWN for size in self.call.inputs[0].shape)


class ByHand(Exception):
    """The message is why a repair is left to the user."""


def adjoint_in_place(context: "ModelContext", first: Kernel, second: Kernel, *, keeps_outputs: bool) -> Replacement:
    """The adjoint of the first kernel's layer in the place of the second kernel's owner.

    Raises:
        ByHand: If that cannot be done.
    """
    source, replaced = first.owner, second.owner
    check_reachable(context, replaced)
    if class_with_rule(source) is None or first.name not in VARIABLES:
        raise ByHand(f"`{source.name}` has no adjoint that reads this kernel alone")
    if not second.is_constant and nearest_class(replaced, REPLACEABLE) is None:
        raise ByHand(f"a `{type(replaced).__name__}` does more with its kernel than an adjoint would")
    call = second.call
    return Replacement(
        replaced,
        lambda: adjoint_like(source, replaced) if call is None else adjoint_of_call(source, call),
        keeps_outputs,
        f"`{second.place}` is now the adjoint of `{first.place}` and reads its kernel",
        call,
    )


def same_layer_in_place(context: "ModelContext", first: Kernel, second: Kernel) -> Replacement:
    """The first kernel's layer itself in the place of the second one.

    Raises:
        ByHand: If the two are not the same in everything, or Keras could not write the model that results.
    """
    kept, replaced = first.owner, second.owner
    check_reachable(context, replaced)
    if second.is_constant or type(kept) is not type(replaced) or settings(kept) != settings(replaced):
        raise ByHand("the two layers differ in more than their names")
    if not all(same_values(a, b) for a, b in zip(kept.weights, replaced.weights, strict=True)):
        raise ByHand("other weights of the two layers differ")
    if context.parents.get(id(kept)) is not context.parents[id(replaced)]:
        raise ByHand("Keras does not load a layer that two nested models share; move it out of them first")
    return Replacement(
        replaced, lambda: [kept], True, f"`{first.place}` is called in the place of `{second.place}` as well"
    )


def computed(change: Replacement) -> Callable[[Tensor], Tensor]:
    """What was computed before, as a function of one tensor.

    Not by the operation itself: in a graph, Keras' `ConvTranspose` confuses two of its own arguments and does not run.
    """
    if change.call is None:
        layer: Callable[[Tensor], Tensor] = change.replaced
        return layer
    operation, (constant,) = change.replaced, change.call.constants
    function, names = FUNCTIONS[type(operation)]
    return lambda y: function(y, constant, **{name: getattr(operation, name) for name in names})


def check_reachable(context: "ModelContext", replaced: keras.Operation) -> None:
    if id(replaced) not in context.parents:
        raise ByHand(f"`{replaced.name}` is inside of a wrapper or of a subclassed model, where it cannot be replaced")


def settings(layer: keras.layers.Layer) -> dict[str, Any]:
    """The options of a layer without its name and without where its weights came from."""
    ignored = ("name", "trainable", "initializer")
    return {key: value for key, value in layer.get_config().items() if not key.endswith(ignored)}


def same_values(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(keras.ops.all(keras.ops.equal(a, b)))


def adjoint_like(source: keras.layers.Layer, layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The adjoint of `source` with the bias, the activation and the output size of `layer`."""
    options: dict[str, Any] = {"name": layer.name}
    if layer.use_bias:
        options["bias"] = "own"
    adjoint = linear_adjoint(source, **options)
    shapes = recorded_shapes(layer)
    if isinstance(adjoint, Sized):
        sizes = {spatial(layer.compute_output_shape(shape), data_format_of(adjoint)) for shape in shapes}
        if len(sizes) == 1 and None not in next(iter(sizes)):
            adjoint = linear_adjoint(source, **options, output_size=sizes.pop())
    if layer.use_bias:
        adjoint.build(shapes[0])
        (bias,) = own_weights(adjoint)
        copy_value(bias, layer.bias)
    adjoint.trainable = layer.trainable
    if layer.activation in (None, keras.activations.linear):
        return [adjoint]
    return [adjoint, L.Activation(layer.activation, name=f"{layer.name}_activation")]


def adjoint_of_call(source: keras.layers.Layer, call: "Call") -> list[keras.layers.Layer]:
    """The adjoint of `source` with the output size of an operation's call."""
    adjoint = linear_adjoint(source)
    if isinstance(adjoint, Sized):
        sizes = spatial(call.outputs[0].shape, data_format_of(adjoint))
        adjoint = linear_adjoint(source, output_size=None if None in sizes else sizes)
    return [adjoint]


def data_format_of(layer: keras.layers.Layer) -> str:
    return str(layer.data_format)


def own_weights(adjoint: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of an adjoint layer that are not its source's."""
    theirs = {id(weight) for weight in adjoint.source.weights}
    return [weight for weight in adjoint.weights if id(weight) not in theirs]


def retied_in_place(
    context: "ModelContext", tied: Tied, place: str, source: keras.layers.Layer, source_place: str
) -> Replacement:
    """The same adjoint layer with another source.

    Raises:
        ByHand: If that cannot be done.
    """
    check_reachable(context, tied)

    def make() -> list[keras.layers.Layer]:
        config = {key: value for key, value in tied.get_config().items() if key != "source"}
        again = type(tied)(source, **config)
        if tied.built and (tied.get_build_config() or {}).get("input_shape"):
            again.build_from_config(tied.get_build_config())
        for new, old in zip(own_weights(again), own_weights(tied), strict=True):
            copy_value(new, old)
        return [again]

    return Replacement(tied, make, True, f"`{place}` reads the kernel of `{source_place}` again")
