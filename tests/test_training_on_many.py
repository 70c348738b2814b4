"""A tied autoencoder that is trained by many devices or processes ends as one that a single device trains.

Each program of `benchmarks/many` runs in a process of its own, on loopback, for a limited time. Differences of weights are
relative to the farthest that training moved one, so that a training that moves none is not right.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDING = 1e-4  # a hundred times what was found, and a hundredth of what half of the batch would leave


@functools.cache
def ran(program):
    command = [sys.executable, "-m", f"benchmarks.many.{program}"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# A process of its own computes as users' do, in float32.
ENVIRONMENT = {**os.environ, "JAX_ENABLE_X64": "0"}


def is_that_of_one_device(found):
    return found["tied"] and found["losses"] < ROUNDING and found["weights"] < ROUNDING


@pytest.mark.only_on("jax")
@pytest.mark.parametrize("distribution", ["data", "model"])
def test_eight_devices_of_jax_train_as_one(distribution):
    found = ran("devices")[distribution]
    assert is_that_of_one_device(found)
    assert found["devices"] == [8]


@pytest.mark.only_on("jax")
def test_each_kernel_is_divided_once_and_the_state_of_its_optimizer_with_it():
    found = ran("devices")
    assert found["divided"] == sorted(found["model"]["divided"]) == ["conv2d/kernel", "dense/kernel"]
    assert len(found["model"]["divided state"]) == 4  # two moments of each kernel
    assert not found["data"]["divided"]


@pytest.mark.only_on("jax")
@pytest.mark.parametrize(("where", "devices"), [("on four", 4), ("on one", 1)])
def test_what_eight_devices_saved_is_trained_further_on_fewer(where, devices):
    found = ran("devices")[where]
    assert is_that_of_one_device(found)
    assert found["devices"] == [devices]


@pytest.mark.only_on("jax")
def test_two_processes_of_jax_train_as_one():
    found = ran("processes")
    assert all(map(is_that_of_one_device, found.values()))
    assert [each["devices"] for each in found.values()] == [2, 2]


@pytest.mark.only_on("torch")
def test_two_ranks_of_pytorch_train_as_one():
    found = ran("ranks")
    assert len(found) == 2
    assert all(map(is_that_of_one_device, found.values()))


@pytest.mark.only_on("tensorflow")
def test_two_replicas_of_tensorflow_train_as_one():
    found = ran("replicas")
    assert found["replicas"] == 2
    assert is_that_of_one_device(found)


@pytest.mark.in_turn("torch")
def test_a_training_that_is_killed_is_resumed_with_the_tie_and_the_state_of_the_optimizer():
    found = ran("killed")
    assert found["killed by signal"] == 9
    assert found["epochs after"] == 1
    assert is_that_of_one_device(found)
