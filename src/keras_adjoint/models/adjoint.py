"""`adjoint`: from a layer to the layer that computes its transpose, from a linear model to the model that does."""

from typing import Any

import keras

from keras_adjoint import layers as _layers  # noqa: F401  fills the registry
from keras_adjoint.layers.adjoint import check_linear, linear_adjoint, original_of, record_source
from keras_adjoint.layers.options import standardize_options
from keras_adjoint.layers.registry import class_with_rule, describe
from keras_adjoint.models.backward import BackwardPass
from keras_adjoint.models.graph import trace

_DEFAULTS = {
    "output_size": None,
    "bias": "none",
    "channels": None,
    "channel_method": "learned",
    "algorithm": None,
    "tied": True,
    "name": None,
}


def adjoint(
    source: keras.layers.Layer,
    *,
    output_size: Any = None,
    bias: str = "none",
    channels: int | None = None,
    channel_method: str = "learned",
    algorithm: str | None = None,
    tied: bool = True,
    name: str | None = None,
) -> keras.layers.Layer:
    """The layer that computes the transpose of a linear layer or model, reading the source's own kernels.

    Args:
        source: A built, linear Keras layer, or a Functional or Sequential model of such layers. Biases are not part of what
            is transposed.
        output_size: Sizes of the output's spatial axes. By default the size that the source was built with.
        bias: What to do with biases: "none"; "own", a new trainable bias; "subtract", Aᵀ(y − b) with the source's bias
            b; "repeat" or "average", a new trainable bias that starts from the source's, adapted in size; "learned", a
            trainable linear map of the source's bias.
        channels: Number of output channels, if different from the source's input channels. The result is then no
            longer the adjoint, and its `exact` is `False`.
        channel_method: How the channels are adapted: "repeat", "average", "truncate", "pad", or "learned".
        algorithm: The way to compute the adjoint of a convolution: "native" (the backend's transposed convolution),
            "subpixel", "phases", "columns", "fold" or "shifts". By default the one that is expected to be fastest;
            `keras_adjoint.layers.autotune` measures.
        tied: Whether to read the source's kernel at every call. With `False` the result owns a copy.
        name: Name of the new layer.

    Returns:
        A Keras layer, for `Cropping`, `Permute` and the like a stock one; for a model a Functional model, which takes
        `tied` and `name` alone of the options. The adjoint of an adjoint is its source.

    Raises:
        NoRuleError: If no adjoint is known, because the layer or its activation is not linear or its type has no rule. In a
            model, the message names the layer's place; `mirror` makes decoders of models that are not linear.
        TieError: If the source is not built, or its kernel is quantised beyond recovery.
        ValueError: If an option is unknown, or makes no sense for this layer.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
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
        channels=channels,
        channel_method=channel_method,
        algorithm=algorithm,
        tied=tied,
        name=name,
    )
    if not isinstance(source, keras.layers.Layer):
        raise ValueError(f"`adjoint` takes a Keras layer. Received: source={source!r} of type {type(source).__name__}")
    options = {option: value for option, value in standardize_options(given).items() if not _is_default(option, value)}
    original = original_of(source)
    if original is not None:
        if options:
            raise ValueError(
                f"The adjoint of an adjoint is its source itself, which takes no options. Received: {options}, "
                f"{describe(source)}"
            )
        return original
    if isinstance(source, keras.Model) and class_with_rule(source) is None:
        return _adjoint_of_model(source, options)
    check_linear(source)
    return linear_adjoint(source, **options)


def _is_default(option: str, value: Any) -> bool:
    default = _DEFAULTS[option]
    return value is default or (type(value) is type(default) and value == default)  # an array has no one answer to ==


def _adjoint_of_model(model: keras.Model, options: dict[str, Any]) -> keras.Model:
    refused = options.keys() - {"tied", "name"}
    if refused:
        raise ValueError(
            f"The adjoint of a model takes `tied` and `name` alone; `keras_adjoint.mirror` makes decoders with other options. "
            f"Received: {', '.join(sorted(refused))}, {describe(model)}"
        )
    backward = BackwardPass(trace(model), tied=options.get("tied", True))
    result = backward.model(options.get("name") or f"{model.name}_adjoint")
    record_source(result, model)
    return result
