# %% [markdown]
# # Export
#
# A tied model can be used without this package: by people who have only Keras, and by programs that have neither. This
# guide shows both, and what happens to the tie.

# %%
import contextlib
import importlib.util
import io
import sys
import tempfile
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(1)
encoder = keras.Sequential(
    [
        keras.Input((24, 24, 3)),
        layers.Conv2D(24, 5, strides=2, padding="same", activation="relu"),
        layers.Conv2D(96, 5, strides=2, padding="same"),
    ]
)
autoencoder = ka.autoencoder(encoder)
x = np.random.default_rng(1).standard_normal((1, 24, 24, 3)).astype("float32")
wanted = autoencoder.predict(x, verbose=0)


def largest_difference(found):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


# %% [markdown]
# ## For people who have Keras alone
#
# A tied model contains layers of this package, which has to be installed where the model is loaded. `ka.untie` converts the
# model to stock layers. It computes the same, and its file loads anywhere, but the tie is gone: every shared kernel is stored
# twice, and the copies are trained separately.

# %%
stock = ka.untie(autoencoder)
print(f"{autoencoder.count_params():,} parameters become {stock.count_params():,}")
print("difference:", f"{largest_difference(stock.predict(x, verbose=0)):.0e}")
for layer in stock.layers[-4:]:
    print(f"{layer.name:40}{type(layer).__name__}")

assert not any(type(layer).__module__.startswith("keras_adjoint") for layer in stock.layers)
assert largest_difference(stock.predict(x, verbose=0)) < 1e-5

# %% [markdown]
# Each adjoint became a `Conv2DTranspose` with the same kernel, cropped to the exact size. `to="conv"` writes plain
# convolutions instead, for devices without transposed ones: one computes all phases of the stride, which are interleaved.

# %%
plain = ka.untie(autoencoder, to="conv")
kinds = sorted({type(layer).__name__ for layer in plain.layers})
print(", ".join(kinds))
assert "Conv2DTranspose" not in kinds and largest_difference(plain.predict(x, verbose=0)) < 1e-5

# %% [markdown]
# ## For programs without Keras
#
# `model.export` writes SavedModel, ONNX, OpenVINO, LiteRT and PyTorch files of tied models as of any others. Within
# `ka.exporting(format)` an adjoint convolution is written as a plain transposed convolution, which shares the constant of
# its source in the file, where the format permits that.
#
# Here we write ONNX on TensorFlow and PyTorch. From JAX that needs another package, so there we write a SavedModel.

# %%
FORMAT = "tf_saved_model" if keras.backend.backend() == "jax" else "onnx"
if FORMAT == "tf_saved_model" and importlib.util.find_spec("tensorflow") is None:
    print("TensorFlow writes SavedModels, from JAX as well, and it is not installed: pip install tensorflow")
    sys.exit()


def export(model, folder):
    """Where the file, or the folder of files, is that the model was exported to."""
    path = Path(folder) / ("model" if FORMAT == "tf_saved_model" else "model.onnx")
    chatter = io.StringIO()
    with ka.exporting(FORMAT), contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
        model.export(path, format=FORMAT, verbose=False)
    return path


def kilobytes(model):
    """The size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, folder)
        files = [file for file in (path, *path.rglob("*")) if file.is_file()]
        return sum(file.stat().st_size for file in files) // 1000


encoder.predict(x, verbose=0)  # Keras exports models that have been called
for weight in stock.weights:
    weight.assign(keras.random.normal(weight.shape))  # as if they had learned on their own
models = {"encoder": encoder, "tied": autoencoder, "untied": stock}
sizes = {title: kilobytes(model) for title, model in models.items()}
for title, size in sizes.items():
    print(f"{FORMAT}, {title:8}{size:5} kB")

assert sizes["tied"] < 1.2 * sizes["encoder"] and sizes["untied"] > 1.5 * sizes["encoder"]

# %% [markdown]
# The decoder adds hardly anything to the file. The format's own runtime confirms that it computes the same:


# %%
def run(path):
    if FORMAT == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})[0]
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return loaded.serve(x).numpy()


with tempfile.TemporaryDirectory() as folder:
    found = run(export(autoencoder, folder))
print(f"{FORMAT}: difference {largest_difference(found):.0e}")
assert largest_difference(found) < 1e-5

# %% [markdown]
# ## What else there is to know
#
# - [Export, measured](../docs/export.md) has every format from every backend: what is shared, what is not, and what fails.
# - LiteRT cannot share a kernel between a convolution and its adjoint, since it stores the two in different layouts.
# - OpenVINO 2026.4 computes wrong numbers from a file with a shared kernel of as many filters as channels.
#   `ka.exporting("openvino")` avoids that; do not run an ONNX file with such a kernel in it.
