"""Eight virtual devices of JAX train as one does, and what they save is trained further on four and on one."""

import json
import os
import tempfile

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import keras  # noqa: E402

import keras_adjoint as ka  # noqa: E402
from benchmarks.many.model import autoencoder, compiled, distance, loss_distance, train, values  # noqa: E402
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out  # noqa: E402

keep_tensorflow_out()


def main() -> None:
    model = autoencoder()
    start = [keras.ops.convert_to_numpy(each) for each in model.weights]
    alone = compiled(ka.clone_tied(model))
    losses = train(alone)
    once = values(alone)
    losses_later = train(alone, 1, 2)
    twice = values(alone)

    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"), devices)
    layouts = ka.layout_map(model, mesh)
    found = {"divided": sorted(each.path for each in model.weights if layouts[each.path] is not None)}
    with tempfile.TemporaryDirectory() as folder:
        for name, distribution in {
            "data": keras.distribution.DataParallel(devices=devices),
            "model": keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"),
        }.items():
            with distribution.scope():
                many = compiled(ka.clone_tied(model))
                found[name] = {
                    "losses": loss_distance(train(many), losses),
                    "weights": distance(values(many), once, start),
                    "tied": ka.is_tied(many),
                    "devices": sorted({len(each.value.sharding.device_set) for each in many.weights}),
                    "divided": [each.path for each in many.weights if not each.value.sharding.is_fully_replicated],
                    "divided state": [
                        each.path for each in many.optimizer.variables if not each.value.sharding.is_fully_replicated
                    ],
                }
        many.save(f"{folder}/many.keras")
        four = keras.distribution.DeviceMesh((1, 4), ("batch", "model"), devices[:4])
        layouts = ka.layout_map(model, four)
        with keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch").scope():
            found["on four"] = resumed(f"{folder}/many.keras", losses_later, twice, start)
        found["on one"] = resumed(f"{folder}/many.keras", losses_later, twice, start)
    assert len(jax.devices()) == 8
    print(json.dumps(found))


def resumed(file: str, losses: list[float], expected: list, start: list) -> dict[str, object]:
    """How far a second epoch of a model from a file is from that of an uninterrupted training."""
    model = keras.models.load_model(file)
    return {
        "losses": loss_distance(train(model, 1, 2), losses),
        "weights": distance(values(model), expected, start),
        "tied": ka.is_tied(model),
        "devices": sorted({len(each.value.sharding.device_set) for each in model.weights}),
    }


main()
