"""Keras is told of an installed backend only where it would otherwise fail to import."""

import os
import sys
from pathlib import Path

import pytest
from command_line import run_in_new_process

from keras_adjoint import default_backend

pytestmark = pytest.mark.any_backend


@pytest.fixture
def settled(monkeypatch, tmp_path):
    """What `settle_backend` names, before Keras is imported, with some backends installed and one configured."""

    def settle(installed, configured=None, asked=None):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if asked is not None:
            monkeypatch.setenv("KERAS_BACKEND", asked)
        if configured is not None:
            (tmp_path / "keras.json").write_text(f'{{"backend": "{configured}"}}')
        monkeypatch.setattr(default_backend, "is_installed", lambda name: name in installed)
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        default_backend.settle_backend()
        return os.environ.get("KERAS_BACKEND")

    return settle


def test_an_installed_backend_is_named_where_the_default_is_missing(settled):
    assert settled({"jax"}) == "jax"
    assert settled({"torch"}) == "torch"


def test_what_is_installed_and_configured_stays(settled):
    assert settled({"jax", "tensorflow"}) is None
    assert settled({"jax", "tensorflow", "torch"}, configured="torch") is None


def test_a_configured_backend_that_is_missing_is_replaced(settled):
    assert settled({"tensorflow"}, configured="jax") == "tensorflow"


def test_what_the_user_asks_for_stays_even_if_it_is_missing(settled):
    assert settled({"jax"}, asked="torch") == "torch"


def test_nothing_is_named_where_nothing_is_installed(settled):
    assert settled(set()) is None


@pytest.mark.parametrize(
    "guide", [pytest.param("which_transpose", marks=pytest.mark.exhaustive), "channels_and_biases"]
)
def test_a_guide_runs_where_only_jax_is_installed(guide, tmp_path):
    """Nothing says so: neither `KERAS_BACKEND` nor Keras' configuration."""
    file = Path(__file__).parents[1] / "guides" / f"{guide}.py"
    script = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(["tensorflow", "torch", "sklearn"]))
sys.argv = [{str(file)!r}, "--quick"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    result = run_in_new_process("-c", script, without=["KERAS_BACKEND"], KERAS_HOME=str(tmp_path))
    assert result.returncode == 0 and result.stdout, result.stderr


def test_nothing_is_named_once_keras_is_imported(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(default_backend, "is_installed", lambda name: name == "jax")
    default_backend.settle_backend()
    assert "KERAS_BACKEND" not in os.environ
