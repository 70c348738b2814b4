"""`adjoint`: from a layer to the layer that computes its transpose, from a linear model to the model that does."""

import weakref
from typing import Any

import keras
import numpy as np

from keras_adjoint import layers as _layers  # noqa: F401  fills the registry
from keras_adjoint.errors import KerasAdjointError, NoRuleError
from keras_adjoint.models.graph import trace, zeros
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.kernel import check_readable
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.layers.tied import Tied, linear_part
from keras_adjoint.models.operations import is_symbolic, operation_back
from keras_adjoint.ops.dot_test import derived_tolerance, evaluate, operator_dtype, random_probe, residual_of
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, apply_rule, class_with_rule, describe, rule_for
from keras_adjoint.layers.sharing import copy_value
from keras_adjoint.models.backward import BackwardPass

# Stock layers cannot carry their source, so what they are the adjoint of is remembered here.
_SOURCES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

_DEFAULTS = {
    "output_size": None,
    "bias": "none",
    "channels": None,
    "channel_method": "learned",
    "algorithm": None,
    "tied": True,
    "name": None,
}
_UNKNOWN_SIZE = 12  # what an unknown size is tried with


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
        channels: Number of output channels, if it shall differ from the source's input channels. The result is then no
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
    options = {option: value for option, value in given.items() if not _is_default(option, value)}
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


def _is_default(option, value):
    default = _DEFAULTS[option]
    return value is default or (type(value) is type(default) and value == default)  # an array has no one answer to ==


def _adjoint_of_model(model, options):
    refused = options.keys() - {"tied", "name"}
    if refused:
        raise ValueError(
            f"The adjoint of a model takes `tied` and `name` alone; `keras_adjoint.mirror` makes decoders with other options. "
            f"Received: {', '.join(sorted(refused))}, {describe(model)}"
        )
    graph = trace(model)
    result = ExactBackwardPass(graph, tied=options.get("tied", True)).model(options.get("name") or f"{model.name}_adjoint")
    _SOURCES[result] = model
    return result


class ExactBackwardPass(BackwardPass):
    """The way back through linear layers alone, by their adjoints.

    Args:
        graph: A `Graph`.
        tied: Whether the adjoints read the kernels of the graph's layers or copies of them.
        **options: See `BackwardPass`.
    """

    def __init__(self, graph, *, tied=True, **options):
        super().__init__(graph, **options)
        self.tied = tied

    def carry_back(self, call, backs):
        backs = [
            y if y is not None else zeros(x.shape[1:], next(filter(is_symbolic, backs)))
            for x, y in zip(call.outputs, backs, strict=True)
        ]
        if not isinstance(call.operation, keras.layers.Layer):
            return operation_back(call, *backs)
        with locate_errors(call):
            layer = self.layer(call, "adjoint", lambda name: self.adjoint_of(call, name))
            if getattr(layer, "needs_switches", False):
                raise NoRuleError(
                    "Max pooling is linear only once its switches are fixed, so a model with it has no adjoint. "
                    f"`mirror` and `autoencoder` have policies for it. Received: {describe(call.operation)}"
                )
            return self.apply(layer, call, backs)

    def adjoint_of(self, call, name):
        """The layer that undoes the layer of a call."""
        if original_of(call.operation) is not None:
            return adjoint(call.operation)
        return adjoint(call.operation, tied=self.tied, name=name)


class locate_errors:
    """Context manager that puts the place of a call into errors about its layer."""

    def __init__(self, call):
        self.call = call

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        ours = isinstance(error, KerasAdjointError) or kind is ValueError
        if ours and f"`{self.call.place}`" not in str(error):
            raise kind(f"At `{self.call.place}`: {error}") from error


def linear_adjoint(source, **options):
    """The adjoint of the linear part of a layer, whatever the layer's activation. Options as in `adjoint`."""
    rule_for(source)
    check_readable(source)
    if not options.get("tied", True):
        if source.weights:
            source = copied(source, keep_bias=options.get("bias", "none") in READS_SOURCE)
        else:
            del options["tied"]  # nothing there that could be shared
    result = apply_rule(source, options)
    if not isinstance(result, Tied):
        _SOURCES[result] = source
    if class_with_rule(source) in REGISTERED_BY_USERS:
        _check_user_rule(source, result)
    return result


def check_linear(source):
    """Raise a NoRuleError if `source` ends in an activation."""
    activation = getattr(source, "activation", None)
    if activation not in (None, keras.activations.linear) and not isinstance(source, keras.layers.Activation):
        name = getattr(activation, "__name__", activation)
        raise NoRuleError(
            f"A layer with an activation is not linear, so it has no adjoint. Build it with `activation=None` and put a "
            f'`keras.layers.Activation("{name}")` behind it, then take the adjoint of the linear layer alone. '
            f"Received: activation={name!r}, {describe(source)}"
        )


def copied(source, *, keep_bias):
    """A copy of a layer with its own variables, without the bias if nobody will read it."""
    config = {**source.get_config(), "name": f"{source.name}_copy"}  # in PyTorch parameters of equal paths would be one
    if not keep_bias and "use_bias" in config:
        config["use_bias"] = False
    copy = type(source).from_config(config)
    copy.build_from_config(source.get_build_config())
    values = {variable.name: variable for variable in source.weights}
    for variable in copy.weights:
        copy_value(variable, values[variable.name])
    if hasattr(copy, "finalize_state"):
        copy.finalize_state()
    return copy


def original_of(layer):
    """The source of a layer that is an exact adjoint already."""
    if not isinstance(layer, Tied):
        return _SOURCES.get(layer)
    if layer.exact:
        return layer.source
    raise NoRuleError(
        f"This layer was given other channels, so it is not the adjoint of its source, and its own adjoint is not known. "
        f"Take the adjoint of `layer.source`. Received: {describe(layer)}"
    )


def probe_shape(source, recorded=None):
    """An input shape to try a layer with: a recorded one, small where it is unknown; or `None`."""
    shapes = recorded if recorded is not None else recorded_shapes(source)
    if not shapes:
        return None
    batch, *rest = shapes[0]
    return (batch or 2, *(size or _UNKNOWN_SIZE for size in rest))


def _check_user_rule(source, result):
    """Refuse a registered rule whose result is not the adjoint of `source`."""
    shape = probe_shape(source)
    if shape is None:
        raise NoRuleError(
            f"A registered rule is tested before it is used, for which the input shape must be known. Call the layer once, "
            f"or build it with `source.build(input_shape)`. Received: {describe(source)}"
        )
    dtype = operator_dtype(source)
    generator = np.random.default_rng(0)
    x = random_probe(shape, dtype, generator)
    with linear_part(source) as linear:
        forward_x = evaluate(linear, x, dtype)
    y = random_probe(forward_x.shape, dtype, generator)
    backward_y = evaluate(result, y, dtype)
    if backward_y.shape != x.shape:
        reason = f"it returns shape {backward_y.shape} for an input of shape {x.shape}"
    else:
        residual = residual_of(forward_x, y, x, backward_y)
        tolerance = derived_tolerance(dtype, x.size, forward_x.size)
        if residual <= tolerance:
            return
        reason = f"its residual is {residual:.1e}, and rounding explains no more than {tolerance:.1e}"
    raise NoRuleError(
        f"The rule registered for `{type(source).__name__}` fails the adjoint test, so it is not used: {reason}. Compare "
        f"the two with `keras_adjoint.check_adjoint(source, result)`. Received: {describe(source)}"
    )
