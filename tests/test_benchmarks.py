"""The programs behind the figures run, and say what they measured."""

import importlib
import io
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import extent
import keras
import numpy as np
import pytest
from crashing import Named, crashes_on_sound
from helpers import BACKEND

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

import keras_adjoint as ka
from benchmarks import calibrate, guides
from benchmarks.norms import __main__ as norms
from benchmarks.norms import kernels as norm_kernels
from benchmarks.peers import __main__ as peers
from benchmarks.peers.problems import Problem
from benchmarks.solvers import __main__ as solvers
from benchmarks.solvers import candidate
from benchmarks.solvers import peers as solver_peers
from benchmarks.solvers import problem as solver_problem
from benchmarks.solvers import worker as solver_worker
from benchmarks.speed import __main__ as speed
from benchmarks.speed import convolutions, files, notebook, overhead, page, resident, workspace
from benchmarks.speed.files import BACKENDS
from benchmarks.speed.geometries import GEOMETRIES, Geometry
from benchmarks.speed.timing import interleaved
from keras_adjoint.ops.algorithms.choose import MAX_WORKSPACE, candidates
from keras_adjoint.ops.algorithms.cost_model import nanoseconds
from keras_adjoint.ops.algorithms.problem import Work
from keras_adjoint.ops.backend import current

pytestmark = pytest.mark.any_backend
SMALL = (Geometry("sound", (40,), 2, 3, 4, 2), Geometry("depthwise", (9, 8), 4, 4, 3, groups=4))


def run(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    main()


def in_this_process(run, arguments):
    """What stands in for `survived`, which starts processes."""
    return ((argument, run(argument)) for argument in arguments)


def test_there_are_enough_geometries_and_no_two_of_a_name():
    assert len(GEOMETRIES) >= 40
    assert len({str(geometry) for geometry in GEOMETRIES}) == len(GEOMETRIES)


@pytest.mark.every_backend
@pytest.mark.in_turn("torch")
def test_speed_writes_figures_page_and_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(convolutions, "GEOMETRIES", SMALL)
    monkeypatch.setattr(convolutions, "survived", in_this_process)
    monkeypatch.setattr(overhead, "IMPORTS", 1)
    monkeypatch.setattr(overhead, "LAYERS", {"small": (4, 1, 2, 1)})
    run(monkeypatch, speed.main, "float32", "overhead", "--seconds", 0.01, "--out", tmp_path)
    figures = json.loads((tmp_path / files.RESULTS / f"{BACKEND}-cpu.json").read_text(encoding="utf-8"))
    assert set(figures["float32"]) == set(map(str, SMALL))
    for row in figures["float32"].values():
        assert {"adjoint", "gradients", "native"} <= set(row), row.get("fails")
        assert all(row[ratio] > 0 for ratio in ("adjoint", "gradients", "native"))
    assert figures["overhead"]["import_ms"] > 0 < figures["overhead"]["small"]["ratio"]
    text = (tmp_path / "benchmarks" / "speed" / "notebook.md").read_text(encoding="utf-8")
    assert all(str(geometry) in text for geometry in SMALL) and BACKENDS[BACKEND] in text
    assert (tmp_path / files.RESULTS / "cpu.png").read_bytes().startswith(b"\x89PNG")
    mean = np.exp(np.mean([np.log(row["adjoint"]) for row in figures["float32"].values()]))
    text = (tmp_path / "docs" / "speed.md").read_text(encoding="utf-8")
    assert f"| adjoint ÷ layer, geometric mean | {mean:.2f} |" in text
    assert BACKENDS[BACKEND] in (tmp_path / "docs" / "speed.svg").read_text(encoding="utf-8")


def test_every_machine_has_its_own_tables_in_the_notebook(tmp_path):
    row = {"algorithm": "native", "forward_ms": 1.0, **dict.fromkeys(notebook.TITLES, 1.0)}
    row |= {f"{ratio}_spread": 0.0 for ratio in notebook.TITLES}
    for device in ("old", "new"):
        files.write(tmp_path, "torch", device, {"float32": {f"measured on {device}": row}})
    notebook.write(tmp_path)
    text = (tmp_path / "benchmarks" / "speed" / "notebook.md").read_text(encoding="utf-8")
    for device in ("old", "new"):
        _, table = text.split(f"## PyTorch, {device}\n")
        assert f"measured on {device}" in table.split("\n## ")[0]
        assert f"(results/{device}.png)" in text and (tmp_path / files.RESULTS / f"{device}.png").exists()


def test_the_page_and_the_notebook_are_what_the_measurements_say():
    root = Path(__file__).parents[1]
    assert (root / "docs" / "speed.md").read_text(encoding="utf-8") == page.text(page.measurements(root))
    assert (root / "benchmarks" / "speed" / "notebook.md").read_text(encoding="utf-8") == notebook.text(root)


def test_figures_of_another_day_and_processor_get_the_facts_of_this_one(tmp_path):
    (tmp_path / files.RESULTS).mkdir(parents=True)
    file = tmp_path / files.RESULTS / "torch-cpu.json"
    file.write_text('{"date": "1999-12-31", "processor": "abacus", "workspace": {"kept": {}}}', encoding="utf-8")
    files.write(tmp_path, "torch", "cpu", files.read(tmp_path, "torch", "cpu"))
    found = files.read(tmp_path, "torch", "cpu")
    assert found["date"] != "1999-12-31" and found["processor"] != "abacus" and found["workspace"] == {"kept": {}}


def test_a_part_that_is_measured_alone_leaves_the_facts_of_the_others(tmp_path):
    files.write(tmp_path, "torch", "cpu", {"float32": {}})
    old = files.read(tmp_path, "torch", "cpu") | {"date": "1999-12-31", "processor": "abacus"}
    for parts in (["overhead"], ["workspace"]):
        files.write(tmp_path, "torch", "cpu", old, parts)
        old = files.read(tmp_path, "torch", "cpu")
    assert (old["date"], old["processor"]) == ("1999-12-31", "abacus")
    assert list(old["alone"]) == ["overhead", "workspace"] and old["alone"]["overhead"]["date"] > "2026"
    assert "1999-12-31; abacus" in notebook.table(old) and "Measured anew, overhead: 20" in notebook.table(old)
    files.write(tmp_path, "torch", "cpu", old)
    assert files.read(tmp_path, "torch", "cpu")["alone"] == {}


@pytest.mark.skipif(not resident.CLEAR.exists(), reason="only Linux says what a process has held at its peak")
@pytest.mark.every_backend
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("grouped", marks=pytest.mark.in_turn("torch")),
        pytest.param("dilated", marks=pytest.mark.exhaustive),
    ],
)
def test_what_is_considered_holds_no_more_than_it_may(name):
    """These are the kinds where a backend would hold all terms of a sum at once, or write out what each position reads."""
    (geometry,) = (geometry for geometry in workspace.GEOMETRIES if geometry.name == name)
    problem = geometry.problem()
    by_workspace = sorted(candidates(problem), key=lambda each: each.work(problem).workspace)
    for algorithm in by_workspace if extent.EXHAUSTIVE else by_workspace[-1:]:
        held = resident.in_a_process("benchmarks.speed.workspace", name, algorithm.name)
        assert held["resident"] <= MAX_WORKSPACE, algorithm.name


