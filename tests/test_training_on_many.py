"""A tied autoencoder that is trained by many devices or processes ends as one that a single device trains.

Each program of `benchmarks/many` runs in a process of its own, on loopback, for a limited time. Differences of weights are
relative to the farthest that training moved one, so that a training that moves none is not right.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks.many import __main__ as many

ROOT = Path(__file__).parents[1]
ROUNDING = 1e-4  # a hundred times what was found, and a hundredth of what half of the batch would leave


@pytest.fixture(scope="module")
def devices():
    """What eight devices of JAX found, in one process for all tests of them."""
    return ran("devices")


def ran(program):
    command = [sys.executable, "-m", f"benchmarks.many.{program}"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# A process of its own computes as users' do, in float32.
ENVIRONMENT = {**os.environ, "JAX_ENABLE_X64": "0"}


def is_that_of_one_device(found):
    return found["tied"] and found["losses"] < ROUNDING and found["weights"] < ROUNDING


@pytest.mark.only_on("jax")
@pytest.mark.parametrize("distribution", ["data", "model"])
def test_eight_devices_of_jax_train_as_one(distribution, devices):
    found = devices[distribution]
    assert is_that_of_one_device(found)
    assert found["devices"] == [8]


@pytest.mark.only_on("jax")
def test_each_kernel_is_divided_once_and_the_state_of_its_optimizer_with_it(devices):
    assert devices["divided"] == sorted(devices["model"]["divided"]) == ["conv2d/kernel", "dense/kernel"]
    assert len(devices["model"]["divided state"]) == 4  # two moments of each kernel
    assert not devices["data"]["divided"]


@pytest.mark.only_on("jax")
@pytest.mark.parametrize(("where", "number"), [("on four", 4), ("on one", 1)])
def test_what_eight_devices_saved_is_trained_further_on_fewer(where, number, devices):
    found = devices[where]
    assert is_that_of_one_device(found)
    assert found["devices"] == [number]


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


@pytest.mark.any_backend
def test_the_page_has_a_row_for_everything_that_its_program_runs():
    page = (ROOT / "docs" / "many.md").read_text(encoding="utf-8")
    missing = [row for row in many.ROWS if f"| {row.engine} | {row.asserted} | " not in page or row.command not in page]
    assert missing == []
    assert len({row.program for row in many.ROWS}) == 6


@pytest.mark.any_backend
def test_figures_are_written_as_they_were_found():
    trained = {"weights": 2.4e-6, "losses": 0.0}
    found = {
        "data": trained,
        "model": trained,
        "on four": trained,
        "on one": trained,
        "process 1": trained,
        "rank 1": trained,
    }
    lines = many.training(lambda program, backend: [{**found, **trained, "fully_shard": "TieError", "rows": "none"}])
    assert lines[2].split(" | ")[2] == "weights 2e-06, losses 0"
    assert lines[-1].split(" | ")[2] == "none"

    row = {"case": "one", "gradient": "adjoint", "algorithm": "phases", "halo": 2048, "error": 0.0, "memory": 0.131}
    by_rule, by_xla = {"collective-permute": 2048}, {"all-gather": 65536, "collective-permute": 1024}
    rows = [row | {"rule": True, "exchanged": by_rule}, row | {"rule": False, "exchanged": by_xla}]
    assert many.space(rows[:1])[-1] == "| one | adjoint | 2 KiB | collective-permute 2 KiB | 0 | 0.13 |"
    assert many.algorithms(rows)[2:] == [
        "| one | phases | collective-permute 2 KiB | all-gather 64 KiB, collective-permute 1 KiB |"
    ]
