"""What `keras-adjoint doctor` found, as a list for people and as data for programs."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from keras_adjoint.doctor.finding import ERROR, NOTE, WARNING
from keras_adjoint_cli.actions.doctor import wrong
from keras_adjoint_cli.actions.examined import Outcome
from keras_adjoint_cli.console import make_console

if TYPE_CHECKING:
    from keras_adjoint_cli.actions.doctor import ExaminedFile

COLOURS = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}


def as_data(file: Path, examined: "ExaminedFile", outcome: Outcome | None, *, strict: bool) -> dict[str, Any]:
    """A dictionary for JSON."""
    data: dict[str, Any] = {
        "input": str(file),
        "kind": examined.kind,
        "backend": examined.backend,
        "ok": not wrong(examined.findings if outcome is None else outcome.remaining, strict=strict),
        "findings": [finding.as_data() for finding in examined.findings],
    }
    if outcome is not None:
        data["repair"] = {
            "output": None if outcome.file is None else str(outcome.file),
            "repaired": [{"place": finding.place, "rule": finding.rule} for finding, _ in outcome.repaired],
            "refused": [
                {"place": finding.place, "rule": finding.rule, "reason": reason} for finding, reason in outcome.refused
            ],
            "difference": outcome.difference,
            "remaining": [finding.as_data() for finding in outcome.remaining],
        }
    return data


def show(file: Path, examined: "ExaminedFile", outcome: Outcome | None) -> None:
    """Print every finding, then what was repaired, then the sum."""
    console = make_console()
    for finding in examined.findings:
        colour = COLOURS[finding.severity]
        place, rule = escape(finding.place), escape(finding.rule)
        say(console, f"[{colour}]{finding.severity}[/{colour}] [bold]{place}[/bold]: {rule}")
        lines = [("what", finding.what), ("effect", finding.effect), ("fix", finding.fix)]
        lines += [("", line.strip()) for line in finding.code.splitlines()]
        for name, text in lines:
            say(console, f"  [dim]{name:6}[/dim] {escape(text)}")
    if outcome is not None:
        show_outcome(console, outcome)
    say(console, summary(file, examined, outcome))


def show_outcome(console: Console, outcome: Outcome) -> None:
    for finding, now in outcome.repaired:
        say(console, f"[green]repaired[/green] {escape(finding.place)}: {escape(now)}")
    for finding, reason in outcome.refused:
        say(console, f"[yellow]not repaired[/yellow] {escape(finding.place)}: {escape(reason)}")
    if outcome.outputs:
        say(console, escape(outcome.outputs))


def summary(file: Path, examined: "ExaminedFile", outcome: Outcome | None) -> str:
    """The last line: how much was found, and what to do."""
    findings, name = examined.findings, escape(str(file))
    if not findings:
        return f"{name}: nothing found."
    counts = Counter(finding.severity for finding in findings)
    numbers = [(counts[severity], severity) for severity in COLOURS if counts[severity]]
    said = f"{name}: " + ", ".join(f"{count} {severity}{'s' * (count > 1)}" for count, severity in numbers) + "."
    fixable = sum(finding.fixable for finding in findings)
    if not fixable:
        return f"{said} All to be repaired by hand."
    if outcome is None:
        return f"{said} --fix repairs {fixable} of {len(findings)} in a copy."
    if outcome.file is None:
        return f"{said} None could be repaired by --fix, so there is no copy."
    return f"{said} The copy {escape(str(outcome.file))} has {len(outcome.remaining)} left."


def say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)
