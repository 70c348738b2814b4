"""Packages that are imported when a method asks for them, and what to install where they are missing."""

import importlib
from types import ModuleType

import keras

from keras_adjoint.errors import KerasAdjointError

BRIDGES = '"keras-adjoint[bridges]"'


def imported(module: str, asked_for: str, install: str = BRIDGES) -> ModuleType:
    """A module of an optional package.

    Args:
        module: Its name.
        asked_for: What needs it, for the error.
        install: What to install with pip.

    Raises:
        KerasAdjointError: If it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise KerasAdjointError(
            f"{asked_for} needs `{module.partition('.')[0]}`, which cannot be imported: pip install {install}. "
            f"Received: {error}"
        ) from error


def check_backend(wanted: str, asked_for: str) -> None:
    """Raise a KerasAdjointError unless Keras runs on a backend."""
    backend = keras.backend.backend()
    if backend != wanted:
        raise KerasAdjointError(
            f"{asked_for} computes on the tensors of {wanted}, so Keras has to run on it: set the environment variable "
            f"KERAS_BACKEND={wanted} before Keras is imported. `to_scipy` and `to_pylops` work on every backend. Received: "
            f"backend={backend!r}"
        )
