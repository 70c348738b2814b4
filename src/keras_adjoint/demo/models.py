"""A small strided convolutional autoencoder, with a tied or an untied decoder, and its file in another process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers

import keras_adjoint as ka

Decode: TypeAlias = Callable[[keras.layers.Layer, keras.KerasTensor], keras.KerasTensor]  # a stage of the decoder

PATCH = 45  # odd, and so is its half 23, so that sizes are ambiguous at a stride of 2
STAGES = (
    # filters, taps, stride
    (16, 5, 2),
    (32, 3, 2),
    (16, 3, 1),
)
ACTIVATION = "elu"


def make_encoder() -> keras.Model:
    """Linear convolutions, and activations as separate layers, so that the former have adjoints."""
    photograph = keras.Input((PATCH, PATCH, 3), name="photograph")
    features = photograph
    for number, (filters, taps, stride) in enumerate(STAGES, 1):
        if number > 1:
            features = layers.Activation(ACTIVATION)(features)
        features = layers.Conv2D(filters, taps, strides=stride, padding="same", name=f"conv{number}")(features)
    return keras.Model(photograph, features, name="encoder")


def convolutions(encoder: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in encoder.layers if isinstance(layer, layers.Conv2D)]


def tied(conv: keras.layers.Layer, features: keras.KerasTensor) -> keras.KerasTensor:
    """A tied stage of the decoder: the adjoint of the encoder's layer."""
    return ka.adjoint(conv, bias="own", name=f"adjoint_of_{conv.name}")(features)


def untied(conv: keras.layers.Layer, features: keras.KerasTensor) -> keras.KerasTensor:
    """An untied stage of the decoder: a transposed convolution with its own kernel, cropped to the size of the input.

    It is cropped in front, so that kernels of odd size stay centred on what they reconstruct.
    """
    *sizes, channels = conv.input.shape[1:]
    decoded = layers.Conv2DTranspose(channels, conv.kernel_size, strides=conv.strides, padding=conv.padding)(features)
    surplus = [(found - wanted, 0) for found, wanted in zip(decoded.shape[1:-1], sizes, strict=True)]
    return layers.Cropping2D(surplus)(decoded) if any(map(any, surplus)) else decoded


def make_decoder(encoder: keras.Model, decode: Decode) -> keras.Model:
    """The stages `decode(conv, features)` for the encoder's convolutions in reverse order."""
    code = keras.Input(encoder.output.shape[1:], name="code")
    features = code
    for conv in reversed(convolutions(encoder)):
        if features is not code:
            features = layers.Activation(ACTIVATION)(features)
        features = decode(conv, features)
    return keras.Model(code, features, name="decoder")


def make_autoencoder(decode: Decode, *, seed: int) -> tuple[keras.Model, keras.Model, keras.Model]:
    """(autoencoder, encoder, decoder). The same seed gives the same encoder, whatever the decoder."""
    keras.utils.set_random_seed(seed)
    encoder = make_encoder()
    decoder = make_decoder(encoder, decode)
    photograph = keras.Input(encoder.input.shape[1:], name="photograph")
    return keras.Model(photograph, decoder(encoder(photograph)), name="autoencoder"), encoder, decoder


def for_size(encoder: keras.Model, decoder: keras.Model, size: Sequence[int]) -> keras.Model:
    """An autoencoder of the same layers, hence the same kernels, for photographs of another size."""
    photograph = keras.Input((*size, 3))
    features = photograph
    for layer in (*encoder.layers[1:], *decoder.layers[1:]):
        features = layer(features)
    return keras.Model(photograph, features)


# --- in another process


def load_in_new_process(file: Path, patches: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """What `examine` finds in a fresh interpreter on the same backend."""
    with tempfile.TemporaryDirectory() as directory:
        sample = Path(directory) / "sample.npz"
        np.savez(sample, patches=patches, predictions=predictions)
        run = subprocess.run(
            [sys.executable, "-m", __spec__.name, str(file), str(sample)],
            env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
            capture_output=True,
            text=True,
        )
    if run.returncode:
        raise RuntimeError(f"The new process could not use {file}:\n{run.stderr}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def examine(file: str, sample: str) -> dict[str, Any]:
    """Load a model with plain Keras, and see whether it is still tied and predicts the same."""
    model = keras.saving.load_model(file)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    arrays = np.load(sample)
    found = {
        "tied": ka.is_tied(model) and ka.is_tied(decoder, encoder),
        "parameters": model.count_params(),
        "difference": largest_difference(model.predict(arrays["patches"], verbose=0), arrays["predictions"]),
    }
    code = encoder.predict(arrays["patches"], verbose=0)
    before = decoder.predict(code, verbose=0)
    kernel = encoder.get_layer("conv1").kernel
    kernel.assign(2 * kernel)
    adjoint = decoder.get_layer("adjoint_of_conv1")
    found["change"] = largest_difference(decoder.predict(code, verbose=0), before)
    found["still_adjoint"] = bool(ka.check_adjoint(adjoint))
    return found


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


if __name__ == "__main__":
    print(json.dumps(examine(*sys.argv[1:])))
