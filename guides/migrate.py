# %% [markdown]
# # Migrate from the well-known recipes
#
# Since the first versions of Keras people have tied decoders by recipes that are passed from answer to answer. Here are three
# of them, each in a few lines: what it does, where it works, where it fails, and what to write instead. `ka.check_adjoint`
# tells one from the other.

# %%
import tempfile
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(1)
random = np.random.default_rng(1)


def numbers(*shape):
    return random.standard_normal(shape).astype("float32")


def first_line(text):
    return next(line for line in str(text).splitlines() if line.strip())


def verdict(report):
    return "right" if report else report.diagnosis


# %% [markdown]
# ## Recipe 1: a `DenseTranspose` layer
#
# A layer that takes another layer and multiplies by the transpose of its kernel (as in keras#5060).


# %%
class DenseTranspose(layers.Layer):
    def __init__(self, dense, **options):
        super().__init__(**options)
        self.dense = dense

    def build(self, shape):
        size = self.dense.kernel.shape[0]
        self.bias = self.add_weight(name="bias", shape=(size,), initializer="zeros")

    def call(self, y):
        return ops.matmul(y, ops.transpose(self.dense.kernel)) + self.bias


x = keras.Input((6,))
dense = layers.Dense(3)
code = dense(x)
recipe = DenseTranspose(dense)
model = keras.Model(x, recipe(code))

# %% [markdown]
# It computes the adjoint and trains correctly. It fails when the model is saved, because its argument is a layer
# (keras#10485), and freezing it also freezes the encoder's kernel.

# %%
recipe.trainable = False
print("recipe.trainable = False; the encoder's kernel is trainable:", dense.kernel.trainable)
assert not dense.kernel.trainable
recipe.trainable = dense.trainable = True

with tempfile.TemporaryDirectory() as folder:
    try:
        model.save(Path(folder) / "model.keras")
        keras.saving.load_model(Path(folder) / "model.keras")
    except Exception as error:
        print(f"saving: {type(error).__name__}: {first_line(error)}")
    else:
        raise AssertionError("Keras saves and loads it now")

# %% [markdown]
# Instead, write `ka.adjoint(dense, bias="own")`. To migrate a trained model, copy its bias; the kernel is the encoder's.

# %%
recipe.bias.assign(numbers(6))
tied = ka.adjoint(dense, bias="own")
migrated = keras.Model(x, tied(code))
own_bias = next(weight for weight in tied.weights if tuple(weight.shape) == (6,))
own_bias.assign(ops.convert_to_numpy(recipe.bias))  # not as a variable: in JAX the two would share memory

examples = numbers(4, 6)
new, old = (each.predict(examples, verbose=0) for each in (migrated, model))
np.testing.assert_allclose(new, old, atol=1e-5)

tied.trainable = False
assert dense.kernel.trainable
with tempfile.TemporaryDirectory() as folder:
    migrated.save(Path(folder) / "model.keras")
    loaded = keras.saving.load_model(Path(folder) / "model.keras")
print("tied after loading:", ka.is_tied(loaded))

# %% [markdown]
# A variant of this recipe is a `Lambda` layer around a transpose that is computed in advance (keras#3261). On TensorFlow
# and JAX that transpose is an array, which does not change when the encoder is trained.

# %%
transpose = ops.transpose(dense.kernel)
frozen = layers.Lambda(lambda y: ops.matmul(y, transpose))
assert ka.check_adjoint(dense, frozen)
dense.kernel.assign(numbers(6, 3))  # as training would
print("after a step:", "still right" if ka.check_adjoint(dense, frozen) else "wrong")
assert ka.check_adjoint(dense)

# %% [markdown]
# ## Recipe 2: `Conv2DTranspose` with `set_weights`
#
# The same kernel fits a `Conv2DTranspose` without any rearrangement. Where the stride permits only one size, that is all.

# %%
for size in (26, 25):
    conv = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)
    conv.build((None, size, size, 2))
    stock = layers.Conv2DTranspose(2, 3, strides=2, padding="same", use_bias=False)
    stock.build((None, 13, 13, 4))
    stock.set_weights(conv.get_weights())
    report = ka.check_adjoint(conv, stock)
    print(f"{size} pixels: {verdict(report)}")

# %% [markdown]
# For 25 pixels the output is one pixel too large. Which side should be cropped? That depends on the kernel, and the wrong
# side shifts the whole image by a pixel.

# %%
for taps in (3, 4):
    conv = layers.Conv2D(4, taps, strides=2, padding="same", use_bias=False)
    conv.build((None, 25, 25, 2))
    stock = layers.Conv2DTranspose(2, taps, strides=2, padding="same", use_bias=False)
    stock.build((None, 13, 13, 4))
    stock.set_weights(conv.get_weights())
    last = ka.check_adjoint(conv, lambda y, stock=stock: stock(y)[:, :-1, :-1])
    first = ka.check_adjoint(conv, lambda y, stock=stock: stock(y)[:, 1:, 1:])
    for name, report in (("first", first), ("last", last)):
        print(f"{taps} taps, {name} cut off: {verdict(report)}")
    assert bool(first) != bool(last)
    assert ka.check_adjoint(conv)

