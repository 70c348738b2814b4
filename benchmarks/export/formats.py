"""The formats of `model.export`: how each is written, and how its own runtime computes what is in the file."""

import contextlib
import functools
import importlib.util
import io
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import keras_adjoint as ka


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        name: What `model.export` calls it.
        title: What people call it.
        file: Name of the file or folder.
        runtime: The package that runs it.
        run: The runtime, as a function of a path and an input.
        shares: The layers that read the same kernel in the file as their adjoints do.
    """

    name: str
    title: str
    file: str
    runtime: str
    run: Callable
    shares: tuple[str, ...] = ("convolution", "dense")

    @property
    def is_installed(self):
        return importlib.util.find_spec(self.runtime) is not None


def run_saved_model(path, x):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # its variables go when it goes
    return loaded.serve(x).numpy()


def run_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_openvino(path, x):
    import openvino

    return openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


def run_litert(path, x):
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter moves to a package of its own
        interpreter = tf.lite.Interpreter(str(path))
    borrowed = {operator["op_name"] for operator in interpreter._get_ops_details() if "Flex" in operator["op_name"]}
    if borrowed:
        raise ValueError(f"The file needs operators of TensorFlow: {', '.join(sorted(borrowed))}")
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_torch(path, x):
    import torch

    return torch.export.load(str(path)).module()(torch.from_numpy(x)).detach().numpy()


FORMATS = (
    Format("tf_saved_model", "SavedModel", "model", "tensorflow", run_saved_model),
    Format("onnx", "ONNX", "model.onnx", "onnxruntime", run_onnx),
    Format("openvino", "OpenVINO", "model.xml", "openvino", run_openvino, shares=("convolution",)),
    Format("litert", "LiteRT", "model.tflite", "tensorflow", run_litert, shares=()),
    Format("torch", "PyTorch", "model.pt2", "torch", run_torch),
)


@dataclass(frozen=True)
class Attempt:
    """What came of exporting a model and running the file: its size and the largest difference, or an error."""

    error: str = ""
    size: int = 0
    difference: float = 0.0

    @property
    def works(self):
        return not self.error


def attempt(model, kind, *, plainly=False):
    """Export a model, run the file, and compare.

    Args:
        model: A built model of one input and one output.
        kind: A `Format`.
        plainly: Whether to leave out `ka.exporting`.

    Returns:
        An `Attempt`, whose difference is relative to the largest output.
    """
    if not kind.is_installed:
        return Attempt(f"`{kind.runtime}` is not installed")
    x = np.random.default_rng(1).normal(size=(batch(kind), *model.input_shape[1:])).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    context = contextlib.nullcontext() if plainly else ka.exporting(kind.name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind.file
        try:
            with context, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                model.export(str(path), format=kind.name, verbose=False)
            found = kind.run(path, x)
        except Exception as error:  # converters and runtimes raise whatever they like
            return Attempt(first_line(error))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    if found.shape != expected.shape:
        return Attempt(f"outputs of shape {found.shape} instead of {expected.shape}")
    return Attempt("", size, float(np.abs(found - expected).max() / np.abs(expected).max()))


def batch(kind):
    """From PyTorch Keras writes some formats for batches of one."""
    return 1 if keras.backend.backend() == "torch" and kind.name in ("torch", "openvino", "litert") else 3


def first_line(error):
    """An error in one line, without the paths of this machine."""
    plain = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [re.sub(r"/\S*/", "", line).strip() for line in plain.splitlines()]
    text = next((line for line in lines if line and "Exception encountered" not in line), "")
    return f"{type(error).__name__}: {text}"[:200]


@functools.cache
def why_not(kind):
    """Why Keras itself does not export a plain model with a transposed convolution to a format; "" if it does."""
    inputs = keras.Input((9, 9, 2))
    features = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    outputs = keras.layers.Conv2DTranspose(2, 3, strides=2, padding="same")(features)
    return attempt(keras.Model(inputs, outputs), kind).error
