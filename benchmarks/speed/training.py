"""One training step of a tied autoencoder beside that of an untied one, in time and in memory.

The untied one has the same encoder, and a `Conv2DTranspose` for each of its convolutions. Both are trained as `compile` and
`fit` train them, on random pictures. Memory is the median over processes of their own: `python -m benchmarks.speed.training
NAME tied` prints by how many bytes the process grew beyond what it held before the first step.
"""

import json
import statistics
import sys

import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.speed.resident import grown, in_a_process
from benchmarks.speed.timing import interleaved

L = keras.layers
PROCESSES = 7  # what a small one grows by differs by a fifth

#            side, channels of the picture and of every layer, taps, batch
ENCODERS = {
    "DCGAN's encoder, 64 × 64, batch 32": (64, (3, 64, 128, 256, 512), 4, 32),
    "3 × 3 encoder, 128 × 128, batch 16": (128, (3, 32, 64, 128, 256), 3, 16),
    "digits, 28 × 28, batch 128": (28, (1, 16, 32), 3, 128),
}


def autoencoder(name, kind):
    """(model, pictures), the model compiled."""
    side, channels, taps, batch = ENCODERS[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((side, side, channels[0]))
    x = inputs
    for filters in channels[1:]:
        x = L.Conv2D(filters, taps, strides=2, padding="same", activation="relu")(x)
    if kind == "tied":
        model = ka.autoencoder(keras.Model(inputs, x), output_activation="sigmoid")
    else:
        for filters in reversed(channels[:-1]):
            activation = "sigmoid" if filters == channels[0] else "relu"
            x = L.Conv2DTranspose(filters, taps, strides=2, padding="same", activation=activation)(x)
        model = keras.Model(inputs, x)
    model.compile("adam", "mse")
    return model, np.random.default_rng(0).uniform(size=(batch, side, side, channels[0])).astype("float32")


def stepping(name, kind):
    """A function that trains one step and waits for its end."""
    model, pictures = autoencoder(name, kind)
    return lambda: float(model.train_on_batch(pictures, pictures))


def measure(name, seconds):
    """Milliseconds, megabytes, and the ratios of tied to untied."""
    steps = {kind: stepping(name, kind) for kind in ("tied", "untied")}
    for step in steps.values():
        step(), step()
    times = interleaved(steps, seconds=seconds, fewest=7)
    memory = {
        kind: statistics.median(in_a_process("benchmarks.speed.training", name, kind) for _ in range(PROCESSES))
        for kind in steps
    }
    return {
        "tied_ms": 1e3 * times["tied"].best,
        "untied_ms": 1e3 * times["untied"].best,
        "time": times["tied"].best / times["untied"].best,
        "spread": max(times["tied"].spread, times["untied"].spread),
        "tied_mb": memory["tied"] / 2**20,
        "untied_mb": memory["untied"] / 2**20,
        "memory": memory["tied"] / memory["untied"],
    }


def main(name, kind):
    """Train a few steps and print the growth of the process in bytes."""
    step = stepping(name, kind)
    print(json.dumps(grown(lambda: [step() for _ in range(5)])))


if __name__ == "__main__":
    main(*sys.argv[1:])
