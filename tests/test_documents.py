"""What the README, the pages and the guides say runs, links to something, and is drawn by the programs beside it."""

import importlib
import inspect
import re
import runpy
import sys
import warnings
from pathlib import Path

import jupytext
import keras
import nbformat
import pytest
from helpers import BACKEND, BACKENDS, MOSTLY_TORCH, RARELY_JAX, in_turn

import keras_adjoint as ka

ROOT = Path(__file__).parents[1]
DOCS, GUIDES = ROOT / "docs", sorted((ROOT / "guides").glob("*.py"))
MADE = {"build", "guides"}  # folders of docs/ that `make docs` writes
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).parts[0] not in MADE]
ELSEWHERE = [file for folder in (".github", "benchmarks") for file in sorted((ROOT / folder).rglob("*.md"))]
MARKDOWN = [*sorted(ROOT.glob("*.md")), *ELSEWHERE, *PAGES]
NAMES = {"TensorFlow": "tensorflow", "JAX": "jax", "PyTorch": "torch"}


def name(path):
    return path.relative_to(ROOT).as_posix()


def text(path):
    return path.read_text(encoding="utf-8")


def blocks(path, language="python"):
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(path), re.DOTALL | re.MULTILINE)


def promised(block):
    """What a block says that it prints, line by line."""
    return re.findall(r"print\(.*\)  # (.*)", block)


def backends_of(block):
    """The backends that a block is for; its first line may name them."""
    only = re.match(r"# Only on ([\w, ]+)\.\n", block)
    return [NAMES[name] for name in re.findall(r"\w+", only[1]) if name != "and"] if only else list(BACKENDS)


def backends_of_page(page):
    """Those on which all blocks of a page run, one after the other."""
    return [name for name in RARELY_JAX if all(name in backends_of(block) for block in blocks(page))]


# --- the README

PROGRAMS = [block for block in blocks(ROOT / "README.md") if block.startswith("import")]


@pytest.mark.any_backend
def test_the_readme_has_programs_to_run():
    assert len(PROGRAMS) == 3


@pytest.mark.parametrize("program", in_turn(PROGRAMS, lambda program: f"program {PROGRAMS.index(program)}"))
def test_programs_in_the_readme_print_and_draw_what_they_say(program, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [keras.layers.Conv2D(4, 3, strides=2, activation="relu"), keras.layers.MaxPooling2D()]
    keras.Sequential([keras.Input((28, 27, 3)), *layers]).save("model.keras")  # the reader's own
    exec(compile(program, "README.md", "exec"), {})
    drawn = re.findall(r'savefig\("(.+?)"\)', program)
    assert promised(program) or drawn
    assert capsys.readouterr().out.strip().splitlines() == promised(program)
    assert all((tmp_path / file).read_bytes().startswith(b"\x89PNG") for file in drawn)


# --- the pages


WITH_BLOCKS = [page for page in PAGES if blocks(page)]
FOR_EACH_BACKEND = [page for page in WITH_BLOCKS if not backends_of_page(page)]


@pytest.mark.parametrize("page", FOR_EACH_BACKEND, ids=name)
def test_blocks_of_a_page_with_a_part_for_each_backend_run_on_each(page, capsys, tmp_path, monkeypatch):
    assert {backend for block in blocks(page) for backend in backends_of(block)} == set(BACKENDS)
    run_blocks(page, capsys, tmp_path, monkeypatch)


ON_ANY = [page for page in WITH_BLOCKS if page not in FOR_EACH_BACKEND]


@pytest.mark.parametrize("page", in_turn(ON_ANY, name, backends_of_page))
def test_blocks_of_a_page_run_in_order_and_print_what_they_say(page, capsys, tmp_path, monkeypatch):
    run_blocks(page, capsys, tmp_path, monkeypatch)


def run_blocks(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in (block for block in blocks(page) if BACKEND in backends_of(block)):
        exec(compile(block, name(page), "exec"), names)
        assert capsys.readouterr().out.strip().splitlines() == promised(block), block


@pytest.mark.any_backend
@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name)
def test_names_of_the_package_exist(page):
    assert set(re.findall(r"\bka\.(\w+)", text(page))) <= set(ka.__all__)


@pytest.mark.any_backend
@pytest.mark.parametrize("page", [*MARKDOWN, *GUIDES], ids=name)
def test_links_lead_to_files_and_headings_as_read_in_the_repository(page):
    for path, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text(page)):
        file = (page.parent / path).resolve() if path else page
        assert file.exists() and file.is_relative_to(ROOT), path
        assert file.relative_to(ROOT).parts[:2] not in {("docs", folder) for folder in MADE}, path
        assert not anchor or anchor in anchors(file), f"{path}#{anchor}"


