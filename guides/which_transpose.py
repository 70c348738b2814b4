# %% [markdown]
# # Which transpose do you mean?
#
# You have trained a `Conv2D` and want to use its kernel in the opposite direction, in the decoder of an autoencoder or in
# a generator. "Use the transposed kernel" is the right idea, but a kernel has four axes, and at least four different
# rearrangements of them are called its transpose.
#
# One article answers that the kernel has the shape `(filters, height, width, in)`, that its height and width are to
# be swapped, and that the result is to be set on a `Conv2DTranspose`. Its goals are sensible and can all be reached, as
# this guide shows. But three details are easy to get wrong:
#
# 1. **The layout.** `(filters, height, width, in)` is how TFLite stores kernels. Keras' are `(height, width, in,
#    filters)`. In axis letters, with I for the input channels and O for the filters: `OHWI` there, `HWIO` here.
# 2. **The transpose.** Swapping height and width transposes *pictures of the kernel*. What a decoder needs is the
#    transpose of the *operator*, the large matrix that takes the whole input to the whole output. That is the adjoint,
#    and `Conv2DTranspose` already computes it, from the very same array, with nothing swapped.
# 3. **The weights.** A layer makes its weights when it is built. Before that there is nothing to set them to.
#
# All of this can be tested: the adjoint Aᵀ of A is the one operator with ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for all x
# and y, so any candidate B can be tried on random x and y. Its **residual** |⟨A x, y⟩ − ⟨x, B y⟩| / (‖A x‖ ‖y‖) is
# zero, up to rounding, only for the adjoint.

# %%
import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(1)
random = np.random.default_rng(1)


def pictures(*shape):
    """A batch of random pictures."""
    return random.standard_normal(shape).astype("float32")


def residual(forward, backward, input_shape, trials=5):
    """How far `backward` is from being the adjoint of `forward`: the worst of a few trials."""
    worst = 0
    for _ in range(trials):
        x = pictures(1, *input_shape)
        forward_x = ops.convert_to_numpy(forward(x))
        y = pictures(*forward_x.shape)
        backward_y = ops.convert_to_numpy(backward(y))
        difference = np.vdot(forward_x, y) - np.vdot(x, backward_y)
        worst = max(worst, abs(difference) / (np.linalg.norm(forward_x) * np.linalg.norm(y)))
    return worst


# %% [markdown]
# ## Example 1: 32 to 32 channels, "same" padding, no bias
#
# This is the convolution, and these are the article's three details, one after the other.

# %%
forward = layers.Conv2D(32, 3, padding="same", use_bias=False)
forward.build((None, 12, 12, 32))
kernel = ops.convert_to_numpy(forward.kernel)

# 1. Axes 1 and 2 are height and width in OHWI. In HWIO they are width and input channels.
assert np.transpose(kernel, (0, 2, 1, 3)).shape == (3, 32, 3, 32)

# A kernel that really is OHWI, from TFLite or from an article, is converted by name.
assert ka.convert_layout(np.zeros((32, 3, 3, 64)), "OHWI", "HWIO").shape == (3, 3, 64, 32)

# 3. An unbuilt layer has no weights to set.
unbuilt = layers.Conv2DTranspose(32, 3, padding="same", use_bias=False)
try:
    unbuilt.set_weights([kernel])
except ValueError as error:
    print("Unbuilt:", str(error).splitlines()[0])
else:
    raise AssertionError("An unbuilt layer took weights")

# %% [markdown]
# For detail 2 the residual decides. With 32 channels on either side every rearrangement fits into either layer,
# so nothing but the numbers can warn us. We try all of them.


# %%
def layer_with(layer_class, kernel, filters=32):
    """A stock layer, built and then given this kernel."""
    layer = layer_class(filters, kernel.shape[:2], padding="same", use_bias=False)
    layer.build((None, 12, 12, kernel.shape[2] if layer_class is layers.Conv2D else kernel.shape[3]))
    layer.set_weights([kernel])
    return layer


rearrangements = {
    "the kernel as it is": ka.transpose_kernel(kernel, "conv_transpose"),
    "height and width swapped": ka.transpose_kernel(kernel, "swap_spatial"),
    "flipped": ka.transpose_kernel(kernel, "flip"),
    "channels swapped": ka.transpose_kernel(kernel, "swap_channels"),
    "flipped and channels swapped": ka.transpose_kernel(kernel, "conv"),
}
assert np.array_equal(rearrangements["the kernel as it is"], kernel)

