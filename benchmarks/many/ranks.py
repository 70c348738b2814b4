"""Two ranks of PyTorch's DistributedDataParallel, joined by gloo on loopback, train as one process does."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import keras_adjoint as ka  # noqa: E402
from benchmarks.many.children import free_port, start, wait  # noqa: E402
from benchmarks.many.model import BATCH, STEPS, autoencoder, distance, images  # noqa: E402
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out  # noqa: E402

RANKS = 2


def train_rank(rank: int, port: int, folder: Path) -> dict[str, Any]:
    """One epoch in one of the ranks."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    model = autoencoder()
    losses = steps(DistributedDataParallel(model), rank, RANKS)
    np.savez(folder / f"{rank}.npz", *weights(model))
    torch.distributed.destroy_process_group()
    return {"losses": losses, "tied": ka.is_tied(model)}


def steps(module: torch.nn.Module, rank: int = 0, ranks: int = 1) -> list[float]:
    """The losses of an epoch on what one rank gets of every batch."""
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    losses = []
    for batch in images().reshape(STEPS, ranks, BATCH // ranks, *images().shape[1:])[:, rank]:
        x = torch.from_numpy(batch)
        loss = torch.mean((module(x) - x) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def weights(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(each.value) for each in model.weights]


def main() -> None:
    keep_tensorflow_out()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        children = [start(train_rank, rank, port, folder, out=folder / f"{rank}.json") for rank in range(RANKS)]
        assert [wait(child) for child in children] == [0] * RANKS
        of_ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]
        model = autoencoder()
        before = weights(model)
        losses = steps(model)
        means = np.mean([of_rank["losses"] for of_rank in of_ranks], axis=0)
        found = {}
        for rank, of_rank in enumerate(of_ranks):
            with np.load(folder / f"{rank}.npz") as arrays:
                trained = [arrays[key] for key in arrays.files]
            found[f"rank {rank}"] = {
                "losses": float(np.max(np.abs(means - losses) / losses)),
                "weights": distance(trained, weights(model), before),
                "tied": of_rank["tied"],
            }
    print(json.dumps(found))


main()
