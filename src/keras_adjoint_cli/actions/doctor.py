"""The kinds of files that `keras-adjoint doctor` takes, and where their repaired copies go."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.destination import check_output
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.session import start_keras

if TYPE_CHECKING:
    from keras_adjoint_cli.actions.examined_model import ModelFile
    from keras_adjoint_cli.actions.examined_script import ScriptFile

    ExaminedFile: TypeAlias = ModelFile | ScriptFile

MODEL, SCRIPT = "model", "script"
KINDS = {".keras": MODEL, ".h5": MODEL, ".hdf5": MODEL, ".py": SCRIPT}
SUFFIXES = {MODEL: ".keras", SCRIPT: ".py"}  # of repaired copies: the older formats of models do not keep ties


def wrong(findings: list[Finding[Any]], *, strict: bool) -> list[Finding[Any]]:
    """The findings that make a file fail: errors and warnings, and notes as well if `strict`."""
    return [finding for finding in findings if strict or finding.severity != NOTE]


def open_file(file: Path, modules: list[str] | None, limits: Limits) -> "ExaminedFile":
    """A file with what was found in it; Keras is imported for models alone."""
    if kind_of(file) == SCRIPT:
        from keras_adjoint_cli.actions.examined_script import ScriptFile

        return ScriptFile(file, modules, limits)
    start_keras()
    from keras_adjoint_cli.actions.examined_model import ModelFile

    return ModelFile(file, modules, limits)


def kind_of(file: Path) -> str:
    """`MODEL` or `SCRIPT`, by the ending of a file that exists."""
    if not file.exists():
        raise Unusable(f"There is no file {file}.")
    if file.suffix not in KINDS:
        raise Unusable(f"{file} ends in none of {', '.join(KINDS)}, so it is neither a model nor a script.")
    return KINDS[file.suffix]


def target_for(file: Path, output: Path | None, force: bool) -> Path:
    """Where the repaired copy goes, unless that would overwrite something."""
    suffix = SUFFIXES[kind_of(file)]
    target = output or file.with_name(f"{file.stem}.repaired{suffix}")
    check_output(target, inputs=[file], suffixes=[suffix], force=force)
    return target
