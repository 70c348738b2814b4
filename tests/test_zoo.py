"""The program behind docs/zoo.md: one of its rows, and what it does with rows."""

import json
import sys
from pathlib import Path

import keras
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks.zoo import files, processes, rows, table
from benchmarks.zoo.expected import expected_of, parameters
from benchmarks.zoo.networks import FAMILIES, ODD, Case, cases

pytestmark = pytest.mark.any_backend
ROW = {
    "network": "EfficientNetB0",
    "verdict": "ok",
    "problems": [],
    "layers": {"network": 240, "mirror": 159},
    "seconds": {"network": [9.0, 0.5, 0.4], "mirror": [0.25, 3.0, 0.2]},
    "ratio": 0.5,
    "kernels": {"shared": 50, "left_out_with_gates": 32, "all": 82},
    "parameters": {"network": 5330571, "tied": 4608992, "own": 105043},
    "residuals": {"tested": 65, "residual": 1.2e-8, "over_tolerance": 0.0071, "layer": "predictions"},
}


class SmallCase(Case):
    """A case in which the function of Keras makes a network of a few layers."""

    def build(self):
        x = y = keras.Input((*self.size, 3))
        for filters in (4, 5):
            y = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(y)
            y = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(y))
            y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        return keras.Model(x, y)


def test_a_row_of_a_small_network(tmp_path):
    row = rows.measure(SmallCase("MobileNet", "MobileNet", top=False, size=(37, 35)), tmp_path, repeats=1)
    assert (row["verdict"], row["problems"]) == ("ok", [])
    assert row["kernels"] == {"shared": 4, "left_out_with_gates": 0, "all": 4}
    assert row["residuals"]["tested"] >= 4
    assert json.loads(json.dumps(row)) == row
    assert not list(tmp_path.iterdir())


@pytest.mark.exhaustive
def test_a_row_at_the_odd_size(tmp_path):
    row = rows.measure(Case("MobileNet", "MobileNet", top=False, size=ODD), tmp_path, repeats=1)
    assert (row["verdict"], row["problems"]) == ("ok", [])
    assert row["kernels"] == {"shared": 27, "left_out_with_gates": 0, "all": 27}
    assert row["residuals"]["tested"] >= 27
    assert json.loads(json.dumps(row)) == row
    assert not list(tmp_path.iterdir())


class TooSmallCase(Case):
    """A case in which the picture is smaller than a kernel."""

    def build(self):
        x = keras.Input((2, 2, 3))
        return keras.Model(x, keras.layers.Conv2D(4, 3)(x))


def test_a_network_that_keras_does_not_build_stays_in_the_table(tmp_path):
    row = rows.measure(TooSmallCase("MobileNet", "MobileNet", top=False, size=(8, 8)), tmp_path)
    assert row["verdict"] == "not built by Keras" and row["problems"][0].startswith("ValueError: ")


def test_a_process_that_dies_leaves_a_row(monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "false")
    wanted = cases(["VGG"])[:2]
    found = list(processes.measured(wanted))
    assert [case for case, _ in found] == wanted
    assert all(row["verdict"] == "failed" and "ended with 1" in row["problems"][0] for _, row in found)


def test_every_family_has_four_rows():
    assert len({case.key for case in cases()}) == len(cases()) == 4 * len(FAMILIES) == 56


def test_what_follows_from_a_network_with_a_gate():
    picture = keras.Input((8, 8, 3))
    features = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])(picture)
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
    gate = keras.layers.Conv2D(4, 1, activation="sigmoid")(pooled)
    network = keras.Model(picture, keras.layers.Conv2D(5, 1)(keras.layers.Multiply()([gate, features])))
    expected = expected_of(network)
    assert [variable.shape for variable in expected.shared] == [(3, 3, 3, 4), (1, 1, 4, 5)]
    assert [variable.shape for variable in expected.left_out] == [(1, 1, 4, 4)]
    assert expected.own == 3 + 16 + 4  # a bias, a normalisation, a bias
    assert parameters(expected.shared) == 108 + 20


def test_the_page_and_the_files(tmp_path):
    first, second = cases(["EfficientNet"])[:2]
    bad = {"network": "EfficientNetB0", "verdict": "failed", "problems": ["mirror: NoRuleError: a | b"]}
    backend = keras.backend.backend()
    files.write(tmp_path, backend, {second.key: bad, first.key: ROW})
    assert list(files.read(tmp_path, backend)) == [first.key, second.key]
    table.write_page(tmp_path / "zoo.md", files.sections(tmp_path))
    page = (tmp_path / "zoo.md").read_text(encoding="utf-8")
    good_line, bad_line, *missing = (line for line in page.splitlines() if line.startswith("| EfficientNetB0"))
    assert (
        "| 240 / 159 | 50 / 50 + 32 gates | 4,608,992 | 105,043 | 0.50 | 0.25 | 0.50 | 1.2e-08 | 0.007 | ok |"
        in good_line
    )
    assert bad_line.endswith("| failed: mirror: NoRuleError: a \\| b |")
    assert missing and all(line.endswith("|  | not measured yet |") for line in missing)
    assert "1 of 56 rows ok; 1 failed; 54 not measured yet; " in page
    columns = page.count("\n| network")
    assert columns == 1 and good_line.count(" | ") == bad_line.replace("\\|", "").count(" | ")


@pytest.mark.parametrize("backend", files.BACKENDS)
def test_the_documented_table_has_every_network_and_none_that_fails(backend):
    found = files.read(Path(__file__).parents[1] / "docs", backend)
    assert set(found) == {case.key for case in cases()}
    assert {row["verdict"] for row in found.values()} <= {rows.OK, rows.NOT_BUILT}
