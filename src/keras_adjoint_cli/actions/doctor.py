"""The two kinds of files that `keras-adjoint doctor` takes: what it finds in them, and their repaired copies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import keras

from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint.doctor.models.context import origin_of
from keras_adjoint.doctor.models.outputs import Refused
from keras_adjoint.doctor.repair import proven_difference, repair_model, repair_script
from keras_adjoint.doctor.rules import examine_model, examine_script
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.destination import check_output, written
from keras_adjoint_cli.files.models import load
from keras_adjoint_cli.files.scripts import read_script, write_script


@dataclass
class Outcome:
    """What `--fix` did.

    Attributes:
        file: The repaired copy; `None` if nothing could be repaired.
        repaired: (finding, what is there now).
        refused: (finding, why it could not be repaired after all).
        remaining: What is found in the copy, or, if there is none, in the file.
        outputs: What became of the model's outputs, in words; "" of a script.
        difference: The largest difference between the outputs of the two models, in size of the largest output.
    """

    remaining: list[Finding[Any]]
    file: Path | None = None
    repaired: list[tuple[Finding[Any], str]] = field(default_factory=list)
    refused: list[tuple[Finding[Any], str]] = field(default_factory=list)
    outputs: str = ""
    difference: float | None = None


class ModelFile:
    """A saved model."""

    kind = "model"
    suffix = ".keras"  # of a repaired copy: the older formats do not keep ties

    def __init__(self, file: Path, modules: list[str] | None) -> None:
        self.model = load(file, modules)
        self.findings = examine_model(self.model, origin_of(file))

    def repair(self, target: Path) -> Outcome:
        """Write the repaired copy to `target`, once it was read back and compared with the original."""
        try:
            repair = repair_model(self.model, self.findings)
            if repair.model is None:
                return Outcome(self.findings, refused=repair.refused)
            with written(target) as beside:
                repair.model.save(beside)
                copy = keras.saving.load_model(beside, compile=False)
                difference = proven_difference(self.model, copy, repair.keeps_outputs)
                remaining = examine_model(copy, origin_of(beside))
        except Refused as reason:
            raise Unusable(f"No repaired copy was written: {reason}.") from reason
        repaired = [(finding, finding.change.description) for finding in repair.repaired if finding.change is not None]
        words = in_words(repair.keeps_outputs, difference)
        return Outcome(remaining, target, repaired, repair.refused, words, difference)


def wrong(findings: list[Finding[Any]], *, strict: bool) -> list[Finding[Any]]:
    """The findings that make a file fail: errors and warnings, and notes as well if `strict`."""
    return [finding for finding in findings if strict or finding.severity != NOTE]


def in_words(keeps_outputs: bool, difference: float | None) -> str:
    """What a repair did to the outputs."""
    if difference is None:
        return "The model did not run before, so there is nothing to compare its outputs with."
    if keeps_outputs:
        return f"Its outputs are the same on random inputs: the largest difference is {difference:.1e} of their size."
    return f"Its outputs have changed by up to {difference:.1e} of their size on random inputs: train it further."


class ScriptFile:
    """A Python script."""

    kind = "script"
    suffix = ".py"

    def __init__(self, file: Path, modules: list[str] | None) -> None:
        from libcst import ParserSyntaxError

        if modules:
            raise Unusable("--import is for models: scripts are read and not run.")
        self.file = file
        self.text = read_script(file)
        try:
            self.findings = examine_script(self.text, str(file))
        except RecursionError as error:
            raise Unusable(f"{file} has expressions that are nested too deeply to be read.") from error
        except ParserSyntaxError as error:  # syntax that Python reads, and libcst does not read yet
            raise Unusable(f"{file} cannot be read: line {error.raw_line}: {error.message}.") from error

    def repair(self, target: Path) -> Outcome:
        """Write the repaired copy to `target`."""
        text, repaired = repair_script(self.text, str(self.file), self.findings)
        if not repaired:
            return Outcome(self.findings)
        with written(target) as beside:
            write_script(text, beside, like=self.file)
        remaining = examine_script(text, str(target))
        return Outcome(remaining, target, [(finding, finding.code.strip()) for finding in repaired])


ExaminedFile: TypeAlias = ModelFile | ScriptFile

KINDS: dict[str, type[ModelFile] | type[ScriptFile]] = {
    ".keras": ModelFile,
    ".h5": ModelFile,
    ".hdf5": ModelFile,
    ".py": ScriptFile,
}


def open_file(file: Path, modules: list[str] | None) -> ExaminedFile:
    """A `ModelFile` or `ScriptFile`, by the file's ending."""
    return kind_of(file)(file, modules)


def kind_of(file: Path) -> type[ModelFile] | type[ScriptFile]:
    if not file.exists():
        raise Unusable(f"There is no file {file}.")
    if file.suffix not in KINDS:
        raise Unusable(f"{file} ends in none of {', '.join(KINDS)}, so it is neither a model nor a script.")
    return KINDS[file.suffix]


def target_for(file: Path, output: Path | None, force: bool) -> Path:
    """Where the repaired copy goes, unless that would overwrite something."""
    suffix = kind_of(file).suffix
    target = output or file.with_name(f"{file.stem}.repaired{suffix}")
    check_output(target, inputs=[file], suffixes=[suffix], force=force)
    return target
