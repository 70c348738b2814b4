"""Every example in a docstring runs and prints what it says, on every backend."""

import doctest
import importlib
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import in_turn

import keras_adjoint as ka

LEAVES = ("keras_adjoint_cli", "keras_adjoint.demo", "keras_adjoint.report")  # they need extras and have no examples
MODULES = [
    "keras_adjoint",
    *(
        module.name
        for module in pkgutil.walk_packages(ka.__path__, "keras_adjoint.")
        if not module.name.startswith(LEAVES)
        and (".ops.backend." not in module.name or f".{keras.backend.backend()}" in module.name)
    ),
]
WITH_EXAMPLES = [name for name in MODULES if ">>> " in Path(find_spec(name).origin).read_text(encoding="utf-8")]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class ShapesAreTuples(doctest.OutputChecker):
    """Compares output as if every backend printed shapes as tuples: `torch.Size([2, 3])` is `(2, 3)`."""

    def check_output(self, want, got, optionflags):
        return super().check_output(want, as_tuples(got), optionflags)


def as_tuples(text):
    def as_tuple(match):
        sizes = [size.strip() for size in match[1].split(",") if size.strip()]
        return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"

    return re.sub(r"(?:torch\.Size|TensorShape)\(\[([^\]]*)\]\)", as_tuple, text)


@pytest.mark.parametrize("name", in_turn(WITH_EXAMPLES, always=["torch"]))
def test_examples_of(name):
    module = importlib.import_module(name)
    names = {"keras": keras, "np": np, "ka": ka} | vars(module)
    runner = doctest.DocTestRunner(ShapesAreTuples(), optionflags=OPTIONS)
    report = []
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)
