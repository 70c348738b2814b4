"""Model files that people hand to the command: loaded, or refused in words."""

import importlib
import sys
import zipfile

import keras

from keras_adjoint.cli.errors import Unusable
from keras_adjoint.cli.files.spared import need_tensorflow

HDF5 = b"\x89HDF\r\n\x1a\n"  # the first bytes of such a file
LEGACY = (".h5", ".hdf5")


def load(file, modules=None):
    """The model in a file, or an `Unusable` that says what is wrong with the file."""
    import_modules(modules or ())
    check_file(file)
    try:
        return load_model(file)
    except Exception as error:
        raise Unusable(f"{file} cannot be loaded: {reason_of(error)}") from error


def check_file(file):
    """Raise an `Unusable` unless a file is what its name says."""
    if file.is_dir():
        raise Unusable(f"{file} is a folder. A Keras model is one file, whose name ends in .keras or .h5.")
    if not file.exists():
        raise Unusable(f"There is no file {file}.")
    with file.open("rb") as opened:
        start = opened.read(len(HDF5))
    if not start:
        raise Unusable(f"{file} is not a Keras model: it is empty.")
    legacy = file.suffix in LEGACY
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if "config.json" not in archive.namelist():
                raise Unusable(f"{file} is a zip archive, but not a Keras model: it has no config.json.")
        if file.suffix != ".keras":
            raise Unusable(f"{file} is in Keras' own format. Rename it, so that it ends in .keras.")
    elif start == HDF5 and not legacy:
        raise Unusable(f"{file} is in the older format HDF5. Rename it, so that it ends in .h5.")
    elif start != HDF5:
        kind = "HDF5 files, and this is none" if legacy else "zip archives, and this is none, or only a part"
        raise Unusable(f"{file} is not a Keras model: {file.suffix if legacy else '.keras'} files are {kind}.")


def load_model(file):
    """Load a model; once more with TensorFlow if it cannot be loaded without."""
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception as error:
        if "tensorflow" not in str(error).lower():
            raise
        need_tensorflow()
        return keras.saving.load_model(file, compile=False)


def reason_of(error):
    """What Keras says is wrong with a file, in a sentence or two."""
    innermost = str(error).rpartition("Exception encountered:")[2].strip()  # it wraps one error into the other
    reason = innermost.partition("\n")[0].partition(" Full object config:")[0]
    if "Could not locate" in reason:
        return reason.partition(". ")[0] + ". To import a module that registers it, use --import."
    if "Lambda" in reason:
        return (
            "It has a Lambda layer, whose code would be run, so it is not safe to load. If you trust it, load it in Python "
            "with safe_mode=False, and replace the Lambda by a layer of a registered class."
        )
    return reason


def import_modules(names):
    """Import modules that register custom layers, also from the current folder."""
    sys.path.insert(0, "")
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise Unusable(f"Cannot import {name}: {error}") from error
