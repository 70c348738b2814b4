# %% [markdown]
# # Deblurring: a solver that has learned what pictures look like
#
# A camera out of focus mixes every pixel with its neighbours. That is a convolution A with a kernel that is known here,
# and y = A x + noise. `ka.unroll` makes a network of a few steps of the solver FISTA from the layer that has the blur for
# its kernel: each goes downhill along Aᵀ(A x − y), and then a small convolutional network takes the place of the proximal
# operator. What is trained are these networks, the lengths of the steps and the momentum. The blur is frozen.
#
# **The problem.** 256² grey pixels from the middle of four pictures of scikit-image, blurred by a Gaussian of
# σ = 1.6 pixels (13 × 13 taps), with noise of 2/255. The blur has `padding="valid"`: as in a real camera, the light at
# the border comes from beyond it, and the networks see nothing but the 256² pixels. So they solve for 268², of which the
# middle is compared. Networks are trained on *other* pictures of scikit-image, of which those that are compared here
# have no part.
#
# **The others.** Wiener's and Richardson and Lucy's methods are those of scikit-image, on pictures that are extended by
# reflection; total variation is minimised for the same A. All three have the parameter that is best for *that very
# picture*, which only the original can tell. The network has none.
#
# PSNR in decibels:
#
# <!-- Written by `make guides`. Changes made by hand are lost. -->
#
# | | camera | astronaut | chelsea | coins |
# | --- | --- | --- | --- | --- |
# | photo | 24.84 | 24.40 | 28.54 | 23.73 |
# | Wiener at its best | 28.00 | 27.38 | 30.39 | 26.01 |
# | Richardson–Lucy at its best | 28.11 | 27.63 | 30.34 | 26.14 |
# | total variation at its best | 28.92 | 28.22 | 29.84 | 27.22 |
# | network, mean of 3 seeds | 29.26 | 28.93 | 30.44 | 27.43 |
# | network, worst of them | 29.25 | 28.92 | 30.43 | 27.43 |
#
# <!-- End of what is written. -->
#
# ![The blurred photo, and what total variation and the network make of it](../docs/deblurring.png)
#
# The network has no parameter to choose, and is above total variation and the other two at their best on all four pictures. It
# was trained on 3,300 batches of four small pictures, twelve minutes of one processor for each seed. Each photo is
# restored in its eight views, turned and mirrored, of which the mean is taken: they err in different ways.
#
# `python guides/deblurring.py` trains one network for half a minute; `--full` is the comparison above, on JAX.

# %%
import sys
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
import scipy.ndimage
import skimage.data
import skimage.restoration
from keras import layers, ops
from matplotlib.figure import Figure

FULL, QUICK = "--full" in sys.argv, "--quick" in sys.argv
SEEDS = (1, 2, 3) if FULL else (1,)
UPDATES = 3300 if FULL else 3 if QUICK else 100  # of the weights in training
STEPS, FILTERS, CONVOLUTIONS = (1, 4, 2) if QUICK else (6, 32, 4)
BATCH, SIDE = 4, 64  # pixels of a picture to train on
SIGMA, NOISE, TAPS = 1.6, 2 / 255, 13
EDGE = TAPS // 2
TESTED = 64 if QUICK else 256

# %% [markdown]
# ## Pictures
#
# Those that are compared were chosen before anything was trained.


# %%
def grey(picture):
    """From 0 to 1."""
    picture = np.asarray(picture) / 255
    return (picture @ [0.2125, 0.7154, 0.0721] if picture.ndim == 3 else picture).astype("float32")


