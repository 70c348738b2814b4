"""The code is organised as designed: imports run one way, files are short, the package is light and keeps its promises."""

import ast
import importlib.metadata
import importlib.util
import inspect
import re
import statistics
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from command_line import run_in_new_process

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend
# The parts of the package, lowest first. A module imports only from its own part and from those above it here.
PARTS = [
    "errors",
    "command",
    "default_backend",
    "atomic_write",
    "recursion",
    "keras_internals",
    "keras_files",
    "kernels",
    "ops",
    "layers",
    "models",
    "testing",
    "operators",
    "solvers",
    "blocks",
    "stock",
    "plots",
    "__init__",
    "demo",
    "doctor",
    "report",
    "keras_adjoint_cli",
    "__main__",
]

# Within a part, what the rest of it is built on: a folder or module imports only from those before it.
LEVELS = {
    "ops": [
        "geometry",
        "halo",
        "axes",
        "window",
        "maxima",
        "products",
        "exporting",
        "backend",
        "precision",
        "dot_test",
        "algorithms",
    ],
    "keras_adjoint_cli": [
        *(
            "interruption",
            "printable",
            "errors",
            "progress",
            "without_tensorflow",
            "session",
            "streams",
            "console",
            "options",
            "files",
            "policy_options",
        ),
        *("actions", "output", "commands", "app"),
    ],
}

# The contract of the design page, `autotune`, `deconvnet`, `exporting`, and the pictures.
API = {
    "adjoint", "autotune", "deconvnet", "exporting", "mirror", "autoencoder", "untie", "is_tied", "clone_tied",
    "convert_layout", "transpose_kernel", "adapt_channels", "adapt_bias", "check_adjoint", "assert_adjoint",
    "plot_kernels", "plot_mirror", "plot_reconstruction", "AdjointReport", "register_rule",
    "Lipschitz", "Regularized", "certify", "operator", "identity", "vstack", "hstack", "block", "from_scipy",
    "unroll",
    "lstsq", "nnls", "pinv", "LeastSquares", "plan_blocks", "apply_blocks", "stream", "layout_map",
    "SparseCoding",
    "KerasAdjointError", "NoRuleError", "TieError", "SizeError",
}  # fmt: skip

FRAMEWORKS = {"jax", "jaxlib", "tensorflow", "torch"}
EXTRAS = {"bridges", "scale", "jax", "tensorflow", "torch", "plot", "cli", "export", "demo", "docs", "test"}

PACKAGE = Path(importlib.util.find_spec("keras_adjoint").origin).parent
COMMAND_LINE = Path(importlib.util.find_spec("keras_adjoint_cli").origin).parent
TESTS = Path(__file__).parent


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted([*PACKAGE.rglob("*.py"), *COMMAND_LINE.rglob("*.py")])}


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


@pytest.fixture(scope="module")
def imports():
    return {module: set(imported_by(module)) for module in SOURCES}


@pytest.fixture(scope="module")
def ours(imports):
    return {module: {name for name in names if name in SOURCES} - {module} for module, names in imports.items()}


@pytest.fixture(scope="module")
def theirs(imports):
    return {
        module: {name.partition(".")[0] for name in names if name not in SOURCES} for module, names in imports.items()
    }


def part_of(module):
    """The name in `PARTS` that a module belongs to."""
    if module.startswith("keras_adjoint_cli"):
        return "keras_adjoint_cli"
    return module.split(".")[1] if "." in module else "__init__"


def level_of(module):
    """The name in `LEVELS` of its part that a module belongs to; "" for others."""
    inside = module.split(".")[1 if module.startswith("keras_adjoint_cli") else 2 :]
    return inside[0] if inside and inside[0] in LEVELS[part_of(module)] else ""


# --- imports


def test_every_module_has_its_part_and_every_part_its_modules():
    assert {part_of(module) for module in SOURCES} == set(PARTS)


