"""What `keras-adjoint doctor` found in one file, and did about it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_adjoint.doctor.finding import NOTE, Finding


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


@dataclass
class Examined:
    """One file that was examined, or could not be.

    Attributes:
        file: Its path.
        kind: `model` or `script`; "" if it could not be examined.
        findings: What was found.
        silenced: What was found, and is silenced by comments.
        outcome: What `--fix` did; `None` without it.
        problem: Why it could not be examined, or "".
        remarks: What else is to be said, such as that a comment names a rule that there is none of.
    """

    file: Path
    kind: str = ""
    findings: list[Finding[Any]] = field(default_factory=list)
    silenced: list[Finding[Any]] = field(default_factory=list)
    outcome: Outcome | None = None
    problem: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def left(self) -> list[Finding[Any]]:
        """What is found in the repaired copy, or, without one, in the file."""
        return self.findings if self.outcome is None else self.outcome.remaining

    def wrong(self, *, strict: bool) -> list[Finding[Any]]:
        """What is left that makes the file fail: errors and warnings, and notes as well if `strict`."""
        return [finding for finding in self.left if strict or finding.severity != NOTE]
