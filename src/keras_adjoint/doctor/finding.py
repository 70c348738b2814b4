"""A `Finding`: one thing that is wrong, where it is, what it does, and what to do about it."""

from dataclasses import dataclass, field
from typing import Any

ERROR = "error"  # something else is computed than was meant, or nothing
WARNING = "warning"  # it costs something, or will go wrong once the model is trained, saved or called
NOTE = "note"  # worth knowing, and perhaps meant
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        place: The layer with the names of the models around it, or `file:line:column`.
        illness: The name of the illness in its table.
        severity: One of `SEVERITIES`.
        what: What is there.
        effect: What it does, in figures where there are any.
        fix: What to do, in words.
        figures: The figures of the effect by name, for programs.
        code: In a script, the lines as they should be; else "".
        remedy: What makes the repaired copy; `None` if it is to be repaired by hand.
    """

    place: str
    illness: str
    severity: str
    what: str
    effect: str
    fix: str
    figures: dict = field(default_factory=dict)
    code: str = ""
    remedy: Any = field(default=None, repr=False, compare=False)

    @property
    def fixable(self):
        """Whether `--fix` can repair it."""
        return self.remedy is not None

    def as_data(self):
        """A dictionary for JSON."""
        known = {name: value for name, value in vars(self).items() if name != "remedy"}
        return {**known, "fixable": self.fixable}


def by_severity(findings):
    """The worst first; what is equally bad stays in order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
