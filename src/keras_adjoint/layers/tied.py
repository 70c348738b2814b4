"""The base of all tied layers: it holds the source, reads its kernel at call, and keeps the tie through a model's life."""

import warnings

import keras
from keras import ops

from keras_adjoint.channels import adapter_matrix
from keras_adjoint.layers import bias as biases
from keras_adjoint.layers.kernel import check_readable, float_policy, read_kernel
from keras_adjoint.layers.sizes import recorded_shapes, resolve, spatial, standardize_output_size
from keras_adjoint.sharing import keeps_identities, share

CHANNEL_METHODS = ("repeat", "average", "truncate", "pad", "learned")


class Tied(keras.layers.Layer):
    """The adjoint of a source layer, computed from the source's own variables.

    A subclass says in `apply_adjoint` how Aᵀ acts on a channels-last tensor. This class does for all of them what ties need:
    the source is a sub-layer, so Keras counts and stores its kernel once; its identity is written into every file; the
    layer's own `trainable` stops at the source; options are kept in the config.

    Args:
        source: A built layer.
        tied: Whether the source belongs to somebody else. With `False` it is a copy that this layer owns, which then
            freezes and thaws with it.
        recorded: Input shapes of the source that would be lost with the model it was part of. For deserialisation.
        dtype: A dtype policy; by default the source's.
    """

    options: tuple[str, ...] = ("tied", "name")
    kernel_name = "kernel"

    def __init__(self, source, *, tied=True, recorded=None, dtype=None, **kwargs):
        check_readable(source)
        source.built = True  # a source that passed without being built has nothing to build
        super().__init__(dtype=float_policy(source) if dtype is None else dtype, **kwargs)
        self.source = source
        self.tied = tied
        self._recorded = tuple(tuple(shape) for shape in recorded or ())
        self.data_format = getattr(source, "data_format", "channels_last")
        self.supports_masking = source.supports_masking
        if tied:
            share(source)

    # --- the operator

    def call(self, y):
        return self.apply_adjoint(y)

    def apply_adjoint(self, y):
        """Aᵀ y. To be written by the subclass."""
        raise NotImplementedError

    def apply_forward(self, x):
        """A x: the source without its bias and activation, at inference."""
        with linear_part(self.source) as linear:
            return linear(x)

    @property
    def exact(self):
        """Whether this layer is the adjoint of its source, rather than something made from it."""
        return True

    def read(self, name=None):
        """A kernel of the source, as it is now, in this layer's compute dtype."""
        return ops.cast(read_kernel(self.source, name or self.kernel_name), self.compute_dtype)

    def recorded_shapes(self):
        """Input shapes of the source, those of earlier lives included."""
        return list(dict.fromkeys((*recorded_shapes(self.source), *self._recorded)))

    def compute_output_spec(self, y, **kwargs):
        return keras.KerasTensor(self.compute_output_shape(tuple(y.shape), **kwargs), dtype=self.compute_dtype)

    # --- the tie

    @property
    def trainable(self):
        """Whether this layer's own weights are trained. The source has a switch of its own, unless it is a copy."""
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)
        for variable in self._trainable_variables:
            variable.trainable = self._trainable
        if not self.tied:
            self.source.trainable = self._trainable

    def get_config(self):
        return {
            **super().get_config(),
            "source": keras.saving.serialize_keras_object(self.source),
            "tied": self.tied,
            "recorded": [list(shape) for shape in self.recorded_shapes()],
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if config["tied"] and not keeps_identities():
            name = config["source"]["config"].get("name")
            warnings.warn(
                f"`{config.get('name')}` was tied to the kernel of `{name}`. Its copy is not: `clone_model` and `from_config` "
                f"copy layer by layer, so it got a kernel of its own. Use `keras_adjoint.clone_tied(model)` to keep the tie, "
                f"or `adjoint(layer, tied=False)` where none is wanted.",
                stacklevel=2,
            )
        config["source"] = keras.saving.deserialize_keras_object(config["source"])
        return cls(**config)


class TiedChannels(Tied):
    """A tied layer whose output has channels, so that biases and other numbers of channels make sense.

    Args:
        source: A built layer.
        bias: "none"; "own", a new trainable bias; "subtract", Aᵀ(y − b) with the source's bias b; "repeat" or
            "average", a new trainable bias that starts from the source's; "learned", a trainable map of it.
        channels: Number of output channels, if it shall not be the source's number of input channels.
        channel_method: How the adjoint's channels x become `channels` ones, x ↦ x M: "repeat" copies them in turn,
            "average" takes means of every n-th, "truncate" drops the last, "pad" appends zeros, and "learned" is a
            trainable M that starts as one of the first two. Copies and means keep the scale of the output.
    """

    options = ("bias", "channels", "channel_method", *Tied.options)

    def __init__(self, source, *, bias="none", channels=None, channel_method="learned", **kwargs):
        biases.check_mode(bias, source)
        if channel_method not in CHANNEL_METHODS:
            names = ", ".join(CHANNEL_METHODS)
            raise ValueError(f"`channel_method` must be one of {names}. Received: channel_method={channel_method!r}")
        if channels is not None and (not isinstance(channels, int) or channels < 1):
            raise ValueError(f"`channels` must be a positive integer. Received: channels={channels!r}")
        super().__init__(source, **kwargs)
        self.bias_mode = bias
        self.channels = channels
        self.channel_method = channel_method
        self._bias = self._channel_map = None
        if channels is not None:
            self._channel_start()

    def source_channels(self):
        """Channels of the source's input, which Aᵀ y has by default. To be written by the subclass."""
        raise NotImplementedError

    def _channel_start(self):
        size = self.source_channels()
        learned = self.channel_method == "learned"
        method = biases.growing_or_shrinking(size, self.channels) if learned else self.channel_method
        return adapter_matrix(size, self.channels, method)

    @property
    def exact(self):
        return self.channels is None

    def build(self, input_shape):
        if self.channels is not None:
            start = self._channel_start()
            if self.channel_method == "learned":
                weight = self.add_weight(name="channel_map", shape=start.shape, initializer=biases.constant(start))
                self._channel_map = lambda: weight
            else:
                self._channel_map = lambda: ops.convert_to_tensor(start, dtype=self.compute_dtype)
        size = self.channels or self.source_channels()
        self._bias = biases.add_weights(self, self.bias_mode, self.source, size)

    def call(self, y):
        return self._with_options(y, self.apply_adjoint)

    def _with_options(self, y, apply):
        """Aᵀ between the steps that the options add, all of them on channels-last tensors."""
        y = self.to_channels_last(y)
        if self.bias_mode == "subtract" and self.source.bias is not None:
            y = y - ops.cast(self.source.bias, y.dtype)
        x = apply(y)
        if self._channel_map is not None:
            x = x @ ops.cast(self._channel_map(), x.dtype)
        if self._bias is not None:
            x = x + ops.cast(self._bias(), x.dtype)
        return self.from_channels_last(x)

    def to_channels_last(self, y):
        return ops.moveaxis(y, 1, -1) if self.data_format == "channels_first" else y

    def from_channels_last(self, x):
        return ops.moveaxis(x, -1, 1) if self.data_format == "channels_first" else x

    def with_channels(self, batch, sizes):
        """A full output shape."""
        channels = (self.channels or self.source_channels(),)
        return (batch, *sizes, *channels) if self.data_format == "channels_last" else (batch, *channels, *sizes)

    def get_config(self):
        options = {"bias": self.bias_mode, "channels": self.channels, "channel_method": self.channel_method}
        return {**super().get_config(), **options}


class Sized:
    """Mix-in for tied layers whose output size the input does not always determine.

    The class that it is mixed into has `windows`, one `Window` per spatial axis.

    Args:
        output_size: The sizes of the output's spatial axes, or a whole shape; by default what the source recorded.
    """

    def __init__(self, source, *, output_size=None, **kwargs):
        super().__init__(source, **kwargs)
        self.rank = len(self.windows)
        self.output_size = standardize_output_size(output_size, self.rank, self.data_format)

    def resolve(self, outputs, output_size=None):
        """The spatial size of Aᵀ y for `y` of spatial size `outputs`."""
        asked = standardize_output_size(output_size, self.rank, self.data_format) or self.output_size
        pairs = zip(self.windows, outputs, strict=True)
        return resolve(
            outputs,
            [(None, None) if count is None else window.possible_sizes(count) for window, count in pairs],
            asked=asked,
            recorded=[spatial(shape, self.data_format) for shape in self.recorded_shapes()],
            source=self.source,
        )

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size}


class linear_part:
    """Context manager that gives the linear part of a layer as a function: no bias, no activation, at inference."""

    def __init__(self, layer):
        self.layer = layer

    def __enter__(self):
        # Written past Keras' attribute tracking, which would take a new value for a new part of the layer.
        self.own = vars(self.layer)
        self.kept = {name: self.own[name] for name in ("activation", "bias") if self.own.get(name) is not None}
        if "activation" in self.kept:
            self.own["activation"] = keras.activations.linear
        if "bias" in self.kept:
            self.own["bias"] = ops.zeros(self.kept["bias"].shape, self.layer.compute_dtype)
        return self

    def __exit__(self, *exception):
        self.own.update(self.kept)

    def __call__(self, x):
        return self._apply(x) - self._apply(ops.zeros_like(x))

    def _apply(self, x):
        return self.layer(x, training=False) if self.layer._call_has_training_arg else self.layer(x)
