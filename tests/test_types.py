"""A type checker understands calls of the public API, and finds wrong ones."""

import os
import sys
from pathlib import Path

import pytest

import keras_adjoint

pytestmark = pytest.mark.any_backend
TESTS = Path(__file__).parent


def test_a_type_checker_accepts_right_calls_and_finds_wrong_ones(tmp_path):
    api = pytest.importorskip("mypy.api")
    sources = Path(keras_adjoint.__file__).parents[1]
    where = (
        "" if sources.name == "site-packages" else f"mypy_path = {sources}\n"
    )  # an installed package is found anyway
    configuration = tmp_path / "mypy.ini"
    # Keras and the frameworks have no stubs; everything else is as strict as it can be, unused ignores included.
    configuration.write_text(
        f"[mypy]\nstrict = true\n{where}"
        "[mypy-keras.*,jax.*,tensorflow.*,torch.*,matplotlib.*,ml_dtypes.*]\n"
        "ignore_missing_imports = true\nfollow_imports = skip\n"
        "[mypy-keras_adjoint.*]\nfollow_imports = silent\n",
        encoding="utf-8",
    )
    found, problems, status = api.run(
        [
            "--config-file",
            str(configuration),
            "--cache-dir",
            os.devnull,
            "--python-executable",
            sys.executable,
            str(TESTS / "typed_use.py"),
        ]
    )
    assert status == 0, found + problems
