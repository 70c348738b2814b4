"""What `keras-adjoint doctor` did about one file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_adjoint.doctor.finding import Finding


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
