"""Two operators that may be each other's adjoint, as functions of arrays, whatever they are made of."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.adjoint import original_of, probe_shape
from keras_adjoint.layers.merge import AdjointMerge
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.tied import Tied, linear_part
from keras_adjoint.models.backward import one_or_list
from keras_adjoint.ops.dot_test import evaluate, random_probe
from keras_adjoint.testing.packing import Packing, packed

UNPOOLING = (AdjointMaxPooling, AdjointGlobalMaxPooling)  # they are called with switches


@dataclass(frozen=True)
class Pair:
    """A and B as functions of float64 arrays, the layers behind them, if they are layers, and how y is packed."""

    forward: Callable
    backward: Callable
    forward_layer: keras.layers.Layer | None = None
    backward_layer: keras.layers.Layer | None = None
    outputs: Packing | None = None


def pair_of(forward, backward, shape, inputs, dtype, generator):
    """The `Pair` of two operators on x of `shape`; several tensors at either end are packed into one array."""
    if isinstance(backward, UNPOOLING):
        switches = keras.ops.convert_to_tensor(random_probe(shape, dtype, generator), dtype)
        return Pair(
            forward=lambda x: evaluate(lambda t: backward.apply_forward(t, switches), x, dtype),
            backward=lambda y: evaluate(lambda t: backward(t, switches=switches), y, dtype),
        )
    linear = forward
    if isinstance(backward, Tied) and backward.source is forward:
        linear = backward.apply_forward
    elif isinstance(forward, Tied) and backward is forward.source:
        linear, backward = _linear(forward), forward.apply_forward
    elif isinstance(forward, keras.layers.Layer) and (
        not isinstance(forward, keras.Model) or (isinstance(backward, keras.Model) and original_of(backward) is forward)
    ):
        linear = _linear(forward)

    def apply_backward(y):
        if not isinstance(backward, Tied) or getattr(backward, "output_size", ()) is not None:
            return backward(y)
        try:
            return backward(y, output_size=_zeros(shape, dtype))
        except SizeError:  # then its own idea of the size is what the test shall show
            return backward(y)

    result = linear(_zeros(shape, dtype))
    outputs = Packing([tuple(y.shape) for y in result]) if isinstance(result, (list, tuple)) else None
    return Pair(
        forward=lambda x: evaluate(packed(linear, inputs, outputs), x, dtype),
        backward=lambda y: evaluate(packed(apply_backward, outputs, inputs), y, dtype),
        forward_layer=forward if isinstance(forward, keras.layers.Layer) else None,
        backward_layer=backward if isinstance(backward, keras.layers.Layer) else None,
        outputs=outputs,
    )


def _zeros(shape, dtype):
    """Zeros of a shape, or a list of zeros of several shapes."""
    if isinstance(shape[0], int):
        return keras.ops.zeros(shape, dtype)
    return [keras.ops.zeros(one, dtype) for one in shape]


def _linear(layer):
    def apply(x):
        with linear_part(layer) as linear:
            return linear(x)

    return apply


def known_shape(forward, backward):
    """The shape of x in A x, as the layers recorded it."""
    if isinstance(backward, Tied) and backward.source is forward:
        shape = _shape_of_x(backward)
    elif isinstance(forward, Tied):
        x = _shape_of_x(forward)
        shape = x and tuple(forward.apply_forward(_zeros(x, forward.compute_dtype)).shape)
    elif isinstance(forward, keras.Model) and forward.inputs:
        shapes = [probe_shape(forward, [x.shape]) for x in forward.inputs]
        shape = one_or_list(shapes)
    else:
        shape = probe_shape(forward) if isinstance(forward, keras.layers.Layer) else None
    if shape is None:
        raise ValueError(
            f"The shape of the input is not known. Pass it as `input_shape`, batch axis included. "
            f"Received: forward={name_of(forward)}, input_shape=None"
        )
    return shape


def _shape_of_x(adjoint):
    if isinstance(adjoint, AdjointMerge):
        return [probe_shape(adjoint.source, [(None, *shape)]) for shape in adjoint.output_size] or None
    recorded = probe_shape(adjoint.source, adjoint.recorded_shapes())
    return recorded and adjoint.shape_of_x(recorded)


def name_of(operator):
    """What to call an operator in a report."""
    return getattr(operator, "name", None) or getattr(operator, "__name__", None) or repr(operator)
