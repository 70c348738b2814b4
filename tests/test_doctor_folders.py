"""The doctor on several files and folders: what it examines, its exit status, silenced lines, and formats of others."""

import json
import os
import re
import warnings

import keras
import pytest
from broken_models import lost_tie
from command_line import complains, run, saved
from keras import layers

from keras_adjoint.doctor.checkerboards import coverage
from keras_adjoint.doctor.finding import SEVERITIES
from keras_adjoint.doctor.rules import RULES, examine_script

pytestmark = pytest.mark.any_backend
NOTE = "up = keras.layers.Conv2DTranspose(4, 3, strides=2)"
ERROR = "back = keras.layers.Conv2D(4, 3)\nback.set_weights(weights)"
HEAD = "import keras\n"


def write(folder, **scripts):
    for name, text in scripts.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEAD + text + "\n")


def fine():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


def as_data(*arguments):
    return json.loads(run("doctor", *arguments, "--json").stdout)


# --- which files


def test_every_model_and_script_of_a_folder_is_examined_once(tmp_path, monkeypatch):
    write(tmp_path / "src" / "deep", a=NOTE, b="")
    saved(fine(), tmp_path / "src")
    for left_out in (".hidden", "__pycache__", "env"):
        write(tmp_path / "src" / left_out, c=NOTE)
    (tmp_path / "src" / "env" / "pyvenv.cfg").touch()
    for name in ("notes.txt", ".hidden.py", "model.weights.h5"):
        (tmp_path / "src" / name).touch()
    monkeypatch.chdir(tmp_path)
    data = as_data("src", "src/deep/a.py")
    assert data["input"] == ["src/deep/a.py", "src/deep/b.py", "src/model.keras"]
    assert [file["kind"] for file in data["files"]] == ["script", "script", "model"]
    assert data["backend"] == keras.backend.backend()
    assert as_data("src/deep")["backend"] is None


def test_a_folder_without_any(tmp_path):
    complains(run("doctor", tmp_path), "is a folder with neither a model nor a script")


def test_a_link_to_itself_and_a_name_that_is_not_utf8_keep_no_other_file_from_being_examined(tmp_path, monkeypatch):
    write(tmp_path, a=NOTE)
    (tmp_path / "loop.py").symlink_to("loop.py")
    with open(os.fsencode(tmp_path) + b"/\xff.py", "w") as opened:
        opened.write(HEAD + NOTE)
    monkeypatch.chdir(tmp_path)
    result = run("doctor", ".", "--format", "sarif")
    assert result.exit_code == 2 and "loop.py cannot be opened" in result.stderr
    found = json.loads(result.stdout)["runs"][0]["results"]
    places = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in found]
    assert sorted(places) == ["%FF.py", "a.py"]


def test_a_comment_that_names_no_rule_is_pointed_out(tmp_path):
    write(tmp_path, a=f"{NOTE}  # keras-adjoint: ignore[checkerboards]")
    result = run("doctor", tmp_path)
    assert "a.py:2: No rule is called checkerboards, but checkerboard." in result.stderr
    assert result.exit_code == 0


# --- exit status


@pytest.mark.parametrize(
    "files, options, status",
    [
        ({"a": NOTE}, (), 0),
        ({"a": NOTE}, ("--strict",), 1),
        ({"a": NOTE, "b": ERROR}, (), 1),
        ({"a": NOTE, "b": ERROR}, ("--exit-zero",), 0),
        ({"a": NOTE, "b": ERROR, "c": "def ("}, (), 2),
        ({"a": "def (", "b": NOTE}, ("--exit-zero",), 2),
        ({"a": ""}, ("--strict",), 0),
    ],
    ids=str,
)
def test_the_worst_file_decides(files, options, status, tmp_path):
    write(tmp_path, **files)
    for form in ("text", "json", "github", "sarif"):
        result = run("doctor", tmp_path, *options, "--format", form)
        assert result.exit_code == status, result.output
    broken = sum(text == "def (" for text in files.values())
    assert len(result.stderr.splitlines()) == broken
    assert [bool(file["problem"]) for file in as_data(tmp_path)["files"]].count(True) == broken


