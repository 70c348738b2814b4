"""`adjoint`: from a layer to the layer that computes its transpose, from a linear model to the model that does."""

from typing import Any

import keras

from keras_adjoint import layers as _layers  # noqa: F401  fills the registry
from keras_adjoint.layers.adjoint import adjoint_as_called, check_linear, record_source
from keras_adjoint.layers.adjoint_of_adjoint import second_adjoint
from keras_adjoint.layers.options import standardize_options
from keras_adjoint.layers.registry import class_with_rule, describe
from keras_adjoint.models.adjoint_of_adjoint import remember_parts, unchanged_source
from keras_adjoint.models.backward import BackwardPass
from keras_adjoint.models.graph import computes_itself, trace
from keras_adjoint.models.linear_part import LinearPartBackwardPass, saying_what_is_left_out
from keras_adjoint.models.names import name_of_model
from keras_adjoint.ops.backend import untraced

_DEFAULTS = {
    "output_size": None,
    "bias": "none",
    "linear_part": False,
    "channels": None,
    "channel_method": "learned",
    "algorithm": None,
    "tied": True,
    "name": None,
}


@untraced
def adjoint(
    source: keras.layers.Layer,
    *,
    output_size: Any = None,
    bias: str = "none",
    linear_part: bool = False,
    channels: int | None = None,
    channel_method: str = "learned",
    algorithm: str | None = None,
    tied: bool = True,
    name: str | None = None,
) -> keras.layers.Layer:
    """The layer that computes the transpose of a linear layer or model, reading the source's own kernels.

    Where there is no rule for a layer's type, the layer is tested at its size, and if it proves to be linear, up to a
    constant, its adjoint is derived by transposing the backend's derivative.

    Args:
        source: A built, linear Keras layer, or a Functional or Sequential model of such layers. Biases are not part of what
            is transposed.
        output_size: Sizes of the output's spatial axes, or its whole shape, batch axis and channels included; for layers that
            reshape, its shape without the batch axis. By default the size that the source was built with.
        bias: What to do with biases: "none"; "own", a new trainable bias; "subtract", Aᵀ(y − b) with the source's bias
            b; "repeat" or "average", a new trainable bias that starts from the source's, adapted in size; "learned", a
            trainable linear map of the source's bias.
        linear_part: Whether to take the adjoint of the linear part of a layer that ends in an activation, or of a model, in
            which every activation is left out.
        channels: Number of output channels, if different from the source's input channels. The result is then no
            longer the adjoint, and its `exact` is `False`.
        channel_method: How the channels are adapted: "repeat", "average", "truncate", "pad", or "learned".
        algorithm: How to compute the adjoint of a convolution: "native" (the backend's transposed convolution),
            "subpixel", "phases", "columns", "fold" or "shifts". By default the one that is expected to be fastest;
            `keras_adjoint.layers.autotune` measures.
        tied: Whether to read the source's kernel at every call. With `False` the result owns a copy.
        name: Name of the new layer.

    Returns:
        A Keras layer, for `Cropping`, `Permute` and the like a stock one; for a model a Functional model, which takes
        `tied`, `name` and `linear_part` alone of the options. Stock layers return integers for integers, where layers of
        this package cast them to their compute dtype first. The adjoint of an adjoint is its source, or, if that has a bias
        or an activation besides the linear operator, a layer of its own that computes the operator alone.

    Raises:
        NoRuleError: If there is no adjoint, because the layer or its activation is not linear. The message says which numbers
            showed it and, in a model, the layer's place; `mirror` makes decoders of models that are not linear.
        TieError: If the source is not built, or its kernel is quantised beyond recovery.
        ValueError: If an option is unknown, or makes no sense for this layer.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)
    >>> features = conv(np.ones((1, 27, 27, 3)))
    >>> decode = ka.adjoint(conv)
    >>> decode(features).shape
    (1, 27, 27, 3)
    >>> decode.source is conv, ka.adjoint(decode) is conv
    (True, True)
    """
    given = dict(
        output_size=output_size,
        bias=bias,
        linear_part=linear_part,
        channels=channels,
        channel_method=channel_method,
        algorithm=algorithm,
        tied=tied,
        name=name,
    )
    if not isinstance(source, keras.layers.Layer):
        raise ValueError(f"`adjoint` takes a Keras layer. Received: source={source!r} of type {type(source).__name__}")
    options = {option: value for option, value in standardize_options(given).items() if not _is_default(option, value)}
    if isinstance(source, keras.Model) and class_with_rule(source) is None and not computes_itself(source):
        return _adjoint_of_model(source, options)
    again = {option: value for option, value in options.items() if option in ("tied", "name")}
    second = second_adjoint(source, **again)
    if second is not None:
        if options.keys() - again.keys() or second.name != options.get("name", second.name):
            raise ValueError(
                f"The adjoint of an adjoint is its source itself, which takes no options but `tied`. Received: {options}, "
                f"{describe(source)}"
            )
        return second
    if options.pop("linear_part", False):
        with saying_what_is_left_out(source):
            return adjoint_as_called(source, **options)
    check_linear(source, advice=" Pass `linear_part=True` for the adjoint of its linear part. Or:")
    return adjoint_as_called(source, **options)


def _is_default(option: str, value: Any) -> bool:
    default = _DEFAULTS[option]
    return value is default or (type(value) is type(default) and value == default)  # an array has no one answer to ==


# What to do instead of passing options of `adjoint` for a model.
_OTHER_WAYS = {
    "output_size": " It gives tensors of the size that the model's input has: give the model an input of another size, "
    "`keras.Model(x, model(x))` with `x = keras.Input(...)`.",
    "bias": " `keras_adjoint.mirror` makes decoders with biases.",
}


def _adjoint_of_model(model: keras.Model, options: dict[str, Any]) -> keras.Model:
    refused = options.keys() - {"tied", "name", "linear_part"}
    if refused:
        hints = [hint for option, hint in _OTHER_WAYS.items() if option in refused]
        raise ValueError(
            f"The adjoint of a model takes `tied`, `name` and `linear_part` alone.{''.join(hints)} "
            f"Received: {', '.join(sorted(refused))}, {describe(model)}"
        )
    tied, linear_part = options.get("tied", True), options.get("linear_part", False)
    original = unchanged_source(model) if tied and "name" not in options else None
    if original is not None:
        return original
    graph = trace(model)
    backward = (LinearPartBackwardPass if linear_part else BackwardPass)(graph, tied=tied)
    result = backward.model(options.get("name") or name_of_model(f"{model.name}_adjoint"))
    if not linear_part:
        record_source(result, model)
        if tied:
            remember_parts(result, model, graph)
    return result
