"""What PyTorch would train in vain, or compute wrongly, among processes is refused with the reason."""

import json
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
import torch  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import Shard, distribute_tensor  # noqa: E402
from torch.distributed.tensor.experimental import implicit_replication  # noqa: E402

import keras_adjoint as ka  # noqa: E402
from benchmarks.many.model import autoencoder, images  # noqa: E402
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out  # noqa: E402


def error_of(call: Any, *arguments: Any) -> str:
    """The class of the error that a call raises."""
    try:
        call(*arguments)
    except ka.KerasAdjointError as error:
        return type(error).__name__
    return "none"


def main() -> None:
    keep_tensorflow_out()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    x = torch.from_numpy(images()[:4])
    model = autoencoder()
    list(model.parameters())
    fully_shard(model, mesh=mesh)
    conv = keras.layers.Conv2D(4, 3, padding="same")
    y = distribute_tensor(conv(x).detach(), mesh, [Shard(1)])
    with implicit_replication():
        rows = error_of(ka.adjoint(conv), y)
    print(json.dumps({"fully_shard": error_of(model, x), "rows": rows}))
    torch.distributed.destroy_process_group()


main()
