# %% [markdown]
# # Rules for your own layers
#
# `ka.adjoint` knows the linear layers of Keras, and takes your own as well: once a layer has proved to be linear on random
# numbers, its adjoint is derived by transposing the backend's derivative. It is tied, saved and trained like any other. So when
# is a *rule* worth its lines, a function that takes the layer and returns the layer that computes its adjoint? If the adjoint
# should be quicker than a derivative, be made of stock layers, so that `ka.untie` and every export format take it, or if the
# layer is linear in a way that no test can show. Rules are tested every time they are used, so a wrong one is refused.

# %%
import tempfile
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(1)

# %% [markdown]
# ## A layer without weights
#
# Periodic signals, such as angles or hours of the day, need padding that wraps around: the last values are repeated in front
# of the first. Keras has no layer for that. Here is one.


# %%
@keras.saving.register_keras_serializable(package="guide")
class CircularPadding1D(layers.Layer):
    """Puts the last `width` values in front and the first ones behind."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width

    def call(self, x):
        return ops.concatenate([x[:, -self.width :], x, x[:, : self.width]], axis=1)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


padding = CircularPadding1D(2)
padding.build((None, 10, 3))
automatic = ka.adjoint(padding)
print(type(automatic).__name__, "-", ka.check_adjoint(padding, automatic))
assert ka.check_adjoint(padding, automatic)

# %% [markdown]
# This works without a rule. What does the derivative compute? The layer copies each of the last two values to two positions:
# their own, and one in front. The adjoint adds up the values at these two positions. In general:
#
# | the layer | its adjoint |
# | --- | --- |
# | moves a number | moves it back |
# | copies a number to two positions | adds the two |
# | adds two numbers | copies its input to both |
# | drops a number | returns a zero in its position |
# | multiplies by w | multiplies by w |


# %%
@keras.saving.register_keras_serializable(package="guide")
class CircularFolding1D(layers.Layer):
    """The adjoint of `CircularPadding1D`: adds what wrapped around to where it came from."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width

    def call(self, y):
        width = self.width
        front, middle, back = y[:, :width], y[:, width:-width], y[:, -width:]
        nothing = ops.zeros_like(middle[:, width:])
        to_the_end = ops.concatenate([nothing, front], axis=1)
        to_the_start = ops.concatenate([back, nothing], axis=1)
        return middle + to_the_end + to_the_start

    def get_config(self):
        return {**super().get_config(), "width": self.width}


# %% [markdown]
# The rule itself has three lines. It takes `name`, because mirrors name their layers after their sources; it may take any
# other option of `ka.adjoint`. A rule that forgets the addition and only crops is refused:


# %%
class WrongPadding1D(CircularPadding1D):
    pass


@ka.register_rule(WrongPadding1D)
def only_cut_off(source, name=None):
    return layers.Cropping1D(source.width, name=name)


wrong = WrongPadding1D(2)
wrong.build((None, 10, 3))
try:
    ka.adjoint(wrong)
except ka.NoRuleError as error:
    print(error)

# %%


@ka.register_rule(CircularPadding1D)
def circular_folding(source, name=None):
    return CircularFolding1D(source.width, name=name)


print(ka.check_adjoint(padding))
assert ka.check_adjoint(padding)

# %% [markdown]
# From now on your layer works like any other: in linear models, in mirrors, in files.

# %%
encoder = keras.Sequential(
    [
        keras.Input((24, 1)),
        CircularPadding1D(2),
        layers.Conv1D(4, 5, strides=2, activation="elu"),
        layers.Flatten(),
        layers.Dense(3),
    ]
)
autoencoder = ka.autoencoder(encoder)
with tempfile.TemporaryDirectory() as folder:
    autoencoder.save(Path(folder) / "circular.keras")
    loaded = keras.saving.load_model(Path(folder) / "circular.keras")
print("output:", tuple(loaded.output_shape), "  tied:", ka.is_tied(loaded))
assert ka.is_tied(loaded)

