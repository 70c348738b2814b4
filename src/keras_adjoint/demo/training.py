"""Training with a progress bar, and what was measured of a trained autoencoder."""

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_adjoint.demo.models import for_size, make_autoencoder
from keras_adjoint.demo.photographs import as_picture
from keras_adjoint.plots.comparison import psnr

BATCH = 16
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.2
RECENT = 50  # steps that the progress bar's PSNR is the mean of


@dataclass
class Trained:
    """An autoencoder and the facts that the demo compares."""

    name: str
    model: Any
    encoder: Any
    decoder: Any
    seconds: float  # of training, compilation included
    step_seconds: float  # the median step
    file_bytes: int = 0
    reconstructions: dict = field(default_factory=dict)  # of the held-out photographs, by name
    psnr: dict = field(default_factory=dict)  # in dB, by name

    @property
    def parameters(self):
        return self.model.count_params()

    @property
    def slots(self):
        """Variables that the optimizer keeps per parameter."""
        bookkeeping = {"iteration", "learning_rate"}
        return [variable for variable in self.model.optimizer.variables if variable.name not in bookkeeping]

    @property
    def slot_numbers(self):
        return sum(int(np.prod(slot.shape)) for slot in self.slots)

    @property
    def mean_psnr(self):
        return statistics.mean(self.psnr.values())

    def reconstruct(self, photographs):
        """Pass whole held-out photographs through, each at its own odd size."""
        for name, photograph in photographs.items():
            resized = for_size(self.encoder, self.decoder, photograph.shape[:2])
            self.reconstructions[name] = resized.predict(photograph[None], verbose=0)[0]
            self.psnr[name] = psnr(as_picture(self.reconstructions[name]), as_picture(photograph), 1)


class Watch(keras.callbacks.Callback):
    """Moves the progress bar and takes the time of every step."""

    def __init__(self, progress, task):
        super().__init__()
        self.progress, self.task, self.times, self.losses = progress, task, [], [0.0]

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())
        self.losses.append(float(logs["loss"]) * (batch + 1))  # Keras reports the mean since the start
        recent = self.losses[-RECENT - 1 :]
        quality = -10 * np.log10((recent[-1] - recent[0]) / (len(recent) - 1))
        self.progress.update(self.task, completed=batch + 1, quality=f"{quality:.1f} dB")

    @property
    def step_seconds(self):
        return float(np.median(np.diff(self.times)))


def train(name, stage_back, patches, *, steps, seed, progress):
    """An autoencoder trained on `steps` batches; the same seed gives the same encoder and the same batches."""
    model, encoder, decoder = make_autoencoder(stage_back, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY), "mse")
    watch = Watch(progress, progress.add_task(name, total=steps, quality=""))
    start = time.perf_counter()
    model.fit(batches(patches, seed=seed), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[watch])
    return Trained(name, model, encoder, decoder, time.perf_counter() - start, watch.step_seconds)


def batches(patches, *, seed):
    """Random batches without end, each as input and as target."""
    generator = np.random.default_rng(seed)
    while True:
        batch = patches[generator.integers(len(patches), size=BATCH)]
        yield batch, batch
