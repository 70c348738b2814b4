"""Layers that change a tensor in training alone, or not at all: at inference they are the identity, their own adjoint."""

import keras
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.shape import identity

# Augmentation. `RandomCrop` is not among it: at inference it crops the centre.
_AUGMENTATION = (
    "AugMix",
    "CutMix",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
)
AUGMENTATION: tuple[type, ...] = tuple(
    getattr(keras.layers, name) for name in _AUGMENTATION if hasattr(keras.layers, name)
)  # older versions of Keras lack some

rule(*AUGMENTATION)(identity)


@rule(keras.layers.Masking)
def masking(source: Layer, *, name: str | None = None) -> Layer:
    """Time steps that are zeros are masked by becoming zeros, so nothing changes."""
    if source.mask_value != 0:
        raise NoRuleError(
            "Masking by another number than 0 sets time steps of that number to 0, which is not linear. "
            f"Received: mask_value={source.mask_value!r}, {describe(source)}"
        )
    return identity(source, name=name)
