# %% [markdown]
# # Channels and biases
#
# The adjoint of a convolution maps its filters to its input channels, with the same kernel and without a bias. For most
# decoders that is right. This guide is about the others, which need a bias or another number of channels. Every option has
# a name, and every result says whether it is still the adjoint.

# %%
import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(1)
random = np.random.default_rng(1)

conv = layers.Conv2D(8, 3, strides=2, padding="same")
conv.build((None, 15, 15, 3))
conv.bias.assign(random.standard_normal(8))
y = random.standard_normal((2, 8, 8, 8)).astype("float32")


def numbers(tensor):
    return np.round(ops.convert_to_numpy(tensor), 2)


def assert_equal(a, b):
    np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-4)


# %% [markdown]
# ## Biases
#
# By default an adjoint has no bias. The other modes add 3 numbers, one for each output channel, or first subtract the
# source's 8 numbers. At y = 0 the output is the bias alone.

# %%
nothing = np.zeros((1, 8, 8, 8), "float32")
for mode in ("none", "own", "average", "learned", "subtract"):
    backward = ka.adjoint(conv, bias=mode)
    at_zero = numbers(backward(nothing))[0, 4, 4]
    print(f"{mode:9} {backward.count_params():2} parameters of its own, at zero: {at_zero}")

# %% [markdown]
# - `"own"`: new trainable numbers, initially zero; the default of `ka.mirror` and `ka.autoencoder`.
# - `"average"`, or `"repeat"` where there are more channels than filters: new numbers, initialised from the source's.
# - `"learned"`: a trainable matrix times the source's bias, which keeps following the source.
# - `"subtract"`: Aᵀ(y − b). The source's bias is subtracted first, so that its image under Aᵀ is not added to the output.
#   Nothing is trained.
#
# With `"subtract"`, the forward followed by the adjoint gives the same as without any bias:

# %%
x = random.standard_normal((2, 15, 15, 3)).astype("float32")
affine = ka.adjoint(conv, bias="subtract")(conv(x))
linear = ka.adjoint(conv)(conv(x) - conv.bias)
assert_equal(affine, linear)

# %% [markdown]
# In a mirror the mode is a policy: one for all layers, or a dictionary by name or class.

# %%
encoder = keras.Sequential(
    [
        keras.Input((15, 15, 3)),
        layers.Conv2D(8, 3, strides=2, padding="same", name="first"),
        layers.Flatten(),
        layers.Dense(4),
    ]
)
for policy in ("own", "none", {"first": "own", "default": "none"}):
    own = ka.mirror(encoder, bias=policy).count_params() - encoder.count_params()
    print(f"{own:4} parameters with bias={policy}")

# %% [markdown]
# ## Other numbers of channels out
#
# The decoder of a greyscale encoder may have to produce colours and then needs three channels where its source has one.
# `channels=3` adds a map from the adjoint's channels to three. The result is derived *from* the adjoint but is no longer the
# adjoint, as its attribute `exact` says.

# %%
grey = layers.Conv2D(8, 3, strides=2, padding="same")
grey.build((None, 15, 15, 1))
colour = ka.adjoint(grey, channels=3)
print("shape:", tuple(colour(y).shape), "  exact:", colour.exact, "  own:", colour.count_params())
assert tuple(colour(y).shape) == (2, 15, 15, 3) and not colour.exact and ka.adjoint(grey).exact

# %% [markdown]
# By default the map is trainable and is initialised as one of the fixed ones: copies for more channels, means for fewer.
# The fixed ones are `"repeat"`, `"average"`, `"truncate"` (keeps the first n) and `"pad"` (appends zeros).

# %%
one = numbers(ka.adjoint(grey)(y))[0, 4, 4]
for method in ("learned", "repeat", "pad"):
    backward = ka.adjoint(grey, channels=3, channel_method=method)
    print(f"{method:8} {numbers(backward(y))[0, 4, 4]}  from {one}")

# %% [markdown]
# ## Other numbers of channels in: kernels as arrays
#
# Suppose that a pretrained kernel reads three channels and your images are greyscale. `ka.adapt_channels` makes a kernel
# that responds to a greyscale image as the old one responds to the same image in three equal channels: it adds up the three
# slices.

# %%
kernel = ops.convert_to_numpy(conv.kernel)  # from 3 channels to 8
picture = random.standard_normal((1, 15, 15, 1)).astype("float32")
for_grey = ka.adapt_channels(kernel, in_channels=1, method="average")
print(kernel.shape, "becomes", for_grey.shape)

in_colour = ops.conv(np.repeat(picture, 3, axis=-1), kernel, strides=2, padding="same")
in_grey = ops.conv(picture, for_grey, strides=2, padding="same")
assert_equal(in_grey, in_colour)

# %% [markdown]
# Conversely, a kernel for one channel is repeated for three, each copy divided by three, so that equal channels give the
# same response as before.

# %%
again = ka.adapt_channels(for_grey, in_channels=3, method="repeat")
in_three = ops.conv(np.repeat(picture, 3, axis=-1), again, strides=2, padding="same")
assert_equal(in_three, in_grey)
print("repeated:", again.shape)

# %% [markdown]
# The same works along the filters (`out_channels=`), for kernels in other layouts (`layout="OIHW"` for PyTorch's), and
# `ka.adapt_bias` does the same for biases. [Which transpose?](which_transpose.py) has a longer example with 64 and 32
# channels.
