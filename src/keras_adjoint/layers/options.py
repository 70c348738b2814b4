"""What the options of `adjoint` add to a tied layer: biases, other numbers of channels, and sizes."""

from keras import ops

from keras_adjoint.keras_internals import calls_of
from keras_adjoint.kernels.channels import adapter_matrix
from keras_adjoint.layers import bias as biases
from keras_adjoint.layers.sizes import recorded_shapes, resolve, spatial, standardize_output_size
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import CACHE_SIZE, is_known

CHANNEL_METHODS = ("repeat", "average", "truncate", "pad", "learned")


class TiedShift(Tied):
    """A tied layer whose source may add a bias of any shape, which can be subtracted but not replaced.

    Args:
        source: A built layer.
        bias: "none", or "subtract" for Aᵀ(y − b) with the source's bias b.
    """

    options = ("bias", *Tied.options)
    bias_modes = ("none", "subtract")

    def __init__(self, source, *, bias="none", **kwargs):
        if bias not in self.bias_modes:
            raise ValueError(
                f"The adjoint of `{type(source).__name__}` takes a bias of {' or '.join(self.bias_modes)}. "
                f"Received: bias={bias!r}"
            )
        super().__init__(source, **kwargs)
        self.bias_mode = bias

    def get_config(self):
        return {**super().get_config(), "bias": self.bias_mode}


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

    Raises:
        ValueError: If y has another number of axes or channels than the source's output.
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
        self._is_plain = bias == "none" and channels is None and self.data_format == "channels_last"
        # Checked by ourselves: an `input_spec` takes a tenth of an eager call of a small layer.
        self._filter_axis, self._filters = (1 if self.data_format == "channels_first" else -1), self.source_filters()
        self._axes = source.rank + 2 if hasattr(source, "rank") else None
        if channels is not None:
            self._channel_start()

    def source_channels(self):
        """Channels of the source's input, which Aᵀ y has by default. To be written by the subclass."""
        raise NotImplementedError

    def source_filters(self):
        """Channels of the source's output, which y must have."""
        return self.source.filters

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

    def compute_output_spec(self, y, **kwargs):
        self._check_shape(y.shape)
        return super().compute_output_spec(y, **kwargs)

    def _check_shape(self, shape):
        axes_fit = len(shape) > 1 if self._axes is None else len(shape) == self._axes
        if not axes_fit or shape[self._filter_axis] not in (self._filters, None):
            raise ValueError(
                f"`{self.name}` takes what `{self.source.name}` gives: {self._axes or 'two or more'} axes, of which axis "
                f"{self._filter_axis} has {self._filters} channels. Received: a tensor of shape {tuple(shape)}"
            )

    def _with_options(self, y, apply):
        """Aᵀ between the steps that the options add, all of them on channels-last tensors."""
        self._check_shape(y.shape)
        if self._is_plain:
            return apply(y)
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
        vars(self)["_resolved"] = {}  # past Keras, which would keep a list of what is in it

    def resolve(self, outputs, output_size=None):
        """The spatial size of Aᵀ y for `y` of spatial size `outputs`."""
        if output_size is not None or not all(map(is_known, outputs)):
            return self._resolve(outputs, output_size)
        # What the source recorded changes with its calls alone. Going through it takes as long as a small convolution.
        key = outputs, len(calls_of(self.source))
        sizes = self._resolved.get(key)
        if sizes is None:
            if len(self._resolved) == CACHE_SIZE:
                self._resolved.clear()
            sizes = self._resolved[key] = self._resolve(outputs, None)
        return sizes

    def _resolve(self, outputs, output_size):
        outputs = self._known(outputs)
        asked = standardize_output_size(output_size, self.rank, self.data_format) or self.output_size
        recorded = tuple(spatial(shape, self.data_format) for shape in self.recorded_shapes())
        known = all(map(is_known, (*outputs, *(asked or ()))))
        return (resolve if known else resolve.__wrapped__)(outputs, self.windows, asked, recorded, self.source.name)

    def _known(self, outputs):
        """`outputs` as integers along axes that this layer was never called with an unknown size of.

        PyTorch's tracer hands out tensors for sizes that it knows. They are taken for what they are only where the model
        says that they are fixed, so that the others stay free in the file.
        """
        if all(size is None or is_known(size) for size in outputs):
            return outputs
        calls = [spatial(shape, self.data_format) for shape in recorded_shapes(self)]
        fixed = [bool(sizes) and None not in sizes for sizes in zip(*calls, strict=True)] or [False] * self.rank
        known = current().known_size
        return tuple(known(size) if is_fixed else size for size, is_fixed in zip(outputs, fixed, strict=True))

    @property
    def needs_output_size(self):
        """Whether inputs of several sizes give the same number of outputs."""
        return any(window.stride > 1 for window in self.windows)

    def output_size_like(self, x):
        """The `output_size` that makes the output as large as the symbolic tensor `x`; `None` if that is not known."""
        sizes = spatial(x.shape, self.data_format)
        return None if None in sizes else sizes

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size}
