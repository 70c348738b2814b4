"""The benchmark of blocks: its program runs, its figures are those of the plan, and the page is what it found."""

import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

import keras_adjoint as ka
from benchmarks.blocks import __main__ as program
from benchmarks.blocks import chaos, page, problem, worker
from benchmarks.blocks.simulator import Rates, profile_of, rates_of, simulate
from benchmarks.speed import resident

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.any_backend


def test_the_page_is_what_was_measured():
    assert (ROOT / page.PAGE).read_text(encoding="utf-8") == page.text(page.read(ROOT))


def test_the_page_has_every_interruption_by_its_command():
    rows = [
        line.split(" | ") for line in (ROOT / page.PAGE).read_text(encoding="utf-8").splitlines() if "chaos" in line
    ]
    assert [row[-1].split()[-3:-1] for row in rows] == [[case, f"{engine}`"] for case, engine in chaos.CASES]
    assert all("same bits" in row[2] for row in rows[:-1]) and "to rounding" in rows[-1][2]


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", chaos.CASES, ids=" ".join)
def test_nothing_is_lost_where_a_run_is_interrupted(case):
    command = [sys.executable, "-m", "benchmarks.blocks.chaos", *case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["case"] == case[0]


def test_throughput_is_measured_and_written(tmp_path, monkeypatch):
    (tmp_path / "benchmarks" / "blocks").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    arguments = ["throughput", "--size", "8", "--turns", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    program.main()
    assert set(json.loads((tmp_path / page.RESULTS).read_text())["throughput"]["figures"]["times"]) == set(page.WAYS)
    text = (tmp_path / page.PAGE).read_text(encoding="utf-8")
    assert "| blocks, from zarr to zarr, zstd |" in text and "## Workers" not in text
    monkeypatch.setattr(sys, "argv", ["benchmark", "speed"])
    with pytest.raises(SystemExit):
        program.main()


@pytest.mark.skipif(not resident.CLEAR.exists(), reason="only Linux says what a process has held at its peak")
def test_what_is_applied_is_compared_with_the_sum(tmp_path, monkeypatch):
    given = problem.volume(tmp_path / "x.zarr", 12, "zstd", filled=True)
    made = problem.volume(tmp_path / "y.zarr", 12, "zstd")
    monkeypatch.setattr(worker, "PLACES", 10)
    found = worker.applied(given, made, {"memory": "300MB"})
    assert 0 < found["error"] < 1e-5 and found["held"] < 300e6 and found["blocks"] == 1
    made[3, 4, 5, 6] += 1
    assert problem.error_at(problem.adjoint_of_size(12), given, made, [(3, 4, 5)]) == pytest.approx(1, abs=1e-3)


PLANS = {
    "adjoint": lambda: ka.plan_blocks(problem.adjoint_of_size(11), (11,) * 3, block=(4, 5, 11)),
    "strided": lambda: ka.plan_blocks(strided(), (23, 17), block=(4, 3)),
}


def strided():
    conv = keras.layers.Conv2D(3, 5, strides=2, padding="same")
    conv.build((None, None, None, 2))
    return conv


@pytest.mark.parametrize("plan", PLANS)
def test_a_profile_has_the_numbers_of_every_block(plan):
    plan = PLANS[plan]()
    profile = profile_of(plan)
    sizes = [tuple(math.prod(cut.stop - cut.start for cut in cuts) for cuts in (b.read, b.write)) for b in plan]
    assert list(profile.sizes()) == sizes and profile.blocks == len(plan)
    assert (profile.numbers_read, profile.numbers_made) == tuple(map(sum, zip(*sizes, strict=True)))


def test_workers_and_what_they_share_decide_about_the_time():
    profile = profile_of(PLANS["strided"]())
    rates = Rates(0.5, 0.01, 0.02)
    each = [0.5 + 0.01 * read + 0.02 * made for read, made in profile.sizes()]
    assert simulate(profile, rates, 1) == pytest.approx(sum(each))
    assert simulate(profile, rates, 1000) == pytest.approx(max(each))
    assert max(max(each), sum(each) / 3) <= simulate(profile, rates, 3) <= sum(each) / 3 + max(each)
    bytes_moved = 4 * (profile.numbers_read + profile.numbers_made)
    assert simulate(profile, rates, 1000, bandwidth=1.0) == pytest.approx(bytes_moved)
    assert simulate(profile, Rates(0, 0, 0, dispatch=2.0), 1000) == 2 * profile.blocks


def test_rates_are_those_behind_the_times():
    rates = Rates(0.5, 0.01, 0.02, 0.1)
    samples = [(read, made, 0.3, rates.read * read, rates.made * made) for read, made in ((10, 5), (20, 30))]
    np.testing.assert_allclose(list(vars(rates_of(samples, 0.2, 0.1)).values()), list(vars(rates).values()))
