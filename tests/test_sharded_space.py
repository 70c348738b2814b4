"""Where devices of JAX share an image's height, they exchange halos and nothing else, and compute what one device does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from extent import EXHAUSTIVE

pytestmark = pytest.mark.only_on("jax")
SOME = () if EXHAUSTIVE else ("0", "3", "6", "7", "9")
ROUNDING = 1e-5


def ran(*arguments):
    command = [sys.executable, "-m", "benchmarks.many.space", *arguments]
    environment = {**os.environ, "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def exchanges_halos_alone(row):
    """At most twice the halo and, of a gradient of the kernel, the sum of those of all devices."""
    expected = {"collective-permute", "all-reduce"} if row["gradient"] == "kernel gradient" else {"collective-permute"}
    exchanged = row["exchanged"]
    return (
        exchanged.keys() <= expected
        and exchanged.get("collective-permute", 0) <= 2 * row["halo"]
        and exchanged.get("all-reduce", 0) <= row["kernel"]
    )


def test_devices_exchange_halos_alone_and_compute_what_one_does():
    rows = ran(*SOME)
    assert len(rows) >= 15
    assert sum(row["halo"] > 0 for row in rows) >= 12
    assert [row for row in rows if not exchanges_halos_alone(row)] == []
    assert [row for row in rows if row["error"] > ROUNDING] == []
    assert all(row["memory"] < 0.25 for row in rows if row["case"] == "stride 2, 3×3")  # of an eighth, and the halo


@pytest.mark.exhaustive
def test_every_algorithm_exchanges_halos_alone_by_the_rule_and_most_gather_without_it():
    rows = ran("--algorithms")
    assert [row for row in rows if row["rule"] and not exchanges_halos_alone(row)] == []
    assert [row for row in rows if row["error"] > ROUNDING] == []
    assert sum("all-gather" in row["exchanged"] for row in rows if not row["rule"]) > 10


@pytest.mark.exhaustive
def test_random_convolutions_are_divided_as_the_cases_are():
    rows = ran("--random", "100")
    assert len(rows) > 100
    assert [row for row in rows if not exchanges_halos_alone(row) or row["error"] > ROUNDING] == []
