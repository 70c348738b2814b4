"""The copy of a layer that an adjoint with `tied=False` owns: the same operator, which shares no variable or attribute."""

import keras
from keras.layers import Layer

from keras_adjoint.errors import KerasAdjointError, TieError, in_short
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.layers.call_pattern import CallPattern, recorded_patterns
from keras_adjoint.layers.copying import copying, is_of_keras
from keras_adjoint.layers.linear_source import prober, unchanged
from keras_adjoint.layers.linearity import NotLinear, agree, minus
from keras_adjoint.layers.registry import describe
from keras_adjoint.layers.sharing import copy_state, owning_everything, read_config
from keras_adjoint.ops.backend import current

WITHOUT_BIAS = {"use_bias": False, "bias_axes": None}  # how layers are made without one


def own_copy(source: Layer, *, keep_bias: bool = True) -> Layer:
    """A copy of a layer that shares nothing with it, on request without a bias that will not be read.

    Raises:
        TieError: If Keras cannot make the layer anew from its config, or makes one that computes something else.
    """
    with owning_everything(), copying(source):
        try:
            config = keras.saving.serialize_keras_object(source)
            options = config["config"]
            options["name"] = f"{source.name}_copy"  # in PyTorch parameters of equal paths would be one
            if not keep_bias:
                options.update({option: value for option, value in WITHOUT_BIAS.items() if option in options})
            copy: Layer = read_config(config)
            copy_state(copy, source, by="name")
        except KerasAdjointError:
            raise
        except Exception as error:  # of whatever kind the layer's code raises
            raise TieError(
                f"No copy of `{source.name}` can be made from its config: {type(error).__name__}, {in_short(error)}. Write a "
                f"`get_config` with all arguments of `{type(source).__name__}`, or leave `tied=False` out. "
                f"Received: tied=False, {describe(source)}"
            ) from error
    _check_same(copy, source)
    return copy


def _check_same(copy: Layer, source: Layer) -> None:
    """Raise a TieError if a copy is another operator than its original: what was set later need not be in the config."""
    if all(is_of_keras(type(each)) for each in (source, *layers_inside(source))):
        return
    with current().eagerly(), unchanged(source):
        for pattern in recorded_patterns(source):
            try:
                _check_same_call(copy, source, pattern)
            except NotLinear as found:
                raise TieError(
                    f"A copy of `{source.name}` that is made from its config is another operator: {Exception.__str__(found)}. "
                    f"Attributes that were set after it was made must be in `{type(source).__name__}.get_config`. Else leave "
                    f"`tied=False` out. Received: tied=False, {describe(source)}"
                ) from None


def _check_same_call(copy: Layer, source: Layer, pattern: CallPattern) -> None:
    """Raise a NotLinear unless the two give the same, but for a constant, if the original gives anything at all."""
    shapes = [shape[1:] for shape in pattern.input_shapes]
    original, other = (prober(layer, pattern, shapes) for layer in (source, copy))
    xs = original.random()
    try:
        expected = minus(original(xs), original.of_zeros())
    except NotLinear:
        return  # what the layer cannot do is said where it is tested
    what = "of random numbers it gives something else than the layer itself"
    agree(minus(other(xs), other.of_zeros()), expected, original.rounding, what)
