"""A training that is killed in the middle of an epoch is resumed from its last checkpoint, and ends as if it had not been."""

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.many.children import start, wait
from benchmarks.many.model import autoencoder, compiled, distance, loss_distance, train, values
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out

EPOCHS = 2


class Killed(keras.callbacks.Callback):
    """Ends the process at once in the second batch of the last epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.epoch == EPOCHS - 1 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def train_with_backups(folder: Path, file: str, *others: keras.callbacks.Callback) -> dict[str, Any]:
    """Train from the last checkpoint on, if there is one."""
    model = compiled(autoencoder())
    backups = keras.callbacks.BackupAndRestore(folder / "backup")
    losses = train(model, 0, EPOCHS, callbacks=[backups, *others])
    np.savez(folder / file, *values(model))
    return {"losses": losses, "tied": ka.is_tied(model)}


def main() -> None:
    keep_tensorflow_out()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killed = wait(start(train_with_backups, folder, "killed.npz", Killed(), out=folder / "killed.json"))
        assert wait(start(train_with_backups, folder, "resumed.npz", out=folder / "resumed.json")) == 0
        resumed = json.loads((folder / "resumed.json").read_text())
        with np.load(folder / "resumed.npz") as arrays:
            found = [arrays[key] for key in arrays.files]
    model = compiled(autoencoder())
    before = [keras.ops.convert_to_numpy(each.value) for each in model.weights]
    losses = train(model, 0, EPOCHS)
    figures = {
        "killed by signal": -killed,
        "epochs after": len(resumed["losses"]),
        "losses": loss_distance(resumed["losses"], losses[-len(resumed["losses"]) :]),
        "weights": distance(found, values(model), before),
        "tied": resumed["tied"],
    }
    print(json.dumps(figures))


main()
