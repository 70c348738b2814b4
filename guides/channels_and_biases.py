# %% [markdown]
# # Channels and biases
#
# The adjoint of a convolution takes its filters back to its channels, with the kernel as it is and without a bias. Mostly
# that is what a decoder wants. This guide is about when it wants something else: other numbers of channels, or a bias.
# Every choice has a name, and every result says whether it still is the adjoint.

# %%
import keras
import numpy as np
from keras import layers, ops

import keras_adjoint as ka

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
# `ka.adjoint(layer)` has none. The other modes add 3 numbers, one for each channel that comes out, or take the source's
# 8 numbers away first. At y = 0 we see the bias alone.

# %%
nothing = np.zeros((1, 8, 8, 8), "float32")
for mode in ("none", "own", "average", "learned", "subtract"):
    backward = ka.adjoint(conv, bias=mode)
    at_zero = numbers(backward(nothing))[0, 4, 4]
    print(f"{mode:9} {backward.count_params():2} parameters of its own, at zero: {at_zero}")

# %% [markdown]
# - `"own"`: new numbers, zero at first, which are trained. It is what `ka.mirror` and `ka.autoencoder` take.
# - `"average"`, and `"repeat"` where there are more channels than filters: new numbers that start from the source's.
# - `"learned"`: a trainable matrix times the source's bias. It goes on following the source.
# - `"subtract"`: Aᵀ(y − b). What the forward added is taken away before going back, so that it does not come back as a
#   picture. Nothing is trained.
#
# With `"subtract"` the way forth and back is the same as without any bias:

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
# An encoder of grey pictures may want a decoder that makes colours; that decoder needs three channels where its source
# has one. `channels=3` adds a map from the adjoint's channels to as many as you want. The result is made *from* the adjoint
# and is no longer the adjoint, and it says so.

# %%
grey = layers.Conv2D(8, 3, strides=2, padding="same")
grey.build((None, 15, 15, 1))
colour = ka.adjoint(grey, channels=3)
print("shape:", tuple(colour(y).shape), "  exact:", colour.exact, "  own:", colour.count_params())
assert tuple(colour(y).shape) == (2, 15, 15, 3) and not colour.exact and ka.adjoint(grey).exact

# %% [markdown]
# By default the map is trained, and starts as one of the fixed ones: more channels start as copies, fewer as means. The
# fixed ones are called `"repeat"`, `"average"`, `"truncate"` (the first n remain) and `"pad"` (zeros are appended).

# %%
one = numbers(ka.adjoint(grey)(y))[0, 4, 4]
for method in ("learned", "repeat", "pad"):
    backward = ka.adjoint(grey, channels=3, channel_method=method)
    print(f"{method:8} {numbers(backward(y))[0, 4, 4]}  from {one}")

# %% [markdown]
# ## Other numbers of channels in: kernels as arrays
#
# A pretrained kernel reads three channels, and your pictures are grey. `ka.adapt_channels` makes a kernel that answers to a
# grey picture as the old one answers to the same picture in three equal colours. Nothing is averaged away: the three
# slices are added up.

# %%
kernel = ops.convert_to_numpy(conv.kernel)  # from 3 channels to 8
picture = random.standard_normal((1, 15, 15, 1)).astype("float32")
for_grey = ka.adapt_channels(kernel, in_channels=1, method="average")
print(kernel.shape, "becomes", for_grey.shape)

in_colour = ops.conv(np.repeat(picture, 3, axis=-1), kernel, strides=2, padding="same")
in_grey = ops.conv(picture, for_grey, strides=2, padding="same")
assert_equal(in_grey, in_colour)

# %% [markdown]
# The other way, a kernel for one channel is repeated for three, each copy divided by three, so that equal channels give the
# old answer.

# %%
again = ka.adapt_channels(for_grey, in_channels=3, method="repeat")
in_three = ops.conv(np.repeat(picture, 3, axis=-1), again, strides=2, padding="same")
assert_equal(in_three, in_grey)
print("repeated:", again.shape)

# %% [markdown]
# The same works along the filters (`out_channels=`), for kernels in other layouts (`layout="OIHW"` for PyTorch's), and
# `ka.adapt_bias` does it to biases. [Which transpose?](which_transpose.py) takes an example with 64 and 32 channels through
# all of it.