def test_a_convolution_that_kills_its_process_costs_one_row(monkeypatch):
    monkeypatch.setattr(convolutions, "GEOMETRIES", (Named("sound"), Named("depthwise")))
    monkeypatch.setattr(convolutions, "measure", crashes_on_sound)
    found = [row for _, row in convolutions.rows("float32", 0.5)]
    assert found == [{"fails": "the process died, or took too long"}, {"seconds": 0.5}]


def test_speed_refuses_parts_that_it_does_not_have(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, speed.main, "float8", "--out", tmp_path)
    assert "there is no part 'float8'" in capsys.readouterr().err


def test_the_summary_says_what_is_missed():
    rows = {"slow": {"adjoint": 3.0, "gradients": 1.0, "native": 1.0}}
    text = notebook.summary([{"backend": "torch", "float32": rows}])
    assert "| adjoint ÷ forward, worst, float32 | 3.00 **missed** (≤ 2.5) |" in text
    assert "| gradients of the adjoint ÷ those of the forward, geometric mean, float32 | 1.00 (≤ 1) |" in text


def test_functions_take_turns():
    order = []
    interleaved({name: lambda name=name: order.append(name) for name in "ab"}, seconds=0, fewest=4)
    assert order[:2] == ["a", "b"] and len(order) >= 10
    assert all({one, other} == {"a", "b"} for one, other in zip(order[::2], order[1::2], strict=True))


@pytest.mark.parametrize(("found", "turns"), [([1.0, 1.0], 4), ([1.0, 0.5], 12), ([0.5, 1.0, 0.5, 1.0, 0.5], 4)])
def test_a_best_time_that_is_not_met_again_asks_for_more_turns(found, turns):
    times = iter([*found, *[1.0] * 50])
    interleaved({"a": None}, seconds=0, fewest=4, timer=lambda function: next(times))
    assert 50 + len(found) - len(list(times)) == 1 + turns


