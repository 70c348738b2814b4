"""A script that `keras-adjoint doctor` examines and repairs, without Keras."""

from pathlib import Path
from typing import Any

from libcst import ParserSyntaxError

from keras_adjoint.doctor.finding import Finding, identifier
from keras_adjoint.doctor.repair import repair_script
from keras_adjoint.doctor.rules import RULES, examine_script
from keras_adjoint.doctor.silence import unknown_rules
from keras_adjoint_cli.actions.examined import Outcome
from keras_adjoint_cli.errors import Unusable, nearest
from keras_adjoint_cli.files.destination import written
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.files.scripts import read_script, write_script


class ScriptFile:
    """A Python script."""

    kind = "script"

    def __init__(self, file: Path, modules: list[str] | None, limits: Limits) -> None:
        if modules:
            raise Unusable("--import is for models: scripts are read and not run.")
        self.file = file
        self.text = read_script(file, limits)
        names = [identifier(rule.name) for rule in RULES]
        self.remarks = [
            f"{file}:{line}: No rule is called {name}, but {nearest(name, names)}. The comment silences nothing by it."
            for line, name in unknown_rules(self.text, names)
        ]
        self.silenced: list[Finding[Any]] = []
        try:
            self.findings = examine_script(self.text, str(file), self.silenced)
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
