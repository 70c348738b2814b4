"""Model files that people hand to the command: loaded, or refused in words."""

import importlib
import sys
import zipfile

import keras

from keras_adjoint.cli.errors import Unusable
from keras_adjoint.places import layers_of as layers_of


def load(file, modules=None):
    """The model in a file, or an `Unusable` that says what is wrong with the file."""
    import_modules(modules or ())
    if not file.is_file():
        raise Unusable(f"There is no file {file}.")
    if file.suffix not in (".h5", ".hdf5") and not zipfile.is_zipfile(file):
        raise Unusable(f"{file} is not a Keras model: .keras files are zip archives, and this is none, or only a part.")
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception as error:
        innermost = str(error).rpartition("Exception encountered:")[2]  # Keras wraps one error into the other
        reason = innermost.strip().partition("\n")[0]
        hint = " To import a module that registers it, use --import." if "Could not locate" in reason else ""
        raise Unusable(f"{file} cannot be loaded: {reason}{hint}") from error


def import_modules(names):
    """Import modules that register custom layers, also from the current folder."""
    sys.path.insert(0, "")
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise Unusable(f"Cannot import {name}: {error}") from error
