"""Two processes of JAX on loopback train as one process does."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_adjoint as ka  # noqa: E402
from benchmarks.many.children import free_port, start, wait  # noqa: E402
from benchmarks.many.model import autoencoder, compiled, differences, train, values  # noqa: E402
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out  # noqa: E402

RANKS = 2


def train_in_process(rank: int, port: int, folder: Path) -> dict[str, Any]:
    """One epoch in one of the processes."""
    keras.utils.set_random_seed(0)  # the processes must begin with the same weights
    keras.distribution.initialize(f"127.0.0.1:{port}", RANKS, rank)
    devices = keras.distribution.list_devices()
    with keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False).scope():
        model = compiled(autoencoder())
        losses = train(model, rank=rank, ranks=RANKS)
        np.savez(folder / f"{rank}.npz", *values(model))
    return {"losses": losses, "tied": ka.is_tied(model), "devices": len(devices)}


def main() -> None:
    keep_tensorflow_out()
    keras.utils.set_random_seed(0)  # which imports TensorFlow, once for all processes
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        children = [start(train_in_process, rank, port, folder, out=folder / f"{rank}.json") for rank in range(RANKS)]
        assert [wait(child) for child in children] == [0] * RANKS
        found = {}
        for rank in range(RANKS):
            of_rank = json.loads((folder / f"{rank}.json").read_text())
            with np.load(folder / f"{rank}.npz") as arrays:
                weights = [arrays[key] for key in arrays.files]
            found[f"process {rank}"] = of_rank | differences(weights, of_rank.pop("losses"))
    print(json.dumps(found))


main()