right = {("the kernel as it is", "Conv2DTranspose"), ("flipped and channels swapped", "Conv2D")}
print(f"{'residual when set on':30}{'Conv2DTranspose':>18}{'Conv2D':>12}")
for name, rearranged in rearrangements.items():
    residuals = {}
    for layer_class in (layers.Conv2DTranspose, layers.Conv2D):
        backward = layer_with(layer_class, rearranged)
        residuals[layer_class.__name__] = residual(forward, backward, (12, 12, 32))
    print(f"{name:30}{residuals['Conv2DTranspose']:18.1e}{residuals['Conv2D']:12.1e}")
    for layer_name, value in residuals.items():
        assert (value < 1e-5) if (name, layer_name) in right else (value > 1e-4)

# %% [markdown]
# Two of the ten are the adjoint, and the others are not, among them the swap of height and width:
#
# - `Conv2DTranspose` with the kernel as it is. That is what "transposed convolution" means.
# - `Conv2D` with the kernel flipped and its channels swapped, at stride 1: this is the answer to "how do I transpose a
#   kernel for another *`Conv2D`*?"
#
# Note how small the wrong ones are. They look harmless, yet they are as wrong as random: the residual of an unrelated
# operator is about 1/√(number of outputs), here 1/√(12 · 12 · 32) ≈ 1.5e-2, and for large pictures it is smaller
# still. "Below a thousandth" says nothing. `ka.check_adjoint` derives its tolerance from the dtype and the size:

# %%
print(ka.check_adjoint(forward, layer_with(layers.Conv2DTranspose, kernel)))
print(ka.check_adjoint(forward, layer_with(layers.Conv2DTranspose, rearrangements["height and width swapped"])))
assert ka.check_adjoint(forward, layer_with(layers.Conv2DTranspose, kernel))
assert not ka.check_adjoint(forward, layer_with(layers.Conv2DTranspose, rearrangements["height and width swapped"]))

# %% [markdown]
# And this is example 1 as we would write it today. There is no array to rearrange and no layer to build; the adjoint
# reads the source's own kernel at every call, so it is never out of date and costs no memory.

# %%
backward = ka.adjoint(forward)
assert ka.check_adjoint(forward, backward)
assert residual(forward, backward, (12, 12, 32)) < 1e-5

autoencoder = keras.Sequential([keras.Input((12, 12, 32)), forward, backward])
assert autoencoder.count_params() == forward.count_params() == 3 * 3 * 32 * 32

forward.kernel.assign(2 * kernel)  # as a training step would
assert residual(forward, backward, (12, 12, 32)) < 1e-5
forward.kernel.assign(kernel)

# %% [markdown]
# ## What each of the others is right for
#
# None of the rearrangements is a mistake in itself. Each answers a different question.
#
# **Swapping height and width** is right when the *pictures* are transposed: conv(xᵀ, Wᵀ) = conv(x, W)ᵀ. Use it where
# the two axes are stored the other way round, such as spectrograms with time first instead of frequency.


# %%
def convolve(x, kernel):
    return ops.convert_to_numpy(ops.conv(x, kernel, padding="same"))


def swapped(x):
    return np.swapaxes(x, 1, 2)


x = pictures(2, 9, 7, 32)
np.testing.assert_allclose(
    convolve(swapped(x), ka.transpose_kernel(kernel, "swap_spatial")), swapped(convolve(x, kernel)), atol=1e-4
)

# %% [markdown]
# **Flipping** is right when the pictures are turned by 180°. It also turns the cross-correlation that all frameworks
# call convolution into the convolution of the textbooks.


# %%
def turned(x):
    return np.flip(x, (1, 2))


np.testing.assert_allclose(
    convolve(turned(x), ka.transpose_kernel(kernel, "flip")), turned(convolve(x, kernel)), atol=1e-4
)

# %% [markdown]
# **Swapping the channels** alone gives the adjoint when there is nothing to flip: for 1 × 1 convolutions, which are
# `Dense` layers at every pixel, and for kernels that equal their own flip.

