"""What an autoencoder makes of a sample: the numbers behind the pictures."""

from dataclasses import dataclass

import numpy as np
from keras import ops

RANGES = ((0, 1), (-1, 1), (0, 255))


@dataclass(frozen=True)
class Comparison:
    """A sample and what came back for it.

    Attributes:
        original: The sample.
        raw: What came back; float64, since nothing keeps the numbers of a decoder small that was never trained.
        limits: The smallest and largest value that samples may have.
    """

    original: np.ndarray
    raw: np.ndarray
    limits: tuple

    @property
    def fitted(self):
        """What came back, with the mean and the standard deviation of the original."""
        if not self.is_finite:
            return self.raw
        away = self.raw - self.raw.mean()
        return self.original.mean() + away * (self.original.std() / (away.std() or 1.0))

    @property
    def is_finite(self):
        """Whether numbers came back, and no NaN or infinity."""
        return bool(np.isfinite(self.raw).all())

    def psnr(self, *, fit=False):
        """Peak signal-to-noise ratio in decibels: 10 log₁₀(range² / mean squared error)."""
        return psnr(self.fitted if fit else self.raw, self.original, self.limits[1] - self.limits[0])


def psnr(reconstruction, original, peak):
    """Peak signal-to-noise ratio in decibels; infinite where nothing differs, NaN where the error is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.mean(np.square(np.asarray(reconstruction, "float64") - original))
    if not np.isfinite(error):
        return float("nan")
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def compare(autoencoder, samples, limits=None):
    """A `Comparison` for every sample, each of which is run on its own, so that their sizes may differ.

    Raises:
        ValueError: If the model does not return one tensor of the shape of its one input.
    """
    samples = [np.asarray(sample, "float32") for sample in samples]
    limits = limits or limits_of(samples)
    return [Comparison(sample, back_of(autoencoder, sample), limits) for sample in samples]


def back_of(autoencoder, sample):
    back = autoencoder(ops.convert_to_tensor(sample[None]), training=False)
    shape = tuple(getattr(back, "shape", ()))
    if shape != (1, *sample.shape):
        raise ValueError(
            f"A reconstruction has the shape of its original. Received: a sample of shape {sample.shape}, for which "
            f"`{autoencoder.name}` returns {f'shape {shape[1:]}' if shape else 'several tensors'}"
        )
    return ops.convert_to_numpy(back)[0].astype("float64")


def limits_of(samples):
    """The usual range of values that the samples fit into, or else their own."""
    lowest, highest = min(sample.min() for sample in samples), max(sample.max() for sample in samples)
    usual = (pair for pair in RANGES if pair[0] <= lowest and highest <= pair[1])
    return next(usual, (float(lowest), float(highest)))


def as_drawn(sample):
    """A sample as what can be drawn: `(height, width)`, `(height, width, 3)`, or `(length, curves)`.

    Of a volume it is the slice in the middle, of channels other than one or three their mean.
    """
    if sample.ndim == 1:
        return sample[:, None]
    if sample.ndim == 2:
        return sample
    sample = sample[sample.shape[0] // 2] if sample.ndim == 4 else sample
    if sample.shape[-1] not in (1, 3) and sample.shape[0] in (1, 3):
        sample = np.moveaxis(sample, 0, -1)  # channels first
    return sample if sample.shape[-1] == 3 else sample.mean(-1)


def is_curve(sample):
    return sample.ndim < 3
