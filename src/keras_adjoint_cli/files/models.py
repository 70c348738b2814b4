"""Model files that people hand to the command: loaded, or refused in words."""

import contextlib
import importlib
import json
import os
import re
import sys
import traceback
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_adjoint.errors import in_short, shortened, with_article
from keras_adjoint.keras_files import (
    sequential_models_built_once,
    without_code_from_files,
    without_compiling,
    without_training,
)
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.budget import Budget
from keras_adjoint_cli.files.configs import LAMBDA, check_config
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.files.source import check_source, warnings_of_success
from keras_adjoint_cli.progress import progress

LEGACY = (".h5", ".hdf5")
CONFIGS = {".keras": "config.json", **dict.fromkeys(LEGACY, "configuration")}  # what describes the model in a file
START = 16  # bytes of a file that say what it is
ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
OTHERS = (  # what other files begin with
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF-", "a PDF"),
    (b"\x1f\x8b", "a file compressed by gzip"),
    (b"\x93NUMPY", "an array of NumPy's"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
)
INSIDE = (  # what other zip archives hold
    (r".*/data\.pkl", " of PyTorch's"),
    (r".*\.npy", " of NumPy's arrays"),
)


def load(
    file: Path, modules: Sequence[str] | None = None, limits: Limits | None = None, *, runs: bool = False
) -> keras.Model:
    """The model in a file, or an `Unusable` that says what is wrong with the file.

    What custom modules and layers print goes to standard error, for standard output may be JSON.

    Args:
        file: The file.
        modules: Names of modules that are imported before.
        limits: How much it may ask for; what it claims is held against that before it is built.
        runs: Whether the whole model will be run, which takes more than one layer at a time.
    """
    check_file(file)
    budget = Budget(file, limits or Limits())
    try:
        with (
            progress(f"Loading {file.name}"),
            contextlib.redirect_stdout(sys.stderr),
            without_code_from_files(),
            warnings_of_success(),
        ):
            import_modules(modules or ())
            check_config(file, without_training(budget.read_config()), budget.limits, modules or ())
            with budget.held(), without_compiling(), sequential_models_built_once():
                model = keras.saving.load_model(file, compile=False)
        check_model(file, model)
        budget.check_windows(model)
        if runs:
            budget.check_run(model)
        return model
    except RecursionError as error:
        raise Unusable(f"{file} cannot be loaded: its configuration is nested too deeply.") from error
    except Exception as error:
        if budget.refusal is not None:  # Keras raises another error of its type, with more words
            raise budget.refusal from error
        if isinstance(error, Unusable):
            raise
        raise Unusable(f"{file} cannot be loaded: {reason_of(error, file.suffix)}") from error


def check_model(file: Path, model: Any) -> None:
    """Raise an `Unusable` unless what was in a file is a model with layers."""
    if not isinstance(model, keras.Model):
        raise Unusable(
            f"{file} holds {with_article(type(model).__name__)} and no model. Save one around it, such as "
            "keras.Sequential([keras.Input(shape), layer])."
        )
    if isinstance(model, keras.Sequential) and not model.layers:
        raise Unusable(f"{file} holds a model without layers, of which there is nothing to say.")


def check_file(file: Path) -> None:
    """Raise an `Unusable` unless a file is what its name says."""
    check_source(file, "a Keras model, which is one file, whose name ends in .keras or .h5")
    with file.open("rb") as opened:
        start = opened.read(START)
    if zipfile.is_zipfile(file):
        check_archive(file)
        if file.suffix != ".keras":
            raise Unusable(f"{file} is in Keras' own format. Rename it, so that it ends in .keras.")
    elif start.startswith(HDF5):
        if file.suffix not in LEGACY:
            raise Unusable(f"{file} is in the older format HDF5. Rename it, so that it ends in .h5.")
    elif start.startswith(ZIP):
        raise Unusable(f"{file} is not a whole Keras model: it begins as a zip archive, and its end is missing.")
    else:
        what = kind_of(file, start)
        raise Unusable(
            f"{file} is not a Keras model{f' but {what}' if what else ''}. "
            ".keras files are zip archives, and .h5 files are HDF5."
        )


def check_archive(file: Path) -> None:
    """Raise an `Unusable` unless a zip archive has what makes a Keras model."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    outside = next((name for name in names if name.startswith("/") or ".." in name.split("/")), None)
    if outside is not None:
        raise Unusable(f"{file} is not a Keras model: it has a member whose name leads out of it, {outside}.")
    if "config.json" not in names:
        what = next((what for pattern, what in INSIDE if any(re.fullmatch(pattern, name) for name in names)), "")
        raise Unusable(f"{file} is a zip archive{what}, but not a Keras model: it has no config.json.")


def kind_of(file: Path, start: bytes) -> str:
    """In words what a file is that begins with these bytes; "" if that is unknown."""
    for mark, what in OTHERS:
        if start.startswith(mark):
            return what
    if start[4:8] == b"TFL3":
        return "a TFLite model"
    if file.suffix == ".onnx":
        return "an ONNX model"
    return "" if b"\0" in start or not start.isascii() else "a text"


def reason_of(error: Exception, suffix: str) -> str:
    """What Keras says is wrong with a file, in a sentence or two."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # Keras prints some of it in bold
    innermost = plain.rpartition("Exception encountered:")[2].strip()  # it wraps one error into the other
    layer = layer_in(error)
    where = f"layer {shortened(layer)}: " if layer else ""
    lines = [line.strip() for line in innermost.splitlines() if line.strip()] or [""]
    reason = lines[1] if "encountered when calling" in lines[0] and lines[1:] else lines[0]
    reason = reason.partition(" Full object config:")[0].partition("; use sys.set_int")[0]
    if "instance of `KerasSaveable`" in reason:
        return f"its {CONFIGS[suffix]} describes no model."
    if "Could not locate" in reason or "Unknown layer" in reason:
        return reason.partition(". ")[0].rstrip(".") + ". To import a module that registers it, use --import."
    if "Lambda" in reason:
        return LAMBDA
    if "No model config" in reason:
        return "it has weights and no model. Write both with model.save."
    if "objects could not be loaded" in reason:
        return f"its weights are not those of its layers ({first_example(plain)})."
    if "truncated file" in reason or "Unable to synchronously" in reason or "Bad CRC-32" in reason:
        return f"a part of it is missing or damaged ({reason})."
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return f"its {CONFIGS[suffix]} is damaged ({reason})."
    if isinstance(error, (LookupError, AttributeError, TypeError)) and reason == str(error):  # not said by Keras
        return f"its {CONFIGS[suffix]} describes no model ({where}{type(error).__name__}: {reason})."
    said = shortened(reason) if reason else type(error).__name__
    return said if re.search(rf"\b{re.escape(layer)}\b", said) else where + said


def layer_in(error: BaseException) -> str:
    """The name of the layer that Keras was making or calling, which few of its errors say; "" if it was none."""
    name = ""
    inner: BaseException | None = error
    while inner is not None:
        for frame, _ in traceback.walk_tb(inner.__traceback__):
            owner, config = frame.f_locals.get("self"), frame.f_locals.get("config")
            if isinstance(owner, keras.Layer) and not isinstance(owner, keras.Model):
                found = getattr(owner, "name", None)
            else:
                found = name_in(config)
            name = found if isinstance(found, str) and found else name
        inner = inner.__cause__ or inner.__context__
    return name


def name_in(config: Any) -> Any:
    """The name of a layer in its configuration as Keras saves it; `None` for those of models and of what is no layer."""
    if not isinstance(config, dict) or "class_name" not in config:
        return None
    options = config.get("config")
    return options.get("name") if isinstance(options, dict) and "layers" not in options else None


def first_example(text: str) -> str:
    """What Keras says of the first layer whose weights it could not load."""
    about, *lines = text.partition("Example error message")[2].splitlines() or [""]
    named = re.search(r" name=([^,>]+)", about)
    where = f"layer {named[1]}: " if named else ""
    return where + next(filter(None, (line.strip().rstrip(".") for line in lines)), "")


def import_modules(names: Sequence[str]) -> None:
    """Import modules that register custom layers; what is installed nowhere is looked for in the current folder."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        for name in names:
            importlib.import_module(name)
    except (Exception, SystemExit) as error:  # of a script, too, that was not made to be imported
        raise Unusable(f"Cannot import {name}: {type(error).__name__}: {in_short(error)}") from error
    finally:
        sys.path[:] = [one for one in sys.path if one is not here]