# %%
pointwise = layers.Conv2D(32, 1, use_bias=False)
pointwise.build((None, 12, 12, 32))
transposed = ka.transpose_kernel(ops.convert_to_numpy(pointwise.kernel), "swap_channels")
assert residual(pointwise, layer_with(layers.Conv2D, transposed), (12, 12, 32)) < 1e-5

# %% [markdown]
# ## Example 2: unequal channels, 64 in and 32 out
#
# Here the article repeats, averages or maps kernels to make the channels fit. For the adjoint they fit already: it
# takes 32 channels back to 64, with the same kernel.

# %%
forward = layers.Conv2D(32, 3, padding="same")
forward.build((None, 12, 12, 64))
forward.bias.assign(pictures(32))
kernel = ops.convert_to_numpy(forward.kernel)
backward = ka.adjoint(forward)

y = pictures(4, 12, 12, 32)
adjoint_y = ops.convert_to_numpy(backward(y))
assert adjoint_y.shape == (4, 12, 12, 64)
assert ka.check_adjoint(forward, backward)

# %% [markdown]
# Adapters come into play when something other than 64 channels is wanted. The result is then made *from* the adjoint
# and is no longer the adjoint, but it is at the same scale. Channel j of the **repeated** one is channel j mod 64:

# %%
repeated = ka.adjoint(forward, channels=128, channel_method="repeat")(y)
np.testing.assert_allclose(ops.convert_to_numpy(repeated), np.concatenate([adjoint_y, adjoint_y], -1), atol=1e-5)

# %% [markdown]
# **Averaged** down to 32 channels, each is the mean of every 32nd. Averaging undoes repeating:

# %%
averaged = ka.adjoint(forward, channels=32, channel_method="average")(y)
np.testing.assert_allclose(ops.convert_to_numpy(averaged), (adjoint_y[..., :32] + adjoint_y[..., 32:]) / 2, atol=1e-5)

more = ka.adapt_channels(kernel, in_channels=128, out_channels=96, method="repeat")
less = ka.adapt_channels(more, in_channels=64, out_channels=32, method="average")
np.testing.assert_allclose(less, kernel, atol=1e-6)

# %% [markdown]
# The same on stock layers, with plain arrays. Two things to know: the filters of a transposed convolution are the
# *source's input channels*, so they lie along the third axis, and we say so by the layout. And a `Conv2D` that is to
# *read* 128 repeated channels gets each copy divided by two, or its answer would double.

# %%
stock = layer_with(
    layers.Conv2DTranspose, ka.adapt_channels(kernel, out_channels=128, method="repeat", layout="HWOI"), filters=128
)
np.testing.assert_allclose(ops.convert_to_numpy(stock(y)), ops.convert_to_numpy(repeated), atol=1e-4)

x = pictures(2, 12, 12, 64)
reading_copies = ka.adapt_channels(kernel, in_channels=128, method="repeat")
np.testing.assert_allclose(convolve(np.concatenate([x, x], -1), reading_copies), convolve(x, kernel), atol=1e-4)

# %% [markdown]
# **Learned**, the channel map is a trainable matrix that starts where averaging (or repeating) would be. Only the map
# is trained here, and the source is frozen, so that we can see it find a mixture of channels that averaging does not
# know.

# %%
forward.trainable = False
learned = ka.adjoint(forward, channels=32, channel_method="learned")
np.testing.assert_allclose(ops.convert_to_numpy(learned(y)), ops.convert_to_numpy(averaged), atol=1e-5)
assert [tuple(weight.shape) for weight in learned.trainable_weights] == [(64, 32)]

wanted = adjoint_y @ (pictures(64, 32) / 8)
model = keras.Sequential([keras.Input((12, 12, 32)), learned])
model.compile(keras.optimizers.Adam(0.03), "mse")
losses = model.fit(y, wanted, epochs=60, batch_size=4, verbose=0).history["loss"]
print(f"learned channel map: loss {losses[0]:.3f} at the start, {losses[-1]:.1e} after 60 steps")
assert losses[-1] < 0.05 * losses[0]
np.testing.assert_array_equal(ops.convert_to_numpy(forward.kernel), kernel)
forward.trainable = True

# %% [markdown]
# ## Example 3: the bias
#
# The adjoint of a convolution has no bias: it is about the linear part alone. What becomes of the bias is a choice,
# and it has a name. The source's 32 numbers must become 64 here, so they are **repeated**; at y = 0 we see the bias
# alone.