def anchors(page):
    """Those of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.any_backend
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_show_no_directives_in_the_repository(page):
    shown = re.sub(r"^<!--.*?-->$", "", text(page), flags=re.DOTALL | re.MULTILINE)

    # One that includes a file names it, which is all there is to say of it.
    assert not re.findall(r"^(?:`{3,}|:{3,}){(?!include}).*$|^:{3,}$|{[\w:]+}`.*?`|{{.*}}", shown, re.MULTILINE)


@pytest.mark.any_backend
def test_the_index_of_how_it_works_lists_every_page():
    page = text(DOCS / "how" / "index.md")
    listed = re.findall(r"^- \[.+?\]\((\w+)\.md\)", page, re.MULTILINE)
    assert listed == re.findall(r"^\w+$", page[page.index("{toctree}") :], re.MULTILINE)
    assert sorted([*listed, "index"]) == sorted(path.stem for path in (DOCS / "how").glob("*.md"))


@pytest.mark.any_backend
def test_the_reference_says_of_each_name_what_its_docstring_says_and_links_to_its_source():
    rows = re.findall(r"^\| \[`(\w+)`\]\((.+?)\) \| (.+) \|$", text(DOCS / "reference.md"), re.MULTILINE)
    assert sorted(found for found, _, _ in rows) == sorted(ka.__all__)
    for found, link, words in rows:
        first, _, _ = inspect.getdoc(getattr(ka, found)).partition("\n\n")
        assert words == " ".join(first.split()), found
        assert re.search(rf"^(def|class) {found}\b", text(DOCS / link), re.MULTILINE), link


@pytest.mark.any_backend
def test_a_page_of_the_site_is_that_of_the_repository_with_directives_and_links_to_its_own_guides(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    for_site = importlib.import_module("repository").for_site
    assert for_site("<!--\n```{toctree}\nties\n```\n-->", "how") == "\n```{toctree}\nties\n```\n"
    assert for_site("<!-- :::: -->\n<!-- a remark -->", "") == " :::: \n<!-- a remark -->"
    assert for_site("[a](../guides/export.py) [b](ties.md)", "") == "[a](guides/export.py) [b](ties.md)"
    assert for_site("[a](../../guides/export.py) [b](ties.md)", "how") == "[a](../guides/export.py) [b](ties.md)"
    assert for_site("[`adjoint`](../src/keras_adjoint/models/adjoint.py)", "") == "{py:obj}`~keras_adjoint.adjoint`"


@pytest.mark.any_backend
@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=name)
def test_commands_exist(page):
    from typer.main import get_command

    from keras_adjoint_cli.app import app

    subcommands = set(get_command(app).commands)
    lines = "".join(blocks(page, "sh")) + " ".join(re.findall(r"`(keras-adjoint [^`]+)`", text(page)))
    assert set(re.findall(r"keras-adjoint ([a-z]\w*)", lines)) <= subcommands
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", "".join(blocks(page, "(?:sh)?")), re.MULTILINE)) <= targets


@pytest.mark.any_backend
def test_the_reference_has_every_public_name_once():
    found = re.findall(r"^\.\. auto\w+:: (\w+)(?!\.)\b", text(DOCS / "reference.md"), re.MULTILINE)
    assert sorted(found) == sorted(ka.__all__)


@pytest.mark.any_backend
def test_drawings_are_what_the_programs_draw(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "drawings"))
    drawings = [draw() for draw in runpy.run_path(str(DOCS / "drawings"))["DRAWINGS"]]
    for drawing in drawings:
        assert text(DOCS / "drawings" / f"{drawing.name}.svg") == drawing.svg()
    assert {file.stem for file in (DOCS / "drawings").glob("*.svg")} == {drawing.name for drawing in drawings}


# --- the guides


@pytest.mark.parametrize("guide", in_turn(GUIDES, lambda path: path.stem, lambda path: MOSTLY_TORCH))
def test_guide_runs(guide, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(guide.parent))
    monkeypatch.setattr(sys, "argv", [str(guide), "--quick"])
    with warnings.catch_warnings(action="ignore"):  # what frameworks have to say about themselves
        runpy.run_path(str(guide), run_name="__main__")
    close_figures()
    assert capsys.readouterr().out


def close_figures():
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.any_backend
@pytest.mark.parametrize("page", [*GUIDES, *PAGES, ROOT / "README.md"], ids=lambda path: path.stem)
def test_keras_is_imported_after_this_package(page):
    """Which so chooses a backend that is installed."""
    names = re.findall(r"^(?:import|from) (keras\b|keras_adjoint\b|pretrained_networks\b)", text(page), re.MULTILINE)
    assert names[:1] in ([], ["keras_adjoint"])


@pytest.mark.any_backend
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guide_is_a_notebook_too(guide):
    notebook = jupytext.read(guide)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    compile(code, guide.name, "exec")
    assert not re.search(r"(?<!\.)\b__file__\b", code), "a notebook has no __file__"
    assert jupytext.writes(notebook, "py:percent").rstrip().endswith(text(guide).rstrip()), "what Jupytext would write"
