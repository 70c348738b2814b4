"""`keras-adjoint doctor`: the models and scripts among files and folders, each examined, and repaired in a copy."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_adjoint_cli.actions.examined import Examined
from keras_adjoint_cli.errors import FAILED, UNUSABLE, Unusable, message_of
from keras_adjoint_cli.files.destination import check_output
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.progress import progress
from keras_adjoint_cli.session import start_keras

if TYPE_CHECKING:
    from keras_adjoint_cli.actions.examined_model import ModelFile
    from keras_adjoint_cli.actions.examined_script import ScriptFile

MODEL, SCRIPT = "model", "script"
KINDS = {".keras": MODEL, ".h5": MODEL, ".hdf5": MODEL, ".py": SCRIPT}
SUFFIXES = {MODEL: ".keras", SCRIPT: ".py"}  # of repaired copies: the older formats of models do not keep ties
WEIGHTS = ".weights.h5"  # how files end that hold weights and no model


def examine_all(
    files: Sequence[Path],
    modules: list[str] | None,
    limits: Limits,
    *,
    fix: bool = False,
    output: Path | None = None,
    force: bool = False,
    debug: bool = False,
) -> list[Examined]:
    """What is found in each file; one that cannot be used does not keep the others from being examined."""
    results = []
    with progress("Examining", len(files) if len(files) > 1 else None) as advance:
        for file in files:
            try:
                results.append(examine(file, modules, limits, fix=fix, output=output, force=force))
            except Exception as error:
                if debug:
                    raise
                results.append(Examined(file, problem=about(file, message_of(error))))
            advance()
    return results


def about(file: Path, message: str) -> str:
    """A message that names the file, also where it comes from elsewhere."""
    return message if str(file) in message else f"{file}: {message}"


def examine(
    file: Path, modules: list[str] | None, limits: Limits, *, fix: bool, output: Path | None, force: bool
) -> Examined:
    """What is found in a file, and done about it."""
    target = target_for(file, output, force) if fix else None
    opened = open_file(file, modules, limits)
    outcome = None if target is None else opened.repair(target)
    return Examined(file, opened.kind, opened.findings, opened.silenced, outcome, remarks=opened.remarks)


def exit_status(results: Sequence[Examined], *, strict: bool, exit_zero: bool) -> int:
    """That of the worst of the files."""
    if any(result.problem for result in results):
        return UNUSABLE
    return FAILED if not exit_zero and any(result.wrong(strict=strict) for result in results) else 0


# --- files and folders


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files that were named, and the models and scripts in the folders that were, each once."""
    found: dict[str, Path] = {}
    for path in paths:
        inside = sorted(models_and_scripts(path)) if path.is_dir() else [path]
        if not inside:
            raise Unusable(f"{path} is a folder with neither a model nor a script in it.")
        for file in inside:
            found.setdefault(os.path.realpath(file), file)  # which leaves a link to itself as it is
    return list(found.values())


def models_and_scripts(folder: Path) -> Iterator[Path]:
    """The models and scripts in a folder and those below; hidden ones and environments of Python are left out."""
    for name, folders, files in os.walk(folder):
        place = Path(name)
        folders[:] = [
            inner for inner in folders if inner[0] not in "._" and not (place / inner / "pyvenv.cfg").exists()
        ]
        for file in map(place.joinpath, files):
            if file.suffix in KINDS and not file.name.startswith(".") and not file.name.endswith(WEIGHTS):
                yield file


def open_file(file: Path, modules: list[str] | None, limits: Limits) -> "ModelFile | ScriptFile":
    """A file with what was found in it; Keras is imported for models alone."""
    if kind_of(file) == SCRIPT:
        from keras_adjoint_cli.actions.examined_script import ScriptFile

        return ScriptFile(file, modules, limits)
    start_keras()
    from keras_adjoint_cli.actions.examined_model import ModelFile

    return ModelFile(file, modules, limits)


def kind_of(file: Path) -> str:
    """`MODEL` or `SCRIPT`, by the ending of a file that exists."""
    if not file.exists() and not file.is_symlink():
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