# %% [markdown]
# ## A layer made of layers
#
# For a layer with weights of its own, the automatic adjoint is usually the right one: it reads them at every call. A rule may
# also return a layer that holds the source, as an attribute or in a function, and reads its weights. `ka.adjoint` puts that
# layer into a tied one, as for the layers of Keras: freezing the one side does not freeze the other, the weights are counted
# and stored once, and where a file is loaded, the rule makes the layer anew.


# %%
@keras.saving.register_keras_serializable(package="guide")
class Mixing(layers.Layer):
    """Multiplies by a square matrix."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        return x @ self.matrix


class Unmixing(layers.Layer):
    def __init__(self, mixing, name=None):
        super().__init__(name=name)
        self.mixing = mixing

    def call(self, y):
        return y @ ops.transpose(self.mixing.matrix)


@ka.register_rule(Mixing)
def unmixing(source, name=None):
    return Unmixing(source, name=name)


mixing = Mixing()
mixing.build((None, 5))
backward = ka.adjoint(mixing)
backward.trainable = False
print(ka.check_adjoint(mixing, backward), "  tied:", ka.is_tied(backward, mixing), "  trained:", mixing.trainable)
assert ka.check_adjoint(mixing, backward) and ka.is_tied(backward, mixing) and mixing.trainable

# %% [markdown]
# A rule may also combine existing adjoints, which are tied as always, so there is no layer to write. This one is a dense layer
# with a matrix of low rank, a product of two thin matrices. Its adjoint applies their adjoints in reverse order,
# (U V)ᵀ = Vᵀ Uᵀ.


# %%
@keras.saving.register_keras_serializable(package="guide")
class LowRank(layers.Layer):
    """Two dense layers, one after the other, without a bias."""

    def __init__(self, narrow, wide, **options):
        super().__init__(**options)
        self.narrow, self.wide = narrow, wide

    def build(self, shape):
        for part in (self.narrow, self.wide):
            if not part.built:  # parts that come out of a file are built
                part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, x):
        return self.wide(self.narrow(x))

    def get_config(self):
        narrow, wide = map(keras.saving.serialize_keras_object, (self.narrow, self.wide))
        return {**super().get_config(), "narrow": narrow, "wide": wide}

    @classmethod
    def from_config(cls, config):
        for name in ("narrow", "wide"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


@ka.register_rule(LowRank)
def low_rank(source, name=None):
    return keras.Sequential([ka.adjoint(source.wide), ka.adjoint(source.narrow)], name=name)


low = LowRank(layers.Dense(2, use_bias=False), layers.Dense(30, use_bias=False))
x = keras.Input((20,))
y = low(x)
model = keras.Model(x, ka.adjoint(low)(y))
print(ka.check_adjoint(low))
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "low_rank.keras")
    loaded = keras.saving.load_model(Path(folder) / "low_rank.keras")
print("parameters:", loaded.count_params(), "  tied after loading:", ka.is_tied(loaded))
assert ka.check_adjoint(low) and ka.is_tied(loaded)
assert loaded.count_params() == low.count_params() == 100

# %% [markdown]
# ## A layer that is not linear
#
# A custom activation has no adjoint. `ka.mirror` needs a policy for it: a dictionary that says what kind of layer it is.


# %%
@keras.saving.register_keras_serializable(package="guide")
class Snake(layers.Layer):
    """x + sin² x, an activation for periodic signals (Ziyin et al. 2020)."""

    def call(self, x):
        return x + ops.square(ops.sin(x))


encoder = keras.Sequential([keras.Input((20,)), layers.Dense(8), Snake(), layers.Dense(3)])
try:
    ka.mirror(encoder)
except ka.NoRuleError as error:
    print(error)

decoder = ka.mirror(encoder, activation={Snake: "same"})
print([type(layer).__name__ for layer in decoder.layers])
assert np.isfinite(decoder.predict(np.ones((1, 3)), verbose=0)).all()