# %% [markdown]
# It is also a copy: from the first training step on, encoder and decoder differ. And there is no such layer for grouped,
# depthwise, separable and causal convolutions. Instead, write `ka.adjoint(conv)`. If you want a copy,
# `ka.adjoint(conv, tied=False)` is one of the right size. Its kernel can be set to that of a trained `Conv2DTranspose`:

# %%
learned = numbers(4, 4, 2, 4)
stock.set_weights([learned])
copy = ka.adjoint(conv, tied=False)
copy.source.kernel.assign(learned)
y = numbers(1, 13, 13, 4)
new, old = ops.convert_to_numpy(copy(y)), ops.convert_to_numpy(stock(y))
np.testing.assert_allclose(new, old[:, :25, :25], atol=1e-4)

# %% [markdown]
# ## Recipe 3: a plain `Conv2D` with the kernel flipped
#
# Ports of deconvnets, and autoencoders older than Keras' transposed convolutions, use a second `Conv2D`: swap the two channel
# axes of the kernel, rotate it by 180°, and convolve with "same" padding. Without the rotation it is another operator, and
# with an even kernel it is shifted by a pixel, because "same" puts the odd zero on the other side.
#
# The `Deconvolution2D` and `DePool2D` layers of nanopony's keras-convautoencoder are of this kind. Each takes the layer that
# it reverses, and the first swaps the channels without rotating the kernel. That was right with Theano, whose convolution
# flips kernels itself. Keras 3 does not, and a port without the rotation prints the second line below.


# %%
def swapped(kernel):
    return np.swapaxes(kernel, 2, 3)


def flipped(kernel):
    return np.flip(swapped(kernel), (0, 1))


for taps, rearrange in ((3, flipped), (3, swapped), (4, flipped)):
    conv = layers.Conv2D(4, taps, padding="same", use_bias=False)
    conv.build((None, 16, 16, 2))
    back = layers.Conv2D(2, taps, padding="same", use_bias=False)
    back.build((None, 16, 16, 4))
    back.set_weights([rearrange(ops.convert_to_numpy(conv.kernel))])
    report = ka.check_adjoint(conv, back)
    print(f"{taps} taps, {rearrange.__name__}: {verdict(report)}")
    assert bool(report) == (taps == 3 and rearrange is flipped)

# %% [markdown]
# There is no such recipe for strides. If you need plain convolutions, for a device without transposed ones,
# `ka.untie(model, to="conv")` writes them for every stride; `ka.transpose_kernel(kernel, "conv")` rearranges the array alone.
#
# A port of a deconvnet does this layer by layer and stores the position of each maximum, one for each window. (A mask
# `picture == maximum` is not the same: after a ReLU a whole window may be zero, and then the mask marks all of it.) For two
# convolutions and a pooling it looks like this:

# %%
photo = keras.Input((12, 12, 1))
features = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(photo)
features = layers.MaxPooling2D(name="pool")(features)
features = layers.Conv2D(5, 3, padding="same", activation="relu", name="conv2")(features)
network = keras.Model(photo, features)


def same(x, kernel):
    return ops.convert_to_numpy(ops.conv(x, kernel, padding="same"))


def relu(x):
    return np.maximum(x, 0)


kernel1, bias1, kernel2, bias2 = network.get_weights()
picture = numbers(1, 12, 12, 1)
before = relu(same(picture, kernel1) + bias1)
windows = before.reshape(1, 6, 2, 6, 2, 4).transpose(0, 1, 3, 5, 2, 4).reshape(1, 6, 6, 4, 4)
switches = np.arange(4) == windows.argmax(-1)[..., None]
after = relu(same(windows.max(-1), kernel2) + bias2)

unpooled = same(after, flipped(kernel2))[..., None] * switches
unpooled = unpooled.reshape(1, 6, 6, 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(1, 12, 12, 4)
by_hand = same(relu(unpooled), flipped(kernel1))

# %% [markdown]
# `ka.deconvnet` does the same for these and all other layers, in one model that runs on batches.

# %%
in_one = ka.deconvnet(network, "conv2").predict(picture, verbose=0)
print(f"largest difference: {np.abs(in_one - by_hand).max():.0e} of {np.abs(by_hand).max():.2f}")
np.testing.assert_allclose(in_one, by_hand, atol=1e-5)

# %% [markdown]
# | the recipe | write instead |
# | --- | --- |
# | `DenseTranspose(dense)` | `ka.adjoint(dense, bias="own")` |
# | the same with x − b in front, as in keras#5060 | `ka.adjoint(dense, bias="subtract")` |
# | `Lambda` around a transpose | `ka.adjoint(dense)` |
# | `Conv2DTranspose` and `set_weights`, once | `ka.adjoint(conv, tied=False)` |
# | `Conv2DTranspose` and `set_weights`, again and again | `ka.adjoint(conv)` |
# | a second `Conv2D` with a flipped kernel | `ka.adjoint(conv)`, or `ka.untie(model, to="conv")` |
# | nanopony's `Deconvolution2D(conv)` and `DePool2D(pool)` | `ka.autoencoder(encoder, pooling="switches")` |
# | unpooling by stored masks | `ka.autoencoder(encoder, pooling="switches")` |
# | a loop over the layers in reverse | `ka.deconvnet(model, layer)`, `ka.mirror(encoder)` |
