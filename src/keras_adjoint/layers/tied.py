"""The base of all tied layers: it holds the source, reads its kernel at call, and keeps the tie through a model's life."""

import inspect
import math
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import TieError
from keras_adjoint.keras_files import read_from_file_before, reads_file, reads_hdf5, restores_copy
from keras_adjoint.keras_internals import calls_of, set_own_trainable, set_trainable
from keras_adjoint.layers.copied_sources import warn_behind_copy
from keras_adjoint.layers.copying import COMPILERS
from keras_adjoint.layers.files import announce
from keras_adjoint.layers.inputs import (
    Expected,
    accept,
    check_arrays,
    check_switches,
    check_symbolic,
    check_tensors,
    check_whole,
    name_of_dtype,
)
from keras_adjoint.layers.kernel import check_readable, float_policy, read_kernel
from keras_adjoint.layers.options import boolean
from keras_adjoint.layers.registry import describe
from keras_adjoint.layers.sharing import owns_everything, read_config, share
from keras_adjoint.layers.sizes import Records, size_of_call
from keras_adjoint.layers.whole_shapes import check_whole_shape
from keras_adjoint.layers.wrapped import WRAPPERS
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import MadeUntraced, current

_ABSENT = object()


class Tied(keras.layers.Layer, metaclass=MadeUntraced):
    """The adjoint of a source layer, computed from the source's own variables.

    A subclass says in `apply_adjoint` how Aᵀ acts on a channels-last tensor. This class does for all of them what ties need:
    the source is a sub-layer, so Keras counts and stores its kernel once; its identity is written into every file; the
    layer's own `trainable` stops at the source; options are kept in the config.

    Args:
        source: A built layer.
        tied: Whether the source belongs to another model. With `False` it is a copy that this layer owns, which then
            freezes and unfreezes with it.
        recorded: Input shapes of the source that would be lost with the model it was part of. For deserialisation.
        dtype: A dtype policy; by default the source's.
    """

    options: tuple[str, ...] = ("tied", "name")
    kernel_name = "kernel"
    announces = True  # in `get_config`
    suffix = "adjoint"  # of names that say what a layer belongs to
    needs_output_size: Any = False  # whether y alone does not determine the size of Aᵀ y
    needs_switches: Any = False  # whether it is linear for given switches alone

    def __init__(
        self,
        source: keras.layers.Layer,
        *,
        tied: bool = True,
        recorded: Sequence[Sequence[Any]] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        check_readable(source)
        current()  # imported here: `torch.compile` cannot import in its trace
        source.built = True  # a source that passed without being built has nothing to build
        kwargs["name"] = name_after(source, self, kwargs.get("name"))
        super().__init__(dtype=float_policy(source) if dtype is None else dtype, **kwargs)
        self.source = source
        self.tied = boolean("tied", tied)
        self._recorded = tuple(tuple(shape) for shape in recorded or ())
        # Past Keras' tracking.
        self.__dict__.update(records=Records(((source, 0),)), calls_of_source=calls_of(source))
        self.__dict__.update(process_groups=current().PROCESS_GROUPS)
        self._read_source = False
        self.data_format = getattr(source, "data_format", "channels_last")
        self.supports_masking = source.supports_masking
        if tied:
            share(source)

    # --- the operator

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        y = args[0] if args else kwargs.get("y", self)
        if not hasattr(y, "dtype") or isinstance(y, (np.ndarray, np.generic)):  # what every call passes costs no frame
            check_tensors(self, y)
        if self.needs_switches:
            check_switches(self, y, args[1] if len(args) > 1 else kwargs.get("switches"))
        is_symbolic = isinstance(y, keras.KerasTensor)
        if is_symbolic and self.tied and calls_of(self) and self.source.weights:
            warn_behind_copy(self, self.source, y)
        if len(args) > 1 or kwargs:
            check_arrays(self, (args[1:], kwargs))
            args, kwargs = _with_keyword(self, args, kwargs)
        if kwargs.get("output_size") is not None or (is_symbolic and self.needs_output_size):
            if is_symbolic:
                check_symbolic(self, y)
            if kwargs.get("output_size") is not None:
                _check_takes_size(self, kwargs["output_size"])
            kwargs = with_size(self, y, kwargs)
        try:
            return super().__call__(*args, **kwargs)
        except Exception:  # of whatever kind a backend has for what it cannot take
            check_whole(self, (args, kwargs))
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras says anew in every call that a layer is built and was called; tracking that takes a seventh of a small one.
        if self.__dict__.get(name, _ABSENT) is value:
            return
        if name == "trainable":  # which TensorFlow would skip, see `set_trainable`
            type(self).trainable.fset(self, value)  # type: ignore[attr-defined]
        else:
            super().__setattr__(name, value)

    def call(self, y: Tensor) -> Tensor:
        return self.apply_adjoint(accept(self, y))

    @property
    def expected(self) -> Expected:
        """The shape that y must have. Subclasses say it."""
        return Expected()

    def apply_adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y. Subclasses implement it."""
        raise NotImplementedError

    def apply_forward(self, x: Tensor) -> Tensor:
        """A x: the source without its bias and activation, at inference."""
        return linear_part(self.source)(x)

    @property
    def exact(self) -> bool:
        """Whether this layer is the adjoint of its source, rather than something made from it."""
        return True

    def read(self, name: str | None = None) -> Tensor:
        """A kernel of the source, as it is now, in this layer's compute dtype."""
        source, name = self.source, name or self.kernel_name
        is_plain = source.built and source.quantization_mode is None
        variable = getattr(source, name) if is_plain else read_kernel(source, name)
        if self.process_groups:
            current().check_trained(variable, (self, source))
        kernel = ops.convert_to_tensor(variable)
        return kernel if name_of_dtype(kernel.dtype) == self.compute_dtype else ops.cast(kernel, self.compute_dtype)

    def recorded_shapes(self) -> list[Shape]:
        """Input shapes of the source, those from before it was saved included."""
        return list(dict.fromkeys((*self.records.shapes(), *self._recorded)))

    def keep_recorded(self, shapes: Sequence[Shape]) -> None:
        """Go by these input shapes as well, which what the source was copied from recorded."""
        self._recorded = (*self._recorded, *shapes)

    def read_sizes_of(self, wrapper: keras.layers.Layer, axes: int) -> None:
        """Go by what a layer around the source records, which has some axes of steps behind the batch axis."""
        records = Records(((wrapper, axes), *self.records.layers))
        self.__dict__.update(records=records, calls_of_source=calls_of(wrapper))

    def shape_of_x(self, recorded: Shape) -> Shape:
        """Shape of x in A x, for an input shape of the source."""
        return recorded

    def compute_output_spec(self, y: keras.KerasTensor, **kwargs: Any) -> keras.KerasTensor:
        check_symbolic(self, y)
        return keras.KerasTensor(self.compute_output_shape(tuple(y.shape), **kwargs), dtype=self.compute_dtype)

    def size_for_graph(self, y: keras.KerasTensor) -> Shape | None:
        """The `output_size` that a symbolic call is recorded with, or `None` where it says nothing."""
        return None

    # --- the tie

    def add_weight(self, *args: Any, **options: Any) -> keras.Variable:
        try:
            return super().add_weight(*args, **options)
        except Exception as error:
            if current().is_concrete([]):
                raise
            raise TieError(
                f"The adjoint of `{self.source.name}` has variables of its own, which cannot be made in code that is being "
                f"compiled, by {COMPILERS} for example. Make it outside of that code, and only call it there. "
                f"Received: {describe(self.source)}"
            ) from error

    def count_params(self) -> int:
        """Number of parameters of this layer, without those of a source that belongs to another model."""
        theirs = () if self.owns_source else {id(weight) for weight in self.source.weights}
        return sum(math.prod(weight.shape) for weight in self.weights if id(weight) not in theirs)

    @property
    def trainable(self) -> bool:
        """Whether this layer's own weights are trained. The source has a switch of its own, unless it is a copy."""
        return bool(super().trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        set_own_trainable(self, bool(value))
        if self.owns_source and not reads_file():
            set_trainable(self.source, bool(value))

    def settle_switch(self) -> None:
        """Freeze a source that was read from a file and proved to be this layer's own, if this layer is frozen."""
        if self.owns_source and not self.trainable:
            set_trainable(self.source, False)

    @property
    def owns_source(self) -> bool:
        """Whether the source belongs to this layer: as a copy, or because the model it was part of was not loaded."""
        return not self.tied or (self._read_source and not calls_of(self.source))

    @property
    def has_kernel_to_lose(self) -> bool:
        """Whether the source has, or may yet have, variables that a copy of it would not share."""
        return bool(self.source.weights) or not self.source.built

    def get_config(self) -> dict[str, Any]:
        announce(self)  # where it is called in a nested model and outside of it, see `sharing`
        return {
            **super().get_config(),
            "source": keras.saving.serialize_keras_object(self.source),
            "tied": self.tied,
            "recorded": [list(shape) for shape in self.recorded_shapes()],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if owns_everything():
            config["tied"] = False
        read_source = not read_from_file_before(config["source"])
        config["source"] = read_config(config["source"])
        layer = cls(**config)
        if layer.tied and not reads_file() and layer.has_kernel_to_lose:
            warnings.warn(_untied(layer.name, layer.source.name), stacklevel=2)
        layer._read_source = read_source
        if not reads_file():
            layer.settle_switch()
        return layer

    def load_own_variables(self, store: Any) -> None:
        # Called when all layers of a file exist. Only then is it known whether the source is one of them.
        super().load_own_variables(store)
        self.settle_switch()
        if self.tied and self.owns_source and restores_copy() and self.has_kernel_to_lose:
            warnings.warn(
                f"`{self.name}` was tied to the kernel of `{self.source.name}`. Its copy has a kernel of its own: `pickle` and "
                f"`copy.deepcopy` copy Keras models and layers one at a time, also those in a list or in a PyTorch module. To "
                f"keep the tie, put both into one `keras.Model` and copy that, or make a decoder of the copied encoder.",
                stacklevel=2,
            )


def _untied(name: str | None, source: str | None) -> str:
    """The warning that an adjoint of this name is read from a config without the other layers of its model."""
    if reads_hdf5():
        return (
            f"`{name}` was tied to the kernel of `{source}`. As loaded it is not: HDF5 files of whole models store no shared "
            f"layers, so it got a kernel of its own. Save the model as a `.keras` file to keep the tie, or as an HDF5 file of "
            f"weights alone (`model.save_weights`)."
        )
    return (
        f"`{name}` was tied to the kernel of `{source}`. Its copy is not: `clone_model` and `from_config` copy layer by layer, "
        f"so it got a kernel of its own. Use `keras_adjoint.clone_tied(model)` to keep the tie, or "
        f"`adjoint(layer, tied=False)` where none is wanted."
    )


# The adjoints of each source by their names. Keras counts names per thread, and does not count those read from a file.
_NAMED: weakref.WeakKeyDictionary[keras.layers.Layer, weakref.WeakValueDictionary[str, Tied]] = (
    weakref.WeakKeyDictionary()
)
_NAMING = threading.Lock()


def name_after(source: keras.layers.Layer, adjoint: Tied, name: str | None) -> str:
    """The given name of an adjoint, or one that says what it is the adjoint of, in every table that shows names."""
    with _NAMING:
        taken = _NAMED.setdefault(source, weakref.WeakValueDictionary())
        base = f"{source.name}_{adjoint.suffix}"
        found = name
        while found is None or (name is None and found in taken):
            number = keras.backend.get_uid(base)
            found = base if number == 1 else f"{base}_{number - 1}"
        taken[found] = adjoint
    return found


def with_size(layer: Any, y: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a call of an adjoint layer, with the `output_size` as Keras takes it, or as the graph records it."""
    is_symbolic, size = isinstance(y, keras.KerasTensor), size_of_call(kwargs.get("output_size"))
    if size is not None:
        check_whole_shape(layer, y, size)
    if size is None and is_symbolic and layer.needs_output_size:
        # The size that is known now is written into the graph: the source may record others later.
        size = layer.size_for_graph(y)
    elif size is not None and not is_symbolic:
        size = current().static(size)
    return kwargs if size is None and "output_size" not in kwargs else {**kwargs, "output_size": size}


def exact_source(layer: Any) -> keras.layers.Layer | None:
    """What an adjoint layer is the adjoint of; `None` of any other, also of one that a policy made from its source."""
    return layer.source if isinstance(layer, Tied) and layer.exact else None


def linear_part(layer: keras.layers.Layer) -> Callable[[Any], Any]:
    """The linear part of a layer as a function: no bias, no activation, at inference. The layer stays as it is."""

    def linear(x: Any) -> Any:
        forward = without_additions(layer)
        at_zero = call_at_inference(forward, keras.tree.map_structure(ops.zeros_like, x))
        return keras.tree.map_structure(lambda y, y0: y - y0, call_at_inference(forward, x), at_zero)

    return linear


def without_additions(layer: keras.layers.Layer) -> keras.layers.Layer:
    """An object that computes what `layer` does without its bias and activation, or without those of the layer inside."""
    if isinstance(layer, WRAPPERS):
        return stand_in(layer, {"layer": without_additions(layer.layer)})
    left_out = {name: part for name, part in _WITHOUT.items() if getattr(layer, name, None) is not None}
    return stand_in(layer, {name: part(layer) for name, part in left_out.items()})


# What is no part of the linear operator, or leaves a trace in the layer, and what it is called without.
_WITHOUT: dict[str, Callable[[Any], Any]] = {
    "activation": lambda layer: keras.activations.linear,
    "bias": lambda layer: ops.zeros(layer.bias.shape, layer.compute_dtype),
    "activity_regularizer": lambda layer: None,
}


def stand_in(layer: keras.layers.Layer, attributes: dict[str, Any]) -> keras.layers.Layer:
    """An object that computes what `layer` does with other attributes, from the same variables, and owns nothing.

    The layer itself may be in use in another thread, so it keeps its attributes. Written past Keras' attribute tracking,
    which would take a new value for a new part of the layer.
    """
    if not attributes:
        return layer
    other = object.__new__(type(layer))
    vars(other).update(vars(layer))
    vars(other).update(attributes)
    return other


def call_at_inference(layer: keras.layers.Layer, x: Any, **recorded: Any) -> Any:
    """What a layer gives for `x` when it is not trained. `training` is passed only to layers that take it."""
    options = {**recorded, "training": False} if _takes_training(layer.__class__) else recorded
    with current().convolving(layer, keras.tree.flatten(x)):
        return layer(x, **options)


def _check_takes_size(layer: Any, output_size: Any) -> None:
    """Raise a ValueError if a tied layer gives one size only."""
    if not _takes_output_size(layer.__class__):
        raise ValueError(
            f"`{layer.name}` takes no `output_size`: the size of what it gives follows from that of its input. Leave it "
            f"out. Received: output_size={output_size!r}, source='{layer.source.name}' of type {type(layer.source).__name__}"
        )


@lru_cache
def _takes_output_size(layer_class: type[keras.layers.Layer]) -> bool:
    parameters = inspect.signature(layer_class.call).parameters.values()
    return any(each.name == "output_size" or each.kind is each.VAR_KEYWORD for each in parameters)


def _with_keyword(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with an `output_size` by its keyword, if it came second."""
    if len(args) != 2 or "output_size" in kwargs or not _takes_size_second(layer.__class__):
        return args, kwargs
    return args[:1], {"output_size": args[1], **kwargs}


@lru_cache
def _takes_size_second(layer_class: type[keras.layers.Layer]) -> bool:
    return list(inspect.signature(layer_class.call).parameters)[2:3] == ["output_size"]


@lru_cache
def _takes_training(layer_class: type[keras.layers.Layer]) -> bool:
    return "training" in inspect.signature(layer_class.call).parameters
