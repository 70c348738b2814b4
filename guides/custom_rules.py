# %% [markdown]
# # Rules for your own layers
#
# `ka.adjoint` knows the linear layers of Keras. It does not know yours. A *rule* teaches it: a function that takes your layer
# and returns the layer that computes its adjoint. Rules are tested every time they are used, so a wrong one does no harm.

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import keras_adjoint as ka

keras.utils.set_random_seed(1)

# %% [markdown]
# ## A layer without weights
#
# Signals that go round in a circle, such as angles or hours of the day, want padding that wraps around: in front of the
# first values stand the last ones. Keras has no layer for that. Here is one.


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
try:
    ka.adjoint(padding)
except ka.NoRuleError as error:
    print(error)

# %% [markdown]
# What is its adjoint? Follow the numbers. The layer hands each of the last two values to two places: where they were, and in
# front. Backwards, what arrives at two places goes to the one that both came from: it is added up. In general:
#
# | forth | back |
# | --- | --- |
# | moves a number | moves it back |
# | copies a number to two places | adds the two |
# | adds two numbers | copies what comes back to both |
# | drops a number | puts a zero in its place |
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
# The rule itself is three lines. It takes `name`, because mirrors name their layers after those that they undo; it may take
# any other option of `ka.adjoint`. Had we forgotten to add up, and only cut the ends off, it would be refused:


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
# From here on your layer is like any other: in linear models, in mirrors, in files.

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
# A rule may put together adjoints that exist already. Then there is nothing to write, and they are tied as always. This
# layer is a dense one whose matrix has a low rank: it goes through a few numbers in the middle. Backwards the two parts come
# in the other order, (U V)ᵀ = Vᵀ Uᵀ.


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
# An activation of your own has no adjoint. `ka.mirror` asks what to do about it, and the answer is a policy: a dictionary
# that says what kind of thing the layer is.


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
