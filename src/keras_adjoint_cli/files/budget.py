"""The memory that a model file may ask for: by the sizes in its archive, by its weights, and by the tensors of its layers."""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras

from keras_adjoint.keras_files import watched_building
from keras_adjoint.models.graph import trace
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.hdf5 import elements_in
from keras_adjoint_cli.files.limits import PARSED, Limits, unpacked_size

WEIGHTS = "model.weights.h5"
SLACK = 64 * 10**6  # bytes of variables that a file need not hold, such as states of random numbers
AT_ONCE = 4  # tensors that the test of a layer holds: x, A x, y and Aᵀ y


class Budget:
    """What a model file claims, held against the limits before it is built, and while it is.

    Args:
        file: The model file.
        limits: The `Limits`.

    Attributes:
        refusal: The error that was raised while the model was built; Keras wraps it into errors of its own.
    """

    def __init__(self, file: Path, limits: Limits) -> None:
        self.file, self.limits = file, limits
        self.refusal: Unusable | None = None
        self.size = file.stat().st_size
        self.held_in_file = 0  # numbers
        self.weights = 0  # bytes of the variables so far

    def read_config(self) -> Any:
        """The model's configuration; raises an `Unusable` if the file unpacks to more than it may."""
        if not zipfile.is_zipfile(self.file):
            self.held_in_file = elements_in(self.file, self.file)
            with h5py.File(self.file, "r") as opened:
                text = opened.attrs.get("model_config", "{}")
            return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)  # as Keras reads it
        allowed = self.limits.memory_for(self.size)
        with zipfile.ZipFile(self.file) as archive:
            self.limits.check_memory(self.file, unpacked_size(archive), "what is packed into it", allowed)
            config_size = archive.getinfo("config.json").file_size
            self.limits.check_memory(self.file, PARSED * config_size, "its config.json", allowed)
            if WEIGHTS not in archive.namelist():  # Keras would read an archive in the archive, too, and writes none
                raise Unusable(f"{self.file} cannot be loaded: it has no {WEIGHTS}.")
            self.held_in_file = elements_in(io.BytesIO(archive.read(WEIGHTS)), self.file)
            return json.loads(archive.read("config.json"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, Keras makes no variable and no symbolic tensor beyond the limits."""
        with watched_building(self.add_variable, self.look_at_tensor):
            yield

    def add_variable(self, shape: Sequence[int], dtype: str) -> None:
        """Count a variable; a model has no more of them than its file has numbers for, but for a few."""
        self.weights += bytes_of(shape, dtype)
        allowed = self.limits.memory
        if "memory" not in self.limits.given:
            allowed = min(allowed, 8 * self.held_in_file + SLACK)
        self.check(self.weights, "the weights of its layers", allowed)

    def look_at_tensor(self, shape: Sequence[int | None], dtype: str) -> None:
        taken = AT_ONCE * bytes_of(shape, dtype)
        self.check(taken, f"the test of a layer with a tensor of shape {tuple(shape)}", self.limits.memory)

    def check_run(self, model: keras.Model) -> None:
        """Raise an `Unusable` if a run of the whole model, in which Keras keeps the tensors of all layers, takes too much."""
        try:
            tensors = [tensor for call in trace(model).calls for tensor in call.outputs]
        except Exception:  # it has no graph, which whoever runs it says better
            return
        taken = sum(bytes_of(tensor.shape[1:], tensor.dtype) for tensor in tensors)
        self.limits.check_memory(self.file, taken, "the tensors of all its layers")

    def check_windows(self, model: keras.Model) -> None:
        """Raise an `Unusable` if a layer pads its input to more than fits, so that its window has room in it.

        Such an input is neither a weight nor a tensor between layers.
        """
        try:
            calls = trace(model).calls
        except Exception:  # it has no graph, which whoever runs it says better
            return
        for call in calls:
            layer = call.operation
            while isinstance(layer, keras.layers.Wrapper):
                layer = layer.layer
            if getattr(layer, "padding", "valid") in ("same", "causal"):
                for tensor in call.inputs:
                    padded = AT_ONCE * bytes_of(padded_shape(layer, tensor.shape), tensor.dtype)
                    self.limits.check_memory(self.file, padded, f"the padded input of {layer.name}")

    def check(self, claimed: int, what: str, allowed: int) -> None:
        try:
            self.limits.check_memory(self.file, claimed, what, allowed)
        except Unusable as refusal:
            self.refusal = refusal
            raise


def padded_shape(layer: Any, shape: Sequence[int | None]) -> list[int | None]:
    """The shape of a layer's input with the padding that a window needs at most, the layer's kernel or its pool."""
    window: Sequence[int] = getattr(layer, "pool_size", getattr(layer, "kernel_size", ()))
    dilation: Sequence[int] = getattr(layer, "dilation_rate", (1,) * len(window))
    first = len(shape) - len(window) - (getattr(layer, "data_format", None) != "channels_first")
    padded = list(shape)
    for axis, (taps, step) in enumerate(zip(window, dilation, strict=True), first):
        padded[axis] = (padded[axis] or 1) + (taps - 1) * step
    return padded


def bytes_of(shape: Sequence[Any], dtype: str) -> int:
    """The size of a tensor; sizes that are not known count as one."""
    bits = re.search(r"\d+", dtype)
    whole = [size for size in shape if isinstance(size, int)]
    return math.prod(whole) * max(1, (int(bits[0]) if bits else 32) // 8)