@pytest.mark.every_backend
@pytest.mark.in_turn("torch")
def test_calibration_rates_what_the_backend_offers_and_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "DRAWS", {"sequence": 2, "depthwise": 2})
    monkeypatch.setattr(calibrate, "MOST", 3e6)
    monkeypatch.setattr(calibrate, "survived", in_this_process)
    file = tmp_path / "rates.json"
    file.write_text('{"another": 1}', encoding="utf-8")
    run(monkeypatch, calibrate.main, "--out", file, "--seconds", 0.001)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["another"] == 1
    for precision in ("full", "half"):
        of_kinds = found[current().NAME][precision]
        assert set(of_kinds) == {"sequence", "depthwise"}
        assert set(of_kinds["sequence"]) <= set(current().CANDIDATES[precision]["sequence"])


def test_calibration_finds_the_rates_behind_times():
    rate = {"product": 0.005, "element": 0.3, "call": 2e4, "start": 5e4, "rows": 30, "depth": 10, "width": 20}
    sizes = np.random.default_rng(0).integers(1, 400, (80, 4))
    works = [Work(int(a), int(b), int(c), int(d) * 500, calls=3) for a, b, c, d in sizes]
    found = calibrate.fit([(work, nanoseconds(work, rate) * 1e-9) for work in works])
    for work in works:
        assert nanoseconds(work, found) == pytest.approx(nanoseconds(work, rate), rel=0.05)


@pytest.mark.every_backend
@pytest.mark.in_turn("torch")
def test_peers_are_compared_before_they_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PROBLEMS", (Problem("small", (9, 8), 2, 3, 3, 2),))
    run(monkeypatch, peers.main, "--seconds", 0.01, "--out", tmp_path)
    text = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert "## small" in text and "keras-adjoint" in text
    wrong = {
        name: _doubled(make) if name != next(iter(peers.LIBRARIES)) else make for name, make in peers.LIBRARIES.items()
    }
    monkeypatch.setattr(peers, "LIBRARIES", wrong)
    with pytest.raises(AssertionError, match="Not equal"):
        run(monkeypatch, peers.main, "--seconds", 0.01, "--out", tmp_path)


def _doubled(make):
    def doubled(problem):
        forward, adjoint, into, back = make(problem)
        return forward, lambda y: 2 * adjoint(y), into, back

    return doubled


