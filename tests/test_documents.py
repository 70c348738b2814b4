"""What the README and the guides say runs."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
PROGRAMS = [block for block in BLOCKS if block.startswith("import")]


def test_the_readme_has_a_program_to_run():
    assert len(PROGRAMS) == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_in_the_readme_prints_what_it_says(program, capsys):
    exec(compile(program, "README.md", "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)", program)
    assert promised and capsys.readouterr().out.strip().splitlines() == promised


def test_names_in_the_readme_exist():
    import keras_adjoint as ka

    names = set(re.findall(r"\bka\.(\w+)", "".join(BLOCKS)))
    assert names and names <= set(ka.__all__)


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("guide", sorted((ROOT / "guides").glob("*.py")), ids=lambda path: path.stem)
def test_guide_runs(guide, capsys):
    runpy.run_path(str(guide), run_name="__main__")
    assert capsys.readouterr().out
