"""What stands beside the code agrees with it: the citation, the changelog, the workflows and the forms for issues."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend
ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_citation_has_the_version_and_the_license():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == ka.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["url"] == PROJECT["urls"]["Documentation"]


def test_the_changelog_begins_with_this_version_and_has_short_lines():
    (newest, *_) = re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert re.fullmatch(rf"{re.escape(ka.__version__)} - (unreleased|\d{{4}}-\d\d-\d\d)", newest)
    assert [line for line in text("CHANGELOG.md").splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_make_what_the_makefile_has(path):
    commands = [step["run"] for job in jobs(path) for step in job.get("steps", []) if "run" in step]
    made = {target for command in commands for target in re.findall(r"^make (\S+)", command, re.MULTILINE)}
    assert made <= set(re.findall(r"^([\w./-]+)(?=.*:(?!=))", text("Makefile"), re.MULTILINE))


def jobs(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()


def test_the_matrix_has_every_python_and_every_backend():
    matrix = yaml.safe_load(text(".github/workflows/tests.yml"))["jobs"]["tests"]["strategy"]["matrix"]
    classifiers = "\n".join(PROJECT["classifiers"])
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    assert sorted(matrix["backend"]) == ["jax", "tensorflow", "torch"]
    oldest = [job["backend"] for job in matrix["include"] if job["keras"] == "oldest"]
    assert sorted(oldest) == sorted(matrix["backend"])
    assert any(
        re.match(r"keras>=[\d.]+", one) for one in PROJECT["dependencies"]
    )  # the workflow reads the oldest there


def test_forms_ask_for_code_backend_and_versions():
    form = yaml.safe_load(text(".github/ISSUE_TEMPLATE/bug.yml"))
    required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert {"code", "backend", "versions"} <= required


@pytest.mark.parametrize(
    ("subject", "fits"), [("x" * 72, True), ("x" * 73, False), ("ᵀ" * 72, True), ("ᵀ" * 73, False), ("short", True)]
)
def test_the_hook_counts_the_characters_of_a_subject(subject, fits):
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    (hook,) = [hook for hook in repository["hooks"] if hook["id"] == "subject"]
    message = f"{subject}\n\n{'a long line of the body ' * 9}\n".encode()
    assert (re.search(hook["entry"].encode(), message) is None) == fits  # pygrep searches bytes