# %%
zeros = np.zeros((1, 12, 12, 32), "float32")
bias = ops.convert_to_numpy(forward.bias)


def bias_of(layer, zeros=zeros):
    return ops.convert_to_numpy(layer(zeros))[0, 0, 0]


assert not bias_of(ka.adjoint(forward)).any()
np.testing.assert_allclose(bias_of(ka.adjoint(forward, bias="repeat")), ka.adapt_bias(bias, 64, "repeat"))
np.testing.assert_allclose(ka.adapt_bias(bias, 64, "repeat"), np.concatenate([bias, bias]))

# %% [markdown]
# Where a source makes 64 channels out of 32, its bias is **averaged** to fit.

# %%
growing = layers.Conv2D(64, 3, padding="same")
growing.build((None, 12, 12, 32))
growing.bias.assign(pictures(64))
long_bias = ops.convert_to_numpy(growing.bias)
np.testing.assert_allclose(
    bias_of(ka.adjoint(growing, bias="average"), np.zeros((1, 12, 12, 64), "float32")),
    (long_bias[:32] + long_bias[32:]) / 2,
    atol=1e-6,
)

# %% [markdown]
# **Learnable** may mean two things. `"own"` is a new bias, zero at first. `"learned"` is a trainable map of the
# source's bias: it starts as the repeated one and keeps following the source.

# %%
own, mapped = ka.adjoint(forward, bias="own"), ka.adjoint(forward, bias="learned")
assert not bias_of(own).any()
np.testing.assert_allclose(bias_of(mapped), np.concatenate([bias, bias]), atol=1e-6)
assert (64,) in [tuple(weight.shape) for weight in own.trainable_weights]
assert (32, 64) in [tuple(weight.shape) for weight in mapped.trainable_weights]

forward.bias.assign(2 * bias)
np.testing.assert_allclose(bias_of(mapped), 2 * np.concatenate([bias, bias]), atol=1e-6)
forward.bias.assign(bias)

# %% [markdown]
# Often the best choice is neither: `"subtract"` takes the source's bias away before going back, Aᵀ(y − b), so that
# what the encoder added does not appear in the picture.

# %%
x = pictures(1, 12, 12, 64)
np.testing.assert_allclose(
    ops.convert_to_numpy(ka.adjoint(forward, bias="subtract")(forward(x))),
    ops.convert_to_numpy(backward(forward(x) - forward.bias)),
    atol=1e-4,
)

# %% [markdown]
# ## What it is good for
#
# The article promises symmetric autoencoders, generators that reuse a network's kernels, smaller models, and saved
# computation. The first three hold. A tied decoder stores nothing but what you ask for:

# %%
tied = keras.Sequential([keras.Input((12, 12, 64)), forward, ka.adjoint(forward, bias="own")])
untied = keras.Sequential(
    [keras.Input((12, 12, 64)), layers.Conv2D(32, 3, padding="same"), layers.Conv2DTranspose(64, 3, padding="same")]
)
print(f"parameters: {tied.count_params()} tied, {untied.count_params()} untied")
assert untied.count_params() - tied.count_params() == 3 * 3 * 64 * 32

# %% [markdown]
# Computation is not saved: the adjoint does the same multiply-adds as the forward convolution, and so it should cost
# the same, no less and no more.
#
# In short:
#
# | you have | you want | use |
# | --- | --- | --- |
# | a layer | its adjoint | `ka.adjoint(layer)` |
# | a kernel | to set it on a `Conv2DTranspose` | the same array |
# | a grouped kernel | to set it on a `Conv2DTranspose` | `ka.transpose_kernel(kernel, groups=...)` |
# | a kernel | the adjoint as a plain `Conv2D`, stride 1 | `ka.transpose_kernel(kernel, "conv")` |
# | a kernel | to use it on transposed pictures | `ka.transpose_kernel(kernel, "swap_spatial")` |
# | a kernel | to use it on pictures turned by 180° | `ka.transpose_kernel(kernel, "flip")` |
# | a 1 × 1 kernel | the adjoint | `ka.transpose_kernel(kernel, "swap_channels")` |
# | a kernel in `OHWI` | it in Keras' layout | `ka.convert_layout(kernel, "OHWI", "HWIO")` |
# | any two operators | to know | `ka.check_adjoint(forward, backward)` |
