"""The house stands as designed: imports run one way, files are short, the package is light and keeps its promises."""

import ast
import importlib.metadata
import importlib.util
import inspect
import re
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import keras
import pytest

import keras_adjoint as ka

# Lowest first. A module imports only what stands above it here, or beside it in its own package; a new module takes a
# place in this list.
HOUSE = [
    "default_backend",
    "errors",
    "whole_files",
    "geometry",
    "arrays",
    "channels",
    "kernels",
    "window",
    "backends",
    "precision",
    "algorithms",
    "sharing",
    "rules",
    "layers",
    "autotune",
    "residual",
    "places",
    "packing",
    "graph",
    "operations",
    "way_back",
    "adjoints",
    "mirroring",
    "pairs",
    "diagnosis",
    "checks",
    "saving",
    "stock",
    "untie",
    "ladders",
    "plots",
    "__init__",
    "demo",
    "doctor",
    "report",
    "cli",
    "__main__",
]

# The same for the command line, whose modules stand in rooms of their own.
COMMAND_LINE = [
    "errors",
    "console",
    "fitting_table",
    "files",
    "policies",
    "checking",
    "inspecting",
    "mirroring",
    "kernels",
    "projecting",
    "doctoring",
    "reporting",
    "completion",
    "options",
    "commands",
    "app",
    "__init__",
]

# The contract of the design page, `autotune`, `deconvnet`, `exporting`, and the pictures.
API = {
    "adjoint", "autotune", "deconvnet", "exporting", "mirror", "autoencoder", "untie", "is_tied", "clone_tied",
    "convert_layout", "transpose_kernel", "adapt_channels", "adapt_bias", "check_adjoint", "assert_adjoint",
    "plot_kernels", "plot_mirror", "plot_reconstruction", "AdjointReport", "register_rule",
    "KerasAdjointError", "NoRuleError", "TieError", "SizeError",
}  # fmt: skip

FRAMEWORKS = {"jax", "jaxlib", "tensorflow", "torch"}
EXTRAS = {"jax", "tensorflow", "torch", "plot", "cli", "export", "demo", "docs", "test"}

PACKAGE = Path(importlib.util.find_spec("keras_adjoint").origin).parent
TESTS = Path(__file__).parent


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_by(module):
    """The modules that a module imports anywhere in its text, also inside of functions."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in SOURCES else origin


OURS = {module: {name for name in imported_by(module) if name in SOURCES} - {module} for module in SOURCES}
THEIRS = {module: {name.partition(".")[0] for name in imported_by(module) if name not in SOURCES} for module in SOURCES}


def room(module):
    """The name in `HOUSE` that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


# --- imports


def test_every_module_has_its_place_and_every_place_its_module():
    assert {room(module) for module in SOURCES} == set(HOUSE)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module):
    below = HOUSE[: HOUSE.index(room(module))]
    wrong = {name for name in OURS[module] if room(name) not in below and room(name) != room(module)}
    assert not wrong, f"{module} may not import {', '.join(sorted(wrong))}"


def room_in_command_line(module):
    """The name in `COMMAND_LINE` that a module belongs to."""
    return module.split(".")[2] if module.count(".") > 1 else "__init__"


def test_imports_run_one_way_in_the_command_line():
    imports = {module: OURS[module] for module in SOURCES if room(module) == "cli"}
    assert {room_in_command_line(module) for module in imports} == set(COMMAND_LINE)
    place = {module: COMMAND_LINE.index(room_in_command_line(module)) for module in imports}
    for module, names in imports.items():
        wrong = {name for name in names if place.get(name, -1) > place[module]}
        assert not wrong, f"{module} may not import {', '.join(sorted(wrong))}"


def test_imports_have_no_cycle():
    TopologicalSorter(OURS).prepare()


def test_geometry_is_integers_only():
    assert THEIRS["keras_adjoint.ops.geometry"] <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", [module for module in SOURCES if room(module) != "backends"])
def test_only_the_backends_room_imports_frameworks(module):
    assert not THEIRS[module] & FRAMEWORKS


def test_importing_the_package_imports_nothing_heavy():
    heavy = FRAMEWORKS - {keras.backend.backend()} | {"matplotlib", "PIL", "jinja2", "typer", "rich", "skimage"}
    script = f"""
import sys
import keras
before = {{name.partition(".")[0] for name in sys.modules}}  # what Keras imports is not our choice
import keras_adjoint
after = {{name.partition(".")[0] for name in sys.modules}}
print("heavy:", *sorted((after - before) & {heavy!r}))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split("heavy:")[1].split() == []


# --- sizes


@pytest.mark.parametrize("path", [*SOURCES.values(), *sorted(TESTS.rglob("*.py"))], ids=lambda path: path.name)
def test_no_file_is_long(path):
    assert lines(path) <= 500


def test_the_median_file_is_short():
    assert statistics.median(lines(path) for path in SOURCES.values()) <= 150


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


# --- the public names


def test_all_is_the_contract():
    assert set(ka.__all__) == API
    assert len(ka.__all__) == len(set(ka.__all__))


FUNCTIONS = [name for name in ka.__all__ if inspect.isfunction(getattr(ka, name))]


@pytest.mark.parametrize("name", ka.__all__)
def test_public_names_have_a_docstring(name):
    assert getattr(ka, name).__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_explain_every_argument(name):
    function = getattr(ka, name)
    sections = re.split(r"^(\w+):\n", inspect.getdoc(function), flags=re.MULTILINE)
    arguments = sections[sections.index("Args") + 1]
    missing = [
        name for name in inspect.signature(function).parameters if not re.search(rf"^ +[*]*{name}:", arguments, re.M)
    ]
    assert not missing, f"not explained: {', '.join(missing)}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_show_an_example(name):
    assert re.search(r"^Examples?:\s+>>> ", inspect.getdoc(getattr(ka, name)), re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_typed(name):
    signature = inspect.signature(getattr(ka, name))
    untyped = [name for name, value in signature.parameters.items() if value.annotation is value.empty]
    assert not untyped, f"not annotated: {', '.join(untyped)}"
    assert signature.return_annotation is not signature.empty


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


# --- the distribution


@pytest.fixture
def distribution():
    try:
        return importlib.metadata.distribution("keras-adjoint")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("these tests run on the sources; `make test` runs them on the installed package")


def test_the_package_depends_on_keras_and_numpy_alone(distribution):
    always = {re.match(r"[\w-]+", line)[0] for line in distribution.requires if "extra ==" not in line}
    assert always == {"keras", "numpy"}


def test_the_distribution_has_the_promised_extras_and_version(distribution):
    assert set(distribution.metadata.get_all("Provides-Extra")) == EXTRAS
    assert distribution.version == ka.__version__
    assert distribution.metadata["License-Expression"] == "Apache-2.0"


def test_the_command_exists(distribution):
    (command,) = distribution.entry_points.select(group="console_scripts", name="keras-adjoint")
    assert callable(command.load())


def test_pre_commit_and_the_tests_use_the_same_ruff():
    constraints = (TESTS.parent / "requirements" / "constraints.txt").read_text(encoding="utf-8")
    hooks = (TESTS.parent / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==[\w.]+", hooks)) == set(re.findall(r"^ruff==[\w.]+", constraints, re.MULTILINE))
