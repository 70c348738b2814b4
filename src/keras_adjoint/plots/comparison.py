"""Reconstructions compared with their originals: the numbers behind the pictures."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

Limits: TypeAlias = tuple[float, float]  # the smallest and the largest value

RANGES: tuple[Limits, ...] = ((0, 1), (-1, 1), (0, 255))


@dataclass(frozen=True)
class Comparison:
    """A sample and its reconstruction.

    Attributes:
        original: The sample.
        raw: Its reconstruction; float64, since the numbers of an untrained decoder may be large.
        limits: The smallest and the largest value that samples may have.
    """

    original: np.ndarray
    raw: np.ndarray
    limits: Limits

    @property
    def fitted(self) -> np.ndarray:
        """The reconstruction with the mean and the standard deviation of the original."""
        if not self.is_finite:
            return self.raw
        deviation = self.raw - self.raw.mean()
        return np.asarray(self.original.mean() + deviation * (self.original.std() / (deviation.std() or 1.0)))

    @property
    def is_finite(self) -> bool:
        """Whether the reconstruction has no NaN or infinity."""
        return bool(np.isfinite(self.raw).all())

    def psnr(self, *, fit: bool = False) -> float:
        """Peak signal-to-noise ratio in decibels: 10 log₁₀(range² / mean squared error)."""
        return psnr(self.fitted if fit else self.raw, self.original, self.limits[1] - self.limits[0])


def psnr(reconstruction: np.ndarray, original: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio in decibels; infinite for equal arrays, NaN where the error is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.mean(np.square(np.asarray(reconstruction, "float64") - original))
    if not np.isfinite(error):
        return float("nan")
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def compare(autoencoder: keras.Model, samples: Iterable[np.ndarray], limits: Limits | None = None) -> list[Comparison]:
    """A `Comparison` of each sample. They are run one by one, so that their sizes may differ.

    Raises:
        ValueError: If the model does not return one tensor of the shape of its one input.
    """
    samples = [np.asarray(sample, "float32") for sample in samples]
    limits = limits or limits_of(samples)
    return [Comparison(sample, reconstruct(autoencoder, sample), limits) for sample in samples]


def reconstruct(autoencoder: keras.Model, sample: np.ndarray) -> np.ndarray:
    output = autoencoder(ops.convert_to_tensor(sample[None]), training=False)
    shape = tuple(getattr(output, "shape", ()))
    if shape != (1, *sample.shape):
        raise ValueError(
            f"A reconstruction has the shape of its original. Received: a sample of shape {sample.shape}, for which "
            f"`{autoencoder.name}` returns {f'shape {shape[1:]}' if shape else 'several tensors'}"
        )
    return np.asarray(ops.convert_to_numpy(output)[0], "float64")


def limits_of(samples: list[np.ndarray]) -> Limits:
    """The first of the usual ranges that holds all samples, or else their own range."""
    lowest, highest = min(sample.min() for sample in samples), max(sample.max() for sample in samples)
    usual = (pair for pair in RANGES if pair[0] <= lowest and highest <= pair[1])
    return next(usual, (float(lowest), float(highest)))


def drawable(sample: np.ndarray) -> np.ndarray:
    """A sample as a picture, `(height, width)` or `(height, width, 3)`, or as curves, `(length, curves)`.

    A volume is reduced to its middle slice, channels other than one or three to their mean.
    """
    if sample.ndim == 1:
        return sample[:, None]
    if sample.ndim == 2:
        return sample
    sample = sample[sample.shape[0] // 2] if sample.ndim == 4 else sample
    if sample.shape[-1] not in (1, 3) and sample.shape[0] in (1, 3):
        sample = np.moveaxis(sample, 0, -1)  # channels first
    return sample if sample.shape[-1] == 3 else sample.mean(-1)


def is_curve(sample: np.ndarray) -> bool:
    return sample.ndim < 3


# --- in words


def in_decibels(ratio: float) -> str:
    if np.isnan(ratio):
        return "not finite"
    return f"{ratio:.1f} dB".replace("-", "−") if np.isfinite(ratio) else "∞ dB, no difference"


def largest_difference(largest: float) -> str:
    return f"largest ±{largest:.2g}" if np.isfinite(largest) else "not finite"
