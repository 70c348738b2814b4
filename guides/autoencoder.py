# %% [markdown]
# # Tie an autoencoder in ten lines
#
# An autoencoder has two halves. The encoder squeezes a picture into a few numbers, the code, and the decoder makes a
# picture of the code. In a *tied* autoencoder the decoder has no kernels of its own: it uses those of the encoder, the
# other way round. It is half the model, and there is one set of kernels to learn.
#
# We take a hundred small photographs of faces, 25 × 25 pixels, that come with scikit-image.

# %%
import sys
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import skimage.data
from keras import layers

import keras_adjoint as ka

EPOCHS = 5 if "--quick" in sys.argv else 60

keras.utils.set_random_seed(1)
faces = skimage.data.lfw_subset()[:100, ..., None].astype("float32")

# %% [markdown]
# ## The ten lines
#
# The encoder is a plain Keras model. 25 is odd, and so is 13: at each stride of two there are two sizes that the decoder
# could go back to. It takes the right one, since the encoder's layers know what they were built for.

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
# That is all. The decoder undoes each layer of the encoder by its *adjoint*, the layer that goes the same ways backwards
# (see [what an adjoint is](../docs/how/adjoint.md)). Nothing in it is new but the biases.

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
# `tied=False` makes the same decoder with copies of the kernels, which from then on learn alone.

# %%
untied = ka.autoencoder(encoder, output_activation="sigmoid", tied=False)
print(f"{autoencoder.count_params():,} parameters tied, {untied.count_params():,} untied")
assert autoencoder.count_params() < 0.6 * untied.count_params()

# %% [markdown]
# ## The decoder alone
#
# The trained decoder is the part of the autoencoder from the code to the output. It is a model like any other. Here it
# makes a face out of the mean of two codes.
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
# A file holds the shared kernels once. A model that is loaded is tied as before; so is one that is loaded, trained and
# saved again. [How ties last](../docs/how/ties.md) has more about files, copies and freezing.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "autoencoder.keras"
    autoencoder.save(file)
    loaded = keras.saving.load_model(file)
print("tied after loading:", ka.is_tied(loaded))
assert ka.is_tied(loaded)

# %% [markdown]
# ## A look at it
#
# Above, faces that the autoencoder was trained on; below, what it makes of their 32 numbers. The last picture is the face
# between the first two. With so few faces and so short a training they are blurred.

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
# - [Channels and biases](channels_and_biases.py): what a decoder adds, and how to have it add something else.
# - [A generator that is its encoder's mirror](tied_vae.py): a variational autoencoder, tied and untied, compared.
