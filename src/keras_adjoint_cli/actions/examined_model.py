"""A model file that `keras-adjoint doctor` examines and repairs."""

from pathlib import Path
from typing import Any

import keras

from keras_adjoint.doctor.finding import Finding
from keras_adjoint.doctor.models.context import origin_of
from keras_adjoint.doctor.models.outputs import Refused
from keras_adjoint.doctor.models.repair import proven_difference, repair_model
from keras_adjoint.doctor.rules import examine_model
from keras_adjoint_cli.actions.examined import Outcome
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.destination import written
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.files.models import load


class ModelFile:
    """A saved model."""

    kind = "model"

    def __init__(self, file: Path, modules: list[str] | None, limits: Limits) -> None:
        self.model = load(file, modules, limits)
        self.silenced: list[Finding[Any]] = []  # a model has no comments
        self.remarks: list[str] = []
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


def in_words(keeps_outputs: bool, difference: float | None) -> str:
    """What a repair did to the outputs."""
    if difference is None:
        return "The model did not run before, so there is nothing to compare its outputs with."
    if keeps_outputs:
        return f"Its outputs are the same on random inputs: the largest difference is {difference:.1e} of their size."
    return f"Its outputs have changed by up to {difference:.1e} of their size on random inputs: train it further."
