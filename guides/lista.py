# %% [markdown]
# # Sparse codes in sixteen steps: LISTA with the dictionary's own transpose
#
# x has few numbers that are not zero, and y = A x has fewer numbers than x. Proximal gradients find x again: ISTA takes a
# step along Aᵀ(y − A x), and brings every number closer to zero by a threshold. They need hundreds of steps. Gregor and
# LeCun (2010) made a network of a few steps, and trained it.
#
# The problem is the usual one, of Chen, Liu, Wang and Yin (2018): A is a Gaussian 250 × 500 matrix with columns of length
# one, each number of x is not zero with a probability of 10 %, and then normally distributed; there is no noise. We compare
# networks of 16 steps, all made by `ka.unroll`, from the layer that has the dictionary for its kernel:
#
# - **ISTA** and **FISTA** as they are, with a weight of 0.1;
# - **trained numbers**: Aᵀ is the transpose of the dictionary, tied to its kernel. What is trained is how long each step is,
#   its threshold and its momentum, 46 numbers in all;
# - **trained matrices**: each step has a matrix of its own in the place of Aᵀ, which is trained as well.
#
# ‖x̂ − x‖² / ‖x‖² of 1000 codes that were not trained on, in decibels:
#
# <!-- Written by `make guides`. Changes made by hand are lost. -->
#
# | | mean of 3 | worst |
# | --- | --- | --- |
# | ISTA | -5.3 dB | -5.2 dB |
# | FISTA | -10.1 dB | -10.0 dB |
# | trained numbers | -19.8 dB | -19.5 dB |
# | trained matrices | -20.8 dB | -20.6 dB |
#
# <!-- End of what is written. -->
#
# The transpose itself is enough to double FISTA's decibels, with 46 numbers. Matrices of their own, two million numbers
# more, gain another decibel in as much training again.
#
# `python guides/lista.py` trains them once, in a minute; `--full` is the comparison above, for three dictionaries.

# %%
import sys

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers

FULL, QUICK = "--full" in sys.argv, "--quick" in sys.argv
SEEDS = (1, 2, 3) if FULL else (1,)
STEPS = 4 if QUICK else 16
NUMBERS, CODES, SHARE = 250, 500, 0.1
BATCH = 64
BATCHES = 4 if QUICK else 400  # to train on

# %% [markdown]
# ## Signals and codes
#
# The dictionary is the kernel of a `Dense` layer, which takes codes and gives signals. It stays as it is.


# %%
def dictionary(seed):
    layer = layers.Dense(NUMBERS, use_bias=False, trainable=False, name="dictionary")
    layer.build((None, CODES))
    kernel = np.random.default_rng(seed).normal(size=(CODES, NUMBERS))  # a row is an atom
    layer.set_weights([kernel / np.linalg.norm(kernel, axis=1, keepdims=True)])
    return layer


def codes(rng, count):
    return (rng.random((count, CODES)) < SHARE) * rng.normal(size=(count, CODES))


def pairs(layer, rng, count):
    """Signals and their codes."""
    x = codes(rng, count).astype("float32")
    return x @ keras.ops.convert_to_numpy(layer.kernel), x


# %% [markdown]
# ## Networks
#
# `learn` says what is trained. With `tied="forward"` only the A of each step is the layer's. The matrices begin as the
# transpose, and the numbers beside them as they were trained with it.


# %%
def train(model, layer, seed, rate):
    """New codes in every batch, while the rate of learning falls to zero."""
    signals, wanted = pairs(layer, np.random.default_rng(100 + seed), BATCH * BATCHES)
    schedule = keras.optimizers.schedules.CosineDecay(rate, BATCHES)
    model.compile(keras.optimizers.Adam(schedule, beta_2=0.99, global_clipnorm=1.0), loss)
    model.fit(signals, wanted, batch_size=BATCH, verbose=0)
    return model


def loss(wanted, found):
    return keras.ops.sum((wanted - found) ** 2) / keras.ops.sum(wanted**2)


def networks(seed):
    """(name, network) of each."""
    layer = dictionary(seed)
    options = {"weight": 0.1, "prox": "soft"}
    yield "ISTA", ka.unroll(layer, STEPS, method="ista", learn=(), **options), layer
    yield "FISTA", ka.unroll(layer, STEPS, method="fista", learn=(), **options), layer
    options |= {"method": "fista", "learn": ("step", "threshold", "momentum")}
    numbers = train(ka.unroll(layer, STEPS, **options), layer, seed, 0.03)
    yield "trained numbers", numbers, layer
    matrices = ka.unroll(layer, STEPS, tied="forward", **options)
    for weight, trained in zip(scalars(matrices), scalars(numbers), strict=True):
        weight.assign(trained)
    yield "trained matrices", train(matrices, layer, seed, 3e-4), layer


def scalars(model):
    """The lengths, thresholds and momenta of all steps."""
    return [weight for weight in model.trainable_variables if not weight.shape]


# %% [markdown]
# ## How much of the codes they miss


# %%
def missed(model, layer, seed):
    """In decibels."""
    signals, wanted = pairs(layer, np.random.default_rng(200 + seed), 1000)
    found = model.predict(signals, batch_size=BATCH, verbose=0)
    return 10 * np.log10(np.sum((found - wanted) ** 2) / np.sum(wanted**2))


results = {}
for seed in SEEDS:
    for name, model, layer in networks(seed):
        results.setdefault(name, []).append(missed(model, layer, seed))

print(f"| | mean of {len(SEEDS)} | worst |\n| --- | --- | --- |")
for name, values in results.items():
    print(f"| {name} | {np.mean(values):.1f} dB | {max(values):.1f} dB |")

# %%
assert QUICK or np.mean(results["trained numbers"]) < np.mean(results["FISTA"])
