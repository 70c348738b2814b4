"""What a layer says about itself: its kernels and how they move, its sizes, its adjoint, and how that is computed."""

from keras import layers, ops

from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.sizes import recorded_shapes, spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.algorithms.problem import ANY_SIZE
from keras_adjoint.ops.backend import current

KERNELS = ("kernel", "embeddings")  # how the names of variables end that an adjoint is made of


def name_of_adjoint(layer, adjoint):
    """The type of a layer's adjoint, whether or not a mirror takes it; of an adjoint layer, its source."""
    if isinstance(layer, Tied):
        return f"of {layer.source.name}"
    if adjoint is None and isinstance(layer, layers.Layer):
        try:
            adjoint = linear_adjoint(layer)
        except Exception:
            return ""
    return "" if adjoint is None else type(adjoint).__name__


def hyperparameters(layer):
    """The kernels of a layer and how they move; those that an adjoint layer reads."""
    source = layer.source if isinstance(layer, Tied) else layer
    weights = getattr(source, "weights", [])
    kernels = {w.name: tuple(w.shape) for w in weights if w.name.endswith(KERNELS) and "lora" not in w.name}
    return {
        "kernels": kernels,
        "strides": as_tuple(getattr(source, "strides", ())),
        "dilation": as_tuple(getattr(source, "dilation_rate", ())),
        "padding": padding if isinstance(padding := getattr(source, "padding", ""), str) else str(padding),
        "groups": getattr(source, "groups", 1),
        "parameters": layer.count_params() if isinstance(layer, layers.Layer) and layer.built else 0,
    }


def sizes(layer, call):
    """Shapes of what a layer takes and gives: in the model, else as it was built."""
    if call is not None:
        return {"inputs": [tuple(x.shape) for x in call.inputs], "outputs": [tuple(y.shape) for y in call.outputs]}
    recorded = recorded_shapes(layer)[:1]
    try:
        outputs = [tuple(layer.compute_output_shape(shape)) for shape in recorded]
    except Exception:
        outputs = []
    return {"inputs": recorded, "outputs": outputs}


def algorithms(adjoint, shapes, batch):
    """Names of the algorithms that run in the adjoint of a convolution, if it is one, for the first of the shapes of x.

    A size that is not known counts as a middling one.
    """
    if not isinstance(adjoint, AdjointConv) or not shapes:
        return []
    known = [ANY_SIZE if size is None else size for size in spatial(shapes[0], adjoint.data_format)]
    return adjoint.algorithms(known, batch, current().device_of(ops.zeros(())))


def as_tuple(value):
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
