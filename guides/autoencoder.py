# %% [markdown]
# # Tie an autoencoder in ten lines
#
# An autoencoder has two halves. The encoder compresses an image to a few numbers, the code, and the decoder reconstructs
# the image from the code. In a *tied* autoencoder the decoder has no kernels of its own: it uses the transposes of the
# encoder's. The model has half the size, and a single set of kernels to train.
#
# We use a hundred photographs of faces, 25 × 25 pixels each, that come with scikit-image.

# %%
import sys
import tempfile
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import matplotlib.pyplot as plt
import skimage.data
from keras import layers

EPOCHS = 5 if "--quick" in sys.argv else 60

keras.utils.set_random_seed(1)
faces = skimage.data.lfw_subset()[:100, ..., None].astype("float32")

# %% [markdown]
# ## The ten lines
#
# The encoder is a plain Keras model. 25 is odd, and so is 13: for each stride of two there are two sizes that the decoder
# could return. It returns the right one, because the encoder's layers record the size that they were built for.

# %%
encoder = keras.Sequential(
    [
        keras.Input((25, 25, 1)),
        layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(32),
    ]
)
autoencoder = ka.autoencoder(encoder, output_activation="sigmoid")
autoencoder.compile(keras.optimizers.Adam(3e-3), "mse")
history = autoencoder.fit(faces, faces, epochs=EPOCHS, batch_size=20, verbose=0)

# %% [markdown]
# That is all. The decoder reverses each layer of the encoder by its *adjoint*, the transpose of its linear part (see
# [what an adjoint is](../docs/how/adjoint.md)). Only the biases are new.

# %%
losses = history.history["loss"]
print(f"loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
print("tied:", ka.is_tied(autoencoder))
for layer in autoencoder.layers:
    if layer.name.endswith("_adjoint"):
        print(f"{layer.name:16} {layer.count_params():5} parameters of its own")

assert ka.is_tied(autoencoder) and losses[-1] < losses[0]

# %% [markdown]
# ## What it saves
#
# `tied=False` makes the same decoder with copies of the kernels, which are then trained separately.

# %%
untied = ka.autoencoder(encoder, output_activation="sigmoid", tied=False)
print(f"{autoencoder.count_params():,} parameters tied, {untied.count_params():,} untied")
assert autoencoder.count_params() < 0.6 * untied.count_params()

# %% [markdown]
# ## The decoder alone
#
# The trained decoder is the part of the autoencoder from the code to the output, a model like any other. Here it decodes
# the mean of two codes.
#
# (`ka.mirror(encoder)` makes a decoder without an autoencoder around it. It reads the same kernels; its biases are new.)

# %%
code = encoder.layers[-1].output
decoder = keras.Model(code, autoencoder.output)
codes = encoder.predict(faces[:2], verbose=0)
between = decoder.predict(codes.mean(axis=0, keepdims=True), verbose=0)
print(between.shape)

# %% [markdown]
# ## It stays tied
#
# A file stores shared kernels once. A model is still tied after loading, and after further training and saving.
# [How ties last](../docs/how/ties.md) has more about files, copies and freezing.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "autoencoder.keras"
    autoencoder.save(file)
    loaded = keras.saving.load_model(file)
print("tied after loading:", ka.is_tied(loaded))
assert ka.is_tied(loaded)

# %% [markdown]
# ## The result
#
# The first row shows faces that the autoencoder was trained on, the second their reconstructions from 32 numbers. The last
# image is the face between the first two. With so few faces and such short training they are blurred.

# %% mystnb={"image": {"alt": "Seven faces, their reconstructions, and a face between two"}}
rows = faces[:7], autoencoder.predict(faces[:7], verbose=0)
figure, axes = plt.subplots(2, 8, figsize=(8, 2.1))
for row, pictures in zip(axes, rows, strict=True):
    for axis, picture in zip(row, pictures, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
axes[1, 7].imshow(between[0], cmap="gray", vmin=0, vmax=1)
for axis in axes.flat:
    axis.set_axis_off()
figure.tight_layout(pad=0.3)
if "--show" in sys.argv:
    plt.show()

# %% [markdown]
# ## Where to go next
#
# - [Mirror a pretrained network](mirror_pretrained.py), with pooling, normalisation and sums in it.
# - [Channels and biases](channels_and_biases.py): other biases, and other numbers of channels.
# - [A generator that is its encoder's mirror](tied_vae.py): a variational autoencoder, tied and untied, compared.
