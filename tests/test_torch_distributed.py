"""Distributed tensors of PyTorch that it computes wrongly, and parameters that would be trained in vain, are refused."""

import keras
import numpy as np
import pytest

import keras_adjoint as ka
from keras_adjoint.keras_internals import held_value, outermost_call, parameters_by_path

pytestmark = pytest.mark.only_on("torch")
L = keras.layers


@pytest.fixture(scope="module")
def mesh():
    """The devices of a process that has joined others, of which there are none."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def tied():
    x = keras.Input((8, 7, 2))
    model = ka.autoencoder(keras.Model(x, L.Conv2D(4, 3, activation="tanh")(x)))
    list(model.parameters())
    return model


def images():
    import torch

    return torch.from_numpy(np.random.default_rng(0).normal(size=(4, 8, 7, 2)).astype("float32"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_fully_shard_is_refused_with_the_reason_rather_than_train_nothing(mesh, wrapped):
    import torch
    from torch.distributed.fsdp import fully_shard

    model = tied()
    module = torch.nn.Sequential(model) if wrapped else model
    fully_shard(module, mesh=mesh)
    with pytest.raises(
        ka.TieError, match=r"`fully_shard` has divided `.*kernel`.* nothing is trained.*Received: a call of"
    ):
        module(images())


def test_data_parallel_models_are_trained(mesh):
    import torch

    model = tied()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    torch.mean((parallel(images()) - images()) ** 2).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def distributed(y, mesh, placement):
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(y.detach(), mesh, [placement])


@pytest.mark.parametrize("algorithm", ["native", "subpixel", "phases"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_tensors_that_are_divided_along_space_or_channels_are_refused_where_pytorch_is_wrong(mesh, axis, algorithm):
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.experimental import implicit_replication

    conv = L.Conv2D(4, 3, padding="same", use_bias=False)
    y = conv(images())
    refused = pytest.raises(ka.SizeError, match=r"wrong for a `DTensor` .* Received: placements=\(Shard\(dim=")
    with implicit_replication(), refused:  # of the kernel
        ka.adjoint(conv, algorithm=algorithm)(distributed(y, mesh, Shard(axis)))


def test_tensors_that_are_divided_along_the_batch_or_whole_are_not(mesh):
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.experimental import implicit_replication

    conv = L.Conv2D(4, 3, padding="same", use_bias=False)
    y = conv(images())
    adjoint = ka.adjoint(conv)
    expected = adjoint(y)
    for placement in Shard(0), Replicate():
        with implicit_replication():
            found = adjoint(distributed(y, mesh, placement)).full_tensor()
        np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-6)


# --- what this is seen by


def test_the_outermost_of_the_calls_that_are_going_on():
    seen = []

    class Inner(L.Layer):
        def call(self, x):
            seen.append(outermost_call())
            return x

    model = keras.Sequential([keras.Input((3,)), Inner()])
    model(keras.ops.ones((2, 3)))
    assert seen[-1] is model and outermost_call() is None


def test_the_parameters_that_pytorch_finds_are_what_variables_hold():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    list(model.parameters())
    found = parameters_by_path(model)
    assert set(found) == {variable.path for variable in model.trainable_variables}
    assert all(found[variable.path] is held_value(variable) for variable in model.trainable_variables)
    assert not parameters_by_path(None)
