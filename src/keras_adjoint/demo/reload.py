"""A saved autoencoder in another process, loaded with plain Keras: is it still tied, and does it predict the same?"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_adjoint as ka


def in_new_process(file, patches, predictions):
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
    return json.loads(run.stdout.splitlines()[-1])


def examine(file, sample):
    """Load a model with plain Keras and try its ties."""
    model = keras.saving.load_model(file)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    sample = np.load(sample)
    found = {
        "tied": ka.is_tied(model) and ka.is_tied(decoder, encoder),
        "parameters": model.count_params(),
        "difference": _largest_difference(model.predict(sample["patches"], verbose=0), sample["predictions"]),
    }
    code = encoder.predict(sample["patches"], verbose=0)
    before = decoder.predict(code, verbose=0)
    kernel = encoder.get_layer("conv1").kernel
    kernel.assign(2 * kernel)
    adjoint = decoder.get_layer("adjoint_of_conv1")
    found["change"] = _largest_difference(decoder.predict(code, verbose=0), before)
    found["still_adjoint"] = bool(ka.check_adjoint(adjoint))
    return found


def _largest_difference(a, b):
    return float(np.abs(a - b).max())


if __name__ == "__main__":
    print(json.dumps(examine(*sys.argv[1:])))
