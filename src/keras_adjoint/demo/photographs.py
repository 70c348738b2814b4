"""Photographs that come inside of scikit-image, so that nothing is downloaded: some to train on, others held out."""

from pathlib import Path

import numpy as np
import skimage.data

PATCH = 45  # odd, and so are its halves 23, where a stride of 2 leaves a choice

# name: (the file that scikit-image brings along, the function of `skimage.data` that reads it)
TRAINING = {
    "astronaut": ("astronaut.png", "astronaut"),
    "coffee": ("coffee.png", "coffee"),
    "motorcycle": ("motorcycle_left.png", "stereo_motorcycle"),
}
HELD_OUT = {
    "cat": ("chelsea.png", "chelsea"),
    "rocket": ("rocket.jpg", "rocket"),
}


def training_photographs():
    return {name: read(*where) for name, where in TRAINING.items()}


def held_out_photographs():
    """Whole photographs of odd size: 4 n + 1, so that both strides of 2 leave a choice."""
    photographs = {name: read(*where) for name, where in HELD_OUT.items()}
    return {name: _cut_to_odd_size(photograph) for name, photograph in photographs.items()}


def random_patches(photographs, count, *, seed):
    """Square patches of random places, half of them mirrored, as many from each photograph."""
    generator = np.random.default_rng(seed)
    photographs = list(photographs)
    patches = np.empty((count, PATCH, PATCH, 3), "float32")
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        row, column = (generator.integers(size - PATCH + 1) for size in photograph.shape[:2])
        patch = photograph[row : row + PATCH, column : column + PATCH]
        patches[number] = patch[:, ::-1] if generator.random() < 0.5 else patch
    return patches


def as_picture(values):
    """Values around zero, as models see photographs, as colours from 0 to 1."""
    return np.clip(values + 0.5, 0, 1)


def folder():
    """Where scikit-image keeps what it brings along."""
    return Path(skimage.data.__file__).parent


def read(file, function):
    """A colour photograph as numbers from -0.5 to 0.5."""
    # scikit-image would try to download what it did not bring along.
    if not (folder() / file).exists():
        raise FileNotFoundError(f"This scikit-image comes without {file}; its wheels of 0.25 and 0.26 have it.")
    picture = getattr(skimage.data, function)()
    picture = picture[0] if isinstance(picture, tuple) else picture  # of a stereo pair the left one
    return picture[..., :3].astype("float32") / 255 - 0.5


def _cut_to_odd_size(photograph):
    height, width = ((size - 1) // 4 * 4 + 1 for size in photograph.shape[:2])
    return photograph[:height, :width]