def test_norms_are_compared_with_the_true_ones(tmp_path, monkeypatch):
    assert len(norm_kernels.KERNELS) >= 20 and len({kernel.name for kernel in norm_kernels.KERNELS}) == len(
        norm_kernels.KERNELS
    )
    small = norm_kernels.image("small", (6, 5, 2), 3, 3, **norm_kernels.SAME)
    monkeypatch.setattr(
        norms, "KERNELS", (small, *(kernel for kernel in norm_kernels.KERNELS if kernel.name == "dense"))
    )
    monkeypatch.setattr(norms, "LARGE", small)
    monkeypatch.setitem(
        norms.LIBRARIES, "a missing one", lambda layer, operator: importlib.import_module("no_such_package")
    )
    run(monkeypatch, norms.main, "--large", "--out", tmp_path)
    text = (tmp_path / "norms.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    names, _, of_conv, of_dense = rows[:4]
    layer = small.build()
    assert float(of_conv[1]) == pytest.approx(float(np.linalg.norm(ka.operator(layer).to_matrix(), 2)), rel=1e-3)
    for row in (of_conv, of_dense):
        ratios = dict(zip(names[2:], row[2:], strict=True))
        assert 0.998 <= float(ratios["`norm`"]) <= 1 <= float(ratios["`bound`"]) and ratios["a missing one"] == ""
        assert float(ratios["SciPy"]) == pytest.approx(1, abs=2e-3)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    reshaped = np.linalg.norm(kernel.reshape(-1, 3), 2) / float(of_conv[1])
    assert float(dict(zip(names, of_conv, strict=True))["Keras"]) == pytest.approx(reshaped, abs=2e-3)
    assert "a missing one was not installed: No module named 'no_such_package'" in text
    times = {row[0]: float(row[1]) for row in rows[6:]}
    assert {"`norm`, tolerance 0.002", "`norm`, tolerance 0.001", "`bound`", "Keras"} <= times.keys() and min(
        times.values()
    ) > 0


@pytest.mark.every_backend
@pytest.mark.only_on("jax")
def test_solvers_reach_the_same_error_before_they_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        solvers, "LIBRARIES", {name: make for name, make in solvers.LIBRARIES.items() if "cg" in name.lower()}
    )
    monkeypatch.setattr(candidate, "TOLERANCES", [1e-1, 1e-4, 1e-6])
    monkeypatch.setitem(solvers.LIBRARIES, "one that gives zero", lambda *_: lambda y: np.zeros((2, 8, 8, 3)))
    monkeypatch.setattr(solvers, "NAMES", {"jax": ("one in another process",)})
    monkeypatch.setattr(solvers, "worker", in_no_other_process)
    run(monkeypatch, solvers.main, "--size", 8, "--batch", 2, "--seconds", 0.01, "--out", tmp_path)
    text = (tmp_path / "solvers.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ][2:]
    assert [row[0] for row in rows if row[2] == "does not reach it"] == ["one that gives zero"]
    assert [row[0] for row in rows if row[2] == "not measured"] == ["one in another process"]
    assert all(float(row[1]) <= solvers.ERROR for row in rows[:-2]) and rows[0][2] == "1.00" and float(rows[0][3]) > 0
    assert "times as much" in text
    assert "one in another process was not measured: `ModuleNotFoundError: no such package`." in text


@contextmanager
def in_no_other_process(python, backend, path, libraries):
    """What stands in for `worker`, whose process would import a backend."""

    def missing(*_):
        raise ModuleNotFoundError("no such package")

    problem = solver_problem.read(path)
    assert problem.error(problem.exact) == 0
    questions = io.StringIO()

    def replies():
        asked = json.loads(questions.getvalue().splitlines()[-1])
        (answer,) = solver_worker.answers(problem, {asked[0]: missing}, [json.dumps(asked)])
        yield "the library prints something\n"
        yield f"{solver_worker.MARK}{json.dumps(answer)}\n"

    yield SimpleNamespace(stdin=questions, stdout=replies())


@pytest.mark.every_backend
@pytest.mark.in_turn("torch")
def test_solvers_of_another_process_answer_as_those_of_this_one():
    problem = solver_problem.make(8, 2)
    libraries = {"ours": lambda A, ridge, tolerance: lambda y: ka.lstsq(A, y, ridge=ridge, tolerance=tolerance).x}
    asked = [["ours", "reach", [1e-3]], ["ours", "seconds", []], ["ours", "mebibytes", []], ["no such", "seconds", []]]
    reached, seconds, size, failed = solver_worker.answers(problem, libraries, map(json.dumps, asked))
    assert reached["found"][0] <= 1e-3 and reached["found"][1] is True
    assert seconds["found"] > 0 and 8 * 8 * 3 * 4 / 2**20 < size["found"] < 1
    assert failed == {"failed": "KeyError: 'no such'"}


def test_a_process_that_ends_gives_a_reason():
    gone = SimpleNamespace(stdin=io.StringIO(), stdout=iter(()), wait=lambda: -9)
    with pytest.raises(solver_peers.NotMeasured, match="its process ended with -9"):
        solver_peers.Peer(gone, "one").seconds()


GUIDE = f"""# %% [markdown]
# # A guide
#
{guides.BEGIN}# |an old table|
{guides.END}#
# More.

# %%
import sys

print("loading")
print("| a | b |", "| --- | --- |", f"| {{1 + 1}} | {{sys.argv[1]}} |", sep="\\n")
print("next")
print("| c |")
"""


def test_guides_have_the_tables_that_they_print_written_into_their_text(tmp_path, monkeypatch):
    (tmp_path / "other.py").write_text("# %% [markdown]\n# # Without a table\n", encoding="utf-8")
    (tmp_path / "measured.py").write_text(GUIDE, encoding="utf-8")
    run(monkeypatch, guides.main, "--folder", tmp_path)
    written = "#\n# | a | b |\n# | --- | --- |\n# | 2 | --full |\n#\n# | c |\n#\n"
    assert (tmp_path / "measured.py").read_text(encoding="utf-8") == GUIDE.replace("# |an old table|\n", written)
    with pytest.raises(SystemExit):
        run(monkeypatch, guides.main, "other", "--folder", tmp_path)


def test_guides_that_fail_or_print_no_table_stay_as_they_are(tmp_path, monkeypatch):
    file = tmp_path / "measured.py"
    for program, error in (("raise SystemExit(3)", subprocess.CalledProcessError), ("print('none')", ValueError)):
        text = GUIDE[: GUIDE.index("import sys")] + program
        file.write_text(text, encoding="utf-8")
        with pytest.raises(error):
            run(monkeypatch, guides.main, "--folder", tmp_path)
        assert file.read_text(encoding="utf-8") == text


def test_every_guide_whose_tables_are_written_has_some():
    for file in guides.with_tables(guides.ROOT / "guides").values():
        (written,) = guides.WRITTEN.findall(file.read_text(encoding="utf-8"))
        rows = [line for line in written.splitlines() if line.startswith("# |")]
        assert len(rows) >= 3 and set(rows[1]) <= set("# |-:"), file.name
