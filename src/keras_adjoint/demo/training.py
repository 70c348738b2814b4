"""Training: photographs and their patches, a progress bar, and the measurements of a trained autoencoder."""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from rich.progress import Progress, TaskID

from keras_adjoint.demo.models import PATCH, Decode, for_size, make_autoencoder
from keras_adjoint.plots.comparison import psnr
from keras_adjoint.plots.photographs import bundled

TRAINING = ("astronaut", "coffee", "motorcycle")
HELD_OUT = ("cat", "rocket")
BATCH = 16
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.2
RECENT = 50  # steps that the progress bar's PSNR is the mean of


# --- photographs


def training_photographs() -> dict[str, np.ndarray]:
    return {name: photograph(name) for name in TRAINING}


def held_out_photographs() -> dict[str, np.ndarray]:
    """Whole photographs, cropped to sizes 4 n + 1, which are ambiguous at both strides of 2."""
    photographs = {name: photograph(name) for name in HELD_OUT}
    for name, values in photographs.items():
        height, width = ((size - 1) // 4 * 4 + 1 for size in values.shape[:2])
        photographs[name] = values[:height, :width]
    return photographs


def photograph(name: str) -> np.ndarray:
    """A photograph as the models take it, from -0.5 to 0.5."""
    return bundled(name).astype("float32") / 255 - 0.5


def as_picture(values: np.ndarray) -> np.ndarray:
    """Values around zero, as the models take them, as colours from 0 to 1."""
    return np.clip(values + 0.5, 0, 1)


def random_patches(photographs: Iterable[np.ndarray], count: int, *, seed: int) -> np.ndarray:
    """Square patches from random places, half of them mirrored, as many from each photograph."""
    generator = np.random.default_rng(seed)
    photographs = list(photographs)
    patches = np.empty((count, PATCH, PATCH, 3), "float32")
    for number in range(count):
        values = photographs[number % len(photographs)]
        row, column = (generator.integers(size - PATCH + 1) for size in values.shape[:2])
        patch = values[row : row + PATCH, column : column + PATCH]
        patches[number] = patch[:, ::-1] if generator.random() < 0.5 else patch
    return patches


def batches(patches: np.ndarray, *, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random batches without end, each as input and as target."""
    generator = np.random.default_rng(seed)
    while True:
        batch = patches[generator.integers(len(patches), size=BATCH)]
        yield batch, batch


# --- training


@dataclass
class Trained:
    """A trained autoencoder and the figures that the demo compares."""

    name: str
    model: keras.Model
    encoder: keras.Model
    decoder: keras.Model
    seconds: float  # of training, compilation included
    step_seconds: float  # the median step
    file_bytes: int = 0
    reconstructions: dict[str, np.ndarray] = field(default_factory=dict)  # of the held-out photographs, by name
    psnr: dict[str, float] = field(default_factory=dict)  # in dB, by name

    @property
    def parameters(self) -> int:
        return int(self.model.count_params())

    @property
    def slots(self) -> list[keras.Variable]:
        """Variables that the optimizer keeps per parameter."""
        bookkeeping = {"iteration", "learning_rate"}
        return [variable for variable in self.model.optimizer.variables if variable.name not in bookkeeping]

    @property
    def slot_numbers(self) -> int:
        return sum(int(np.prod(slot.shape)) for slot in self.slots)

    @property
    def mean_psnr(self) -> float:
        return statistics.mean(self.psnr.values())

    def reconstruct(self, photographs: Mapping[str, np.ndarray]) -> None:
        """Reconstruct whole held-out photographs, each at its own odd size."""
        for name, values in photographs.items():
            resized = for_size(self.encoder, self.decoder, values.shape[:2])
            self.reconstructions[name] = resized.predict(values[None], verbose=0)[0]
            self.psnr[name] = psnr(as_picture(self.reconstructions[name]), as_picture(values), 1)


class StepTimer(keras.callbacks.Callback):
    """Takes the time of every step, and moves the progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        super().__init__()
        self.progress, self.task = progress, task
        self.times: list[float] = []
        self.losses = [0.0]

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.times.append(time.perf_counter())
        self.losses.append(float((logs or {})["loss"]) * (batch + 1))  # Keras reports the mean since the start
        recent = self.losses[-RECENT - 1 :]
        quality = -10 * np.log10((recent[-1] - recent[0]) / (len(recent) - 1))
        self.progress.update(self.task, completed=batch + 1, quality=f"{quality:.1f} dB")

    @property
    def step_seconds(self) -> float:
        return float(np.median(np.diff(self.times)))


def train(name: str, decode: Decode, patches: np.ndarray, *, steps: int, seed: int, progress: Progress) -> Trained:
    """An autoencoder trained on `steps` batches; the same seed gives the same encoder and the same batches."""
    model, encoder, decoder = make_autoencoder(decode, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY), "mse")
    timer = StepTimer(progress, progress.add_task(name, total=steps, quality=""))
    start = time.perf_counter()
    model.fit(batches(patches, seed=seed), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[timer])
    return Trained(name, model, encoder, decoder, time.perf_counter() - start, timer.step_seconds)
