"""`keras-adjoint report`: the page that it writes, what it says about it, and that it never loses anything."""

import json
import sys

import keras
import numpy as np
import pytest
from command_line import complains, run, saved
from keras import layers
from PIL import Image

from keras_adjoint_cli.actions import report as reporting

pytestmark = pytest.mark.any_backend


def encoder():
    image = keras.Input((13, 10, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="first")(image)
    x = layers.MaxPooling2D(name="pool")(x)
    return keras.Model(image, layers.Conv2D(5, 2, padding="same", name="second")(x), name="encoder")


@pytest.fixture
def file(tmp_path):
    return saved(encoder(), tmp_path)


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype="uint8")).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def reported(file, *options):
    """(what the command says, the page that it wrote)."""
    out = file.with_name("report.html")
    result = run("report", file, "-o", out, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), out.read_text(encoding="utf-8")


def test_the_page_is_written_and_nothing_else(file):
    before = file.read_bytes()
    data, page = reported(file)
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.keras", "report.html"]
    assert file.read_bytes() == before
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert data["bytes"] == len(page.encode()) and data["can_be_mirrored"] and data["layers_with_kernels"] == 2
    assert (data["adjoint_tests_passed"], data["adjoint_tests"]) == (3, 3)
    assert data["reconstructed"] == ["cat", "astronaut", "coffee"]


def test_pictures_ranges_and_policies_are_those_of_the_user(file, photo):
    options = ["--images", photo, "--images", photo, "--range", -1, 1]
    data, page = reported(file, *options, "--policy", "pooling=switches", "--policy", "bias:first=none")
    assert data["reconstructed"] == ["photo.png", "photo.png"]
    assert "-1 to 1" in page and 'pooling="switches"' in page and "as you chose" in page


def test_what_it_says_to_people(file):
    result = run("report", file, "-o", file.with_name("report.html"))
    assert result.exit_code == 0
    for words in (
        " kB.",
        "layers whose linear part is mirrored by its exact adjoint: 2 of 3",
        "adjoint tests passed: 3 of 3",
        "cat, astronaut, coffee",
    ):
        assert words in result.stdout
    assert "\x1b[" not in result.stdout


def test_a_gap_is_told_and_the_page_is_written(tmp_path):
    image = keras.Input((9, 9, 3))
    model = keras.Model(image, layers.AutoContrast(name="contrast")(layers.Conv2D(4, 3, name="conv")(image)))
    data, page = reported(saved(model, tmp_path))
    assert not data["can_be_mirrored"] and [gap["layer"] for gap in data["gaps"]] == ["contrast"]
    assert data["reconstructed"] == [] and "The mirror has a gap." in page
    out = tmp_path / "report.html"
    assert "gap at contrast, AutoContrast" in run("report", tmp_path / "model.keras", "-o", out, "--force").stdout


def test_nothing_is_overwritten_unless_it_is_asked_for(file, photo):
    out = file.with_name("report.html")
    out.write_text("mine")
    complains(run("report", file, "-o", out), "exists already")
    assert out.read_text() == "mine"
    assert run("report", file, "-o", out, "--force").exit_code == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    before = file.read_bytes()
    complains(run("report", file, "-o", file, "--force"), "ends in .html")
    page = photo.rename(photo.with_suffix(".html"))
    complains(run("report", file, "-o", page, "--images", page, "--force"), "never overwritten")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "options, answer",
    [
        (["--images", "missing.jpg"], "There is no file missing.jpg"),
        (["--policy", "pooling=none"], "`pooling` must be one of"),
        (["--policy", "pool=switches"], "The policies are called"),
        (["--policy", "bias:third=none"], "no layer of the name or class third"),
    ],
)
def test_wrong_options(options, answer, file):
    complains(run("report", file, "-o", file.with_name("report.html"), *options), answer)
    assert not file.with_name("report.html").exists()


def test_files_that_cannot_be_used(tmp_path):
    out = tmp_path / "report.html"
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"kernels")
    complains(run("report", broken, "-o", out), "is not a Keras model")
    complains(run("report", tmp_path / "none.keras", "-o", out), "There is no file")
    assert not out.exists()


def test_the_page_is_opened_if_that_is_wanted(file, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = file.with_name("page.html")
    run("report", file, "-o", page, "--force")
    assert opened == []
    run("report", file, "-o", page, "--force", "--open")
    assert opened == [page.resolve().as_uri()]


def test_what_is_interrupted_leaves_nothing(file, monkeypatch):
    def interrupted(facts):
        raise KeyboardInterrupt

    monkeypatch.setattr(reporting, "page_about", interrupted)
    result = run("report", file, "-o", file.with_name("report.html"))
    assert result.exit_code == 130
    assert [path.name for path in file.parent.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("missing", ["jinja2", "PIL"])
def test_without_its_packages_the_command_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    complains(run("report", "model.keras", "-o", "report.html"), 'pip install "keras-adjoint[cli]"')


def test_help_has_examples():
    assert "keras-adjoint report model.keras -o report.html" in run("report", "--help").stdout