def test_a_file_that_cannot_be_used_does_not_keep_others_from_being_repaired(tmp_path):
    lost_tie().save(tmp_path / "model.keras")
    write(tmp_path, broken="def (")
    result = run("doctor", tmp_path, "--fix")
    assert result.exit_code == 2 and (tmp_path / "model.repaired.keras").exists()
    assert "2 files: 1 warning. 1 of them could not be used." in result.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        (("--fix", "-o", "out.py"), "-o is for the repaired copy of a single file"),
        (("--json", "--format", "sarif"), "--json is --format json"),
        (("--format", "xml"), "Invalid value for '--format'"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(options, words, tmp_path):
    write(tmp_path, a=NOTE, b=NOTE)
    complains(run("doctor", tmp_path, *options), words)


# --- comments


@pytest.mark.parametrize(
    "text, found",
    [
        (NOTE, 1),
        (f"{NOTE}  # keras-adjoint: ignore", 0),
        (f"{NOTE}  # noqa  # keras-adjoint: ignore", 0),
        (f"{NOTE}  # keras-adjoint: ignore[checkerboard]", 0),
        (f"{NOTE}  # keras-adjoint: ignore[tie lost, Checkerboard]", 0),
        (f"{NOTE}  # keras-adjoint: ignore[tie-lost]", 1),
        (f"{NOTE}  # keras-adjoint: ignored", 1),
        (f"# keras-adjoint: ignore\n{NOTE}\n{NOTE}", 1),
        (f"# keras-adjoint: ignore[tie-lost]\n# keras-adjoint: ignore[checkerboard]\n\n{NOTE}", 0),
        (f"{NOTE}\n# keras-adjoint: ignore", 1),
        (f"x = 1  # keras-adjoint: ignore\n{NOTE}", 1),
        (f"text = '# keras-adjoint: ignore'; {NOTE}", 1),
        (f"if True:\n    # keras-adjoint: ignore\n    {NOTE}", 0),
    ],
)
def test_a_comment_silences_its_line_or_the_next(text, found):
    silenced = []
    assert len(examine_script(HEAD + text + "\n", "script.py", silenced)) == found
    assert len(silenced) == text.count(NOTE) - found


def test_what_is_silenced_is_said(tmp_path):
    write(tmp_path, a=f"{NOTE}  # keras-adjoint: ignore")
    assert "nothing found. 1 silenced by comments." in run("doctor", tmp_path / "a.py", "--strict").stdout
    assert [one["rule"] for one in as_data(tmp_path)["files"][0]["silenced"]] == ["checkerboard"]


# --- formats


def test_annotations_of_github(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a=NOTE, b=ERROR, c="def (")
    lost_tie().save(tmp_path / "model.keras")
    lines = run("doctor", ".", "--format", "github").stdout.splitlines()
    assert all(
        re.fullmatch(r"::(error|warning|notice) [a-z]+=[^:,]+(,[a-z]+=[^:,]+)*::[^\r\n]+", line) for line in lines
    )
    starts = [line.partition("::")[2].partition(",title")[0] for line in lines]
    assert starts == [
        "notice file=a.py,line=2,col=6",
        "error file=b.py,line=3,col=1",
        "error file=c.py",
        "warning file=model.keras",
    ]


def test_annotations_are_one_line_whatever_the_text():
    from keras_adjoint_cli.output.annotations import annotation

    assert annotation("error", "50%\nof it", file="a,b:c.py") == "::error file=a%2Cb%3Ac.py::50%25%0Aof it"


def test_sarif(tmp_path, monkeypatch):
    """What section 3 of the standard asks of the objects that are there."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a=f"{NOTE}\n{NOTE}  # keras-adjoint: ignore", c="def (")
    write(tmp_path / "with space", b=ERROR)
    lost_tie().save(tmp_path / "model.keras")
    log = json.loads(run("doctor", ".", "--format", "sarif").stdout)
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run_object,) = log["runs"]
    driver = run_object["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == [rule.name.lower().replace(" ", "-") for rule in RULES]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"] and rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in SEVERITIES
    results = run_object["results"]
    for result in results:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in SEVERITIES and result["message"]["text"]
        (location,) = result["locations"]
        assert " " not in location["physicalLocation"]["artifactLocation"]["uri"]
        region = location["physicalLocation"].get("region")
        assert (region is None) == ("logicalLocations" in location)
        assert region is None or min(region["startLine"], region["startColumn"]) >= 1
    places = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results]
    assert places == ["a.py", "a.py", "model.keras", "with%20space/b.py"]
    assert [one["suppressions"] for one in results] == [[], [{"kind": "inSource"}], [], []]
    (invocation,) = run_object["invocations"]
    assert invocation["executionSuccessful"] is False
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["level"] == "error" and "c.py is not Python" in notification["message"]["text"]


def test_a_small_difference_is_not_said_to_be_several_times_as_much():
    assert "1 times" not in str(coverage((1001,), (2,), (1,)))


def test_what_python_warns_of_in_a_script_is_not_said(tmp_path):
    """Of escapes in strings and of numbers before words, which are the script's own."""
    script = tmp_path / "script.py"
    script.write_text('import keras\nlayer = keras.layers.Dense(1if True else 2, name="\\d")\nprint("\\d")\n')
    with warnings.catch_warnings(action="error"):
        result = run("doctor", script)
    assert (result.exit_code, result.stderr) == (0, "")