def test_imports_run_one_way(ours):
    wrong = [
        f"{module} may not import {name}"
        for module, names in ours.items()
        for name in names
        if PARTS.index(part_of(name)) > PARTS.index(part_of(module))
    ]
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("part", LEVELS)
def test_imports_run_one_way_within(part, ours):
    levels = [*LEVELS[part], ""]
    wrong = [
        f"{module} may not import {name}"
        for module, names in ours.items()
        for name in names
        if part_of(module) == part_of(name) == part
        and levels.index(level_of(name)) > levels.index(level_of(module))
        and SOURCES[module].name != "__init__.py"
        and name != f"keras_adjoint.{part}"  # the part's own names, which import nothing
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_imports_have_no_cycle(ours):
    TopologicalSorter(ours).prepare()


def test_geometry_is_integers_only(theirs):
    assert theirs["keras_adjoint.ops.geometry"] <= set(sys.stdlib_module_names)


def test_only_the_backends_import_frameworks(theirs):
    files = "keras_adjoint_cli.files.torch_files"  # PyTorch's own files are read whichever backend Keras runs on
    backends = {module for module in SOURCES if module.startswith("keras_adjoint.ops.backend")} | {files}
    wrong = {module: sorted(theirs[module] & FRAMEWORKS) for module in SOURCES.keys() - backends}
    assert not {module: names for module, names in wrong.items() if names}


@pytest.mark.every_backend
@pytest.mark.in_turn("jax")  # which starts soonest
def test_what_runs_in_compiled_functions_can_be_read_by_autograph():
    """TensorFlow's AutoGraph cannot read `:=`: it leaves the function as it is, and says so to the user."""
    compiled = [module for module in SOURCES if part_of(module) in ("ops", "layers", "operators")]
    compiled.remove("keras_adjoint.ops.backend.jax_primitive")
    found = [
        f"{module}:{node.lineno}"
        for module in compiled
        for node in ast.walk(ast.parse(SOURCES[module].read_text("utf-8")))
        if isinstance(node, ast.NamedExpr)
    ]
    assert not found


def test_importing_the_package_imports_nothing_heavy():
    heavy = FRAMEWORKS - {"jax"} | {"matplotlib", "PIL", "jinja2", "typer", "rich", "skimage"}
    script = f"""
import sys
import keras
before = {{name.partition(".")[0] for name in sys.modules}}  # what Keras imports is not our choice
import keras_adjoint
after = {{name.partition(".")[0] for name in sys.modules}}
print("heavy:", *sorted((after - before) & {heavy!r}))
"""
    run = run_in_new_process("-c", script, KERAS_BACKEND="jax")
    assert run.stdout.split("heavy:")[1].split() == []


# --- sizes


def test_no_file_is_long():
    long = {path.name: lines(path) for path in [*SOURCES.values(), *TESTS.rglob("*.py")] if lines(path) > 500}
    assert not long


def test_the_median_file_is_short():
    assert statistics.median(lines(path) for path in SOURCES.values()) <= 150


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


# --- the public names


def test_all_is_the_contract():
    assert set(ka.__all__) == API
    assert len(ka.__all__) == len(set(ka.__all__))


FUNCTIONS = [name for name in ka.__all__ if inspect.isfunction(getattr(ka, name))]


def parameters():
    """(name of a public function, its docstring, a parameter)."""
    for name in FUNCTIONS:
        function = getattr(ka, name)
        for parameter in inspect.signature(function).parameters.values():
            yield name, inspect.getdoc(function), parameter


def test_public_names_have_a_docstring():
    assert [name for name in ka.__all__ if not getattr(ka, name).__doc__] == []


def test_public_functions_explain_every_argument():
    def explained(text):
        sections = re.split(r"^(\w+):\n", text, flags=re.MULTILINE)
        return re.findall(r"^ +[*]*(\w+):", sections[sections.index("Args") + 1], re.MULTILINE)

    assert [f"{name}({one.name})" for name, text, one in parameters() if one.name not in explained(text)] == []


def test_public_functions_show_an_example():
    texts = {name: inspect.getdoc(getattr(ka, name)) for name in FUNCTIONS}
    assert [name for name, text in texts.items() if not re.search(r"^Examples?:\s+>>> ", text, re.MULTILINE)] == []


def test_public_functions_are_typed():
    assert [f"{name}({one.name})" for name, _, one in parameters() if one.annotation is one.empty] == []
    signatures = {name: inspect.signature(getattr(ka, name)) for name in FUNCTIONS}
    assert [name for name, found in signatures.items() if found.return_annotation is found.empty] == []


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
