"""The adjoint of a convolution: the same kernel, applied from the outputs to the inputs."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, Self

import keras

from keras_adjoint.errors import TieError
from keras_adjoint.layers.inputs import accept
from keras_adjoint.layers.kernel import kernel_shape
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.sized import Sized, windows_of
from keras_adjoint.layers.sizes import shape_of, spatial
from keras_adjoint.layers.tied_channels import TiedChannels
from keras_adjoint.layers.whole_shapes import check_channels
from keras_adjoint.ops import Shape, Size, Tensor
from keras_adjoint.ops.algorithms.choose import adjoint_convolution, check_name, choose, prepared_adjoint
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.exporting import TRACING
from keras_adjoint.ops.geometry import CACHE_SIZE, Convolution, Window, convolution_of, is_known


@rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointConv(Sized, TiedChannels):
    """The transpose of a `Conv1D`, `Conv2D` or `Conv3D` layer, sharing its kernel, at the exact size of its input.

    The convolution is y[j, o] = Σ_t Σ_i K[t, i, o] x[j·s + t·d − b, i] for b zeros in front of x, and this layer
    computes x[p, i] = Σ_j Σ_t Σ_o [j·s + t·d − b = p] K[t, i, o] y[j, o] (Dumoulin and Visin 2016, section 4).

    Args:
        source: A built convolution with kernel of shape `(*taps, channels / groups, filters)`.
        output_size: See `Sized`.
        bias: See `TiedChannels`.
        channels: See `TiedChannels`.
        channel_method: See `TiedChannels`.
        algorithm: The name of an algorithm in `ops/algorithms/choose.py`; by default the one expected to be the fastest.
        tied: See `Tied`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape with batch and channels, or a tensor of that
            size.

    Input shape: `(batch, *outputs, filters)`, or `(batch, filters, *outputs)` for channels-first sources.
    Output shape: `(batch, *sizes, channels)`, or `(batch, channels, *sizes)`.

    Raises:
        SizeError: If a stride merges several sizes and neither the source nor the caller says which is meant.
        TieError: If `source` is not built, or its kernel cannot be read.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
    >>> features = conv(np.ones((1, 27, 28, 3)))
    >>> AdjointConv(conv)(features).shape
    (1, 27, 28, 3)
    """

    options = ("output_size", "algorithm", *TiedChannels.options)
    geometry: tuple[str, ...] = ("padding", "strides", "dilation_rate", "kernel_size", "groups", "data_format")

    def __init__(self, source: keras.layers.Layer, *, algorithm: str | None = None, **kwargs: Any) -> None:
        if algorithm is not None:
            check_name(algorithm)
        super().__init__(source, **kwargs)
        check_channels(
            self.asked_channels, self.channels or self.source_channels(), kwargs.get("output_size"), self.name
        )
        self.algorithm = algorithm
        self.groups = self.source_groups()
        # Past Keras, which would track what is in them. What the source records changes with its calls alone.
        self.__dict__.update(transposes={}, signature=current().signature)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        windows, taps = windows_of(self.source, "kernel_size"), kernel_shape(self.source, self.kernel_name)
        if tuple(window.taps for window in windows) != taps[: len(windows)]:
            raise TieError(
                f"`{self.source.name}` was built with a kernel of {taps[: len(windows)]} taps, and its `kernel_size` was set "
                f"to another one since. Build a new layer of this size. Received: kernel_size={self.source.kernel_size}"
            )
        return windows

    def follow_source(self) -> None:
        groups = self.source_groups()  # what is refused is refused in every call
        super().follow_source()
        self.__dict__.pop("windows", None)
        self.transposes.clear()
        self.groups = groups

    def source_groups(self) -> int:
        """Groups of the convolution.

        Raises:
            TieError: If they have been set to what the source was not built for. Keras computes with those that the kernel has.
        """
        source = self.source
        axis = -1 if source.data_format == "channels_last" else 1
        built_for = (getattr(source.input_spec, "axes", None) or {}).get(axis)
        of_group = kernel_shape(source, self.kernel_name)[-2]
        if built_for is not None and of_group * source.groups != built_for:
            raise TieError(
                f"`{source.name}` was built for {built_for} channels with {of_group} to a group, and its `groups` were set to "
                f"another number since. Build a new layer with these groups. Received: groups={source.groups}"
            )
        return int(source.groups)

    def source_channels(self) -> int:
        return kernel_shape(self.source, self.kernel_name)[-2] * self.source_groups()

    def call(self, y: Tensor, output_size: Any = None) -> Tensor:
        transpose = self._cached_transpose(y, output_size)
        if transpose is None:
            y = accept(self, y)
            transpose = self._transpose(y, output_size)
        if self._is_plain:
            return self.apply_transpose(y, transpose)
        return self.finished(self.apply_transpose(self.prepared(y), transpose))

    def apply_transpose(self, y: Tensor, transpose: Adjoint) -> Tensor:
        """Aᵀ y by `transpose`, the adjoint of the convolution as a function of y and a kernel."""
        return transpose(y, self.read())

    def _cached_transpose(self, y: Tensor, output_size: Any) -> Adjoint | None:
        """The adjoint convolution for tensors like y: all that depends on shapes is worked out in the first call.

        `None` for tensors of which some sizes may be unknown, or that are not in the compute dtype.
        """
        is_plain = output_size is None or (type(output_size) is tuple and all(map(is_known, output_size)))
        signature = self.signature(y) if is_plain and TRACING.format is None and hasattr(y, "shape") else None
        if signature is None:
            return None
        if self.state_of(self.source) != self.state:
            self.follow_source()
        transposes: dict[Any, Adjoint] = self.transposes
        key = signature, output_size, self.algorithm, len(self.calls_of_source)
        transpose = transposes.get(key)
        if transpose is None:
            if len(transposes) >= CACHE_SIZE:  # another thread may have added one
                transposes.clear()
            if accept(self, y) is not y:
                return None
            sizes = self.resolve(spatial(y.shape, self.data_format), output_size)
            problem = self.problem(sizes, y.shape[0], current().device_of(y))
            transpose = transposes[key] = prepared_adjoint(problem, self.algorithm)
        return transpose

    def _transpose(self, y: Tensor, output_size: Any = None) -> Adjoint:
        """The adjoint convolution for tensors of which some sizes may be unknown."""
        sizes = self.resolve(spatial(shape_of(y), self.data_format), output_size)
        return partial(adjoint_convolution, convolution=self.convolution(sizes), algorithm=self.algorithm)

    def convolution(self, sizes: Sequence[Size]) -> Convolution:
        """The geometry of the forward for inputs of spatial sizes `sizes`."""
        return convolution_of(tuple(sizes), self.windows, self.groups)

    def convolved_channels(self) -> tuple[int, int]:
        """(channels, filters) of the convolution."""
        return self.source_channels(), self.source_filters()

    def problem(self, sizes: Sequence[Size], batch: int | None, device: str) -> Problem:
        """The `Problem` of the adjoint convolution for a result of spatial sizes `sizes`."""
        return Problem(self.convolution(sizes), batch, *self.convolved_channels(), device, self.compute_dtype)

    def algorithms(self, sizes: Sequence[Size], batch: int | None, device: str) -> list[str]:
        """Names of the algorithms that run one after the other for a result of spatial sizes `sizes`."""
        return [self.algorithm or choose(self.problem(sizes, batch, device)).name]

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None) -> Shape:
        outputs = spatial(input_shape, self.data_format)
        return self.with_channels(input_shape[0], self.resolve(outputs, output_size))

    def get_config(self) -> dict[str, Any]:
        chosen = {} if self.algorithm is None else {"algorithm": self.algorithm, "backend": current().NAME}
        return {**super().get_config(), **chosen}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A layer as it was saved, without an algorithm that was chosen for another backend."""
        config = dict(config)
        if config.pop("backend", current().NAME) != current().NAME:
            del config["algorithm"]
        return super().from_config(config)
