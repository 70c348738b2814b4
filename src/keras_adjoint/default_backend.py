"""Which backend Keras uses where the one that it is configured for is not installed. Imports no Keras."""

import importlib.util
import json
import os
import sys
from pathlib import Path

PREFERRED = ("jax", "tensorflow", "torch")


def settle_backend() -> None:
    """Name an installed backend to Keras, if Keras would fail to import for want of its default one.

    Without this, `pip install "keras-adjoint[jax]"` gives a package that says "No module named 'tensorflow'". What
    `KERAS_BACKEND` or Keras' configuration file asks for comes first.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND") or is_installed(configured_backend()):
        return
    installed = next(filter(is_installed, PREFERRED), None)
    if installed is not None:
        os.environ["KERAS_BACKEND"] = installed


def configured_backend() -> str:
    """The backend in Keras' configuration file, else Keras' default."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"])
    except (OSError, ValueError, KeyError):
        return "tensorflow"


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
