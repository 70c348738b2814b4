"""What the doctor reports: a `Finding`, and the `Rule` that it breaks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, Literal, TypeVar

Severity = Literal["error", "warning", "note"]

ERROR: Severity = "error"  # it computes something else than was meant, or does not run
WARNING: Severity = "warning"  # it costs something, or goes wrong once the model is trained, saved or called
NOTE: Severity = "note"  # worth knowing, and perhaps intended
SEVERITIES = (ERROR, WARNING, NOTE)

Change = TypeVar("Change")


@dataclass(frozen=True)
class Finding(Generic[Change]):
    """One violation of a rule.

    Attributes:
        place: The layer with the names of the models around it, or `file:line:column`.
        rule: The name of the rule.
        severity: One of `SEVERITIES`.
        what: What is there.
        effect: What it does, in figures where there are any.
        fix: What to do, in words.
        figures: The figures of the effect by name, for programs.
        code: In a script, the corrected lines; else "".
        change: What `--fix` changes in a copy, a `Replacement` in a model or edits in a script; `None` if the fix is made
            by hand.
    """

    place: str
    rule: str
    severity: Severity
    what: str
    effect: str
    fix: str
    figures: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    change: Change | None = field(default=None, repr=False, compare=False)

    @property
    def identifier(self) -> str:
        """The name of the rule without spaces."""
        return identifier(self.rule)

    @property
    def fixable(self) -> bool:
        """Whether `--fix` can repair it."""
        return self.change is not None

    def as_data(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        data = {name: value for name, value in vars(self).items() if name != "change"}
        return {**data, "fixable": self.fixable}


def identifier(rule: str) -> str:
    """The name of a rule as comments, annotations and SARIF have it: "tie lost" is tie-lost."""
    return "-".join(rule.lower().split())


@dataclass(frozen=True)
class Search:
    """How a rule looks through one kind of file.

    Attributes:
        finds: What it finds, in words.
        fix: What `--fix` does about it, or why it is fixed by hand.
        function: The function that yields the findings about a `ModelContext` or a `Script`, by its path in this package;
            it is imported at the first search, so that models are examined without libcst.
    """

    finds: str
    fix: str
    function: str

    def load(self) -> Callable[[Any], Iterator[Finding[Any]]]:
        module, _, name = self.function.rpartition(".")
        function: Callable[[Any], Iterator[Finding[Any]]] = getattr(import_module(f"{__package__}.{module}"), name)
        return function

    def __call__(self, context: Any) -> Iterator[Finding[Any]]:
        return self.load()(context)


@dataclass(frozen=True)
class Rule:
    """What the doctor looks for.

    Attributes:
        name: Its name in findings.
        severities: The severities that its findings have, the usual one first.
        in_model: How it is searched for in a model, if it is.
        in_script: How it is searched for in a script, if it is.
    """

    name: str
    severities: tuple[Severity, ...]
    in_model: Search | None = None
    in_script: Search | None = None


def by_severity(findings: Iterable[Finding[Change]]) -> list[Finding[Change]]:
    """The worst first; findings of equal severity stay in order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