def middle(picture, side):
    top, left = ((size - side) // 2 for size in picture.shape)
    return picture[top : top + side, left : left + side]


HELD_OUT = {  # the first is `camera()[128:384, 128:384]` and what is around it
    name: middle(grey(getattr(skimage.data, name)()), TESTED + 2 * EDGE)
    for name in ("camera", "astronaut", "chelsea", "coins")
}
left, right, _ = skimage.data.stereo_motorcycle()
OTHERS = ("coffee", "rocket", "moon", "brick", "grass", "gravel", "clock", "page", "text", "cell", "retina")
OTHERS += ("hubble_deep_field", "immunohistochemistry")
PICTURES = [grey(picture) for picture in (left, right, *(getattr(skimage.data, name)() for name in OTHERS))]


def pieces(rng, count):
    """Pieces of the others, some of them at half the size, turned and mirrored."""
    found = []
    for _ in range(count):
        picture = PICTURES[rng.integers(len(PICTURES))]
        scale = 2 if rng.random() < 1 / 3 and min(picture.shape) > 2 * SIDE else 1
        top, left = (rng.integers(size - scale * SIDE + 1) for size in picture.shape)
        piece = picture[top : top + scale * SIDE, left : left + scale * SIDE]
        piece = np.rot90(piece.reshape(SIDE, scale, SIDE, scale).mean((1, 3)), rng.integers(4))
        found.append(piece if rng.random() < 0.5 else piece.T)
    return np.stack(found)[..., None]


# %% [markdown]
# ## The blur
#
# A Gaussian is a convolution along each axis, one after the other. The two layers are a linear model.

# %%
GAUSSIAN = np.exp(-((np.arange(TAPS) - EDGE) ** 2) / (2 * SIGMA**2))
GAUSSIAN /= GAUSSIAN.sum()
KERNEL = np.outer(GAUSSIAN, GAUSSIAN)


def blur(side):
    """A model for pictures of one size."""
    along = [layers.Conv2D(1, size, use_bias=False) for size in ((TAPS, 1), (1, TAPS))]
    model = keras.Sequential([keras.Input((side, side, 1)), *along], name="blur")
    model.set_weights([GAUSSIAN.reshape(layer.kernel.shape) for layer in along])
    model.trainable = False
    return model


def photograph(pictures, rng):
    """What the camera takes of them."""
    blurred = blur(pictures.shape[1]).predict(pictures, verbose=0)
    return (blurred + rng.normal(0, NOISE, blurred.shape)).astype("float32")


# %% [markdown]
# ## The network
#
# Each step has its own small network, which works on blocks of 2 × 2 pixels. The first x is made by `ka.LeastSquares` with
# a ridge, close to Wiener's filter. Weights do not depend on the size, so that we train on small pictures.


# %%
@keras.saving.register_keras_serializable("guides")
class Blocks(layers.Layer):
    """2 × 2 pixels as four channels, or, `apart`, the other way."""

    def __init__(self, apart=False, **options):
        super().__init__(**options)
        self.apart = apart

    def call(self, x):
        count, height, width, channels = ops.shape(x)
        if self.apart:
            x = ops.transpose(ops.reshape(x, (count, height, width, 2, 2)), (0, 1, 3, 2, 4))
            return ops.reshape(x, (count, 2 * height, 2 * width, 1))
        x = ops.transpose(ops.reshape(x, (count, height // 2, 2, width // 2, 2)), (0, 1, 3, 2, 4))
        return ops.reshape(x, (count, height // 2, width // 2, 4))

    def compute_output_spec(self, x):
        count, height, width, _ = x.shape
        shape = (count, 2 * height, 2 * width, 1) if self.apart else (count, height // 2, width // 2, 4)
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "apart": self.apart}


def denoiser(side):
    """x ↦ x + what a few convolutions make of it."""
    picture = keras.Input((side, side, 1))
    x = Blocks()(picture)
    for _ in range(CONVOLUTIONS - 1):
        x = layers.Conv2D(FILTERS, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    small = keras.initializers.VarianceScaling(0.01)
    change = Blocks(apart=True)(layers.Conv2D(4, 3, padding="same", kernel_initializer=small)(x))
    return keras.Model(picture, layers.Add()([picture, change]))


def beginning(A):
    """The x with A x close to the photo that differs least from the photo, extended by reflection."""
    photo = keras.Input(A.output_shape[1:])
    wide = ops.pad(photo, ((0, 0), (EDGE, EDGE), (EDGE, EDGE), (0, 0)), mode="symmetric")
    return keras.Model(photo, wide + ka.LeastSquares(A, ridge=0.01, tolerance=0.01)(photo - A(wide)))


def network(side):
    """Photos to pictures."""
    A = blur(side)
    solver = ka.unroll(
        A,
        STEPS,
        method="fista",
        prox=[denoiser(side) for _ in range(STEPS)],
        learn=("step", "momentum"),
        start=beginning(A),
    )
    return keras.Model(solver.input, layers.Cropping2D(EDGE)(solver.output))


def train(seed):
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    pictures = pieces(rng, BATCH * UPDATES)
    model = network(SIDE)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, UPDATES, 1e-5, warmup_target=2e-3, warmup_steps=UPDATES // 50
    )
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=0.5), "mse")
    model.fit(photograph(pictures, rng), pictures[:, EDGE:-EDGE, EDGE:-EDGE], batch_size=BATCH, verbose=0)
    return model


# %% [markdown]
# ## The others


# %%
def psnr(found, picture):
    return -10 * np.log10(np.mean((np.squeeze(found) - picture[EDGE:-EDGE, EDGE:-EDGE]) ** 2))


def reflected(method, photo):
    """A method of scikit-image, which takes the picture for periodic or zero beyond the border."""
    wide = method(np.pad(photo, 32, mode="symmetric"))
    return wide[32:-32, 32:-32]


def wiener(photo, balance):
    return reflected(lambda y: skimage.restoration.wiener(y, KERNEL, balance, clip=False), photo)


def richardson_lucy(photo, count):
    return reflected(lambda y: skimage.restoration.richardson_lucy(y.clip(1e-6), KERNEL, count, clip=False), photo)


def total_variation(photo, weight, count=300):
    """argmin ½‖A x − y‖² + weight·Σ|D x| by primal-dual steps (Chambolle and Pock 2011)."""

    def A(x):
        return gaussian(x)[EDGE:-EDGE, EDGE:-EDGE]

    def gaussian(x):
        return scipy.ndimage.gaussian_filter(x, SIGMA, radius=EDGE, mode="constant")

    def differences(x):
        return np.stack([np.diff(x, axis=axis, append=x.take([-1], axis)) for axis in (0, 1)])

    def transposed(p):
        inner = p[0, :-1], p[1, :, :-1]  # the last differences are zero
        return sum(-np.diff(part, axis=axis, prepend=0, append=0) for axis, part in enumerate(inner))

    x = ahead = np.pad(photo, EDGE, mode="symmetric")
    p, q, balance = np.zeros((2, *x.shape), "float32"), np.zeros_like(photo), 0.02
    for _ in range(count):
        p = p + balance / 3 * differences(ahead)  # the squares of the norms of A and D are below 1 and 8
        p = p / np.maximum(1, np.sqrt(np.sum(p**2, axis=0)) / weight)
        q = (q + balance / 3 * (A(ahead) - photo)) / (1 + balance / 3)
        moved = x - (transposed(p) + gaussian(np.pad(q, EDGE))) / (3 * balance)
        x, ahead = moved, 2 * moved - x
    return x[EDGE:-EDGE, EDGE:-EDGE]


METHODS = {  # and the parameters of which the best is taken, for each picture by itself
    "Wiener": (wiener, np.geomspace(1e-4, 1e-1, 16)),
    "Richardson–Lucy": (richardson_lucy, (20, 40, 80, 120, 160)),
    "total variation": (total_variation, (2.4e-4, 3.2e-4, 4.2e-4, 5.6e-4, 7.5e-4)),
}

# %% [markdown]
# ## In numbers
#
# The noise is the same for all of them.

# %%
photos = {
    name: photograph(picture[None, ..., None], np.random.default_rng(0))[0, ..., 0]
    for name, picture in HELD_OUT.items()
}


def best_of(method, name):
    """The restored picture that is closest to the original."""
    function, parameters = METHODS[method]
    found = [function(photos[name], at) for at in (parameters[:1] if QUICK else parameters)]
    return max(found, key=lambda restored: psnr(restored, HELD_OUT[name]))


def views(picture):
    """The eight ways to turn and mirror a picture, none of which changes the blur."""
    return [np.rot90(side, turns) for side in (picture, picture.T) for turns in range(4)]


def unturned(pictures):
    """`views` undone, each by its own."""
    turned_back = [np.rot90(picture, -turns % 4) for picture, turns in zip(pictures, [0, 1, 2, 3] * 2, strict=True)]
    return [*turned_back[:4], *(picture.T for picture in turned_back[4:])]


def restored_by_network(seed):
    """Each photo by a network that is trained, with weights moved to one for larger pictures.

    What it makes of the photo's eight views, turned back, is averaged: they err in different ways (Timofte, Rothe and Van
    Gool 2016, "Seven ways to improve example-based single image super resolution").
    """
    whole = network(TESTED + 2 * EDGE)
    whole.set_weights(train(seed).get_weights())

    def restored(photo):
        found = whole.predict(np.stack(views(photo))[..., None], batch_size=2, verbose=0)
        return np.mean(unturned(found[..., 0]), axis=0)

    return {name: restored(photo) for name, photo in photos.items()}


networks = []
for seed in SEEDS:
    networks.append(restored_by_network(seed))
    print(f"seed {seed}:", *(f"{name} {psnr(restored, HELD_OUT[name]):.2f}" for name, restored in networks[-1].items()))

others = {method: {name: best_of(method, name) for name in HELD_OUT} for method in METHODS}
rows = {"photo": [psnr(photos[name], picture) for name, picture in HELD_OUT.items()]}
for method, restored in others.items():
    rows[f"{method} at its best"] = [psnr(restored[name], picture) for name, picture in HELD_OUT.items()]
each = np.array([[psnr(restored[name], picture) for name, picture in HELD_OUT.items()] for restored in networks])
rows["network" if len(SEEDS) == 1 else f"network, mean of {len(SEEDS)} seeds"] = each.mean(axis=0)
if len(SEEDS) > 1:
    rows["network, worst of them"] = each.min(axis=0)

print("| |", " | ".join(HELD_OUT), "|")
print("| --- " * (1 + len(HELD_OUT)) + "|")
for name, values in rows.items():
    print(f"| {name} |", " | ".join(f"{value:.2f}" for value in values), "|")

# %% [markdown]
# ## In pictures


# %%
def draw(file):
    """The camera man's face and his camera."""
    shown = {"photo": photos["camera"], "total variation": others["total variation"]["camera"]}
    shown |= {"network": networks[-1]["camera"], "original": HELD_OUT["camera"][EDGE:-EDGE, EDGE:-EDGE]}
    figure = Figure((8.6, 2.35), facecolor="white")
    for column, (title, picture) in enumerate(shown.items()):
        axes = figure.add_axes((0.005 + 0.25 * column, 0.0, 0.24, 0.88))
        axes.imshow(picture[:128, 64:192], cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, size=9.5, color="#16202b", weight="bold")
        axes.set_axis_off()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110)
    print(f"wrote {file}")


if FULL:
    draw(Path("docs") / "deblurring.png")
