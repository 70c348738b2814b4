"""What `keras-adjoint doctor` found, as a list for people and as data for programs."""

from collections import Counter

import keras
from rich.markup import escape

from keras_adjoint.doctor.finding import ERROR, NOTE, WARNING
from keras_adjoint_cli.output.console import make_console

COLOURS = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}


def as_data(file, patient, outcome):
    """A dictionary for JSON."""
    data = {
        "file": str(file),
        "kind": patient.kind,
        "backend": keras.backend.backend(),
        "healthy": not patient.findings,
        "findings": [finding.as_data() for finding in patient.findings],
    }
    if outcome is not None:
        data["repair"] = {
            "file": None if outcome.file is None else str(outcome.file),
            "repaired": [{"place": finding.place, "illness": finding.illness} for finding, _ in outcome.repaired],
            "refused": [
                {"place": finding.place, "illness": finding.illness, "reason": reason}
                for finding, reason in outcome.refused
            ],
            "difference": outcome.difference,
            "remaining": [finding.as_data() for finding in outcome.remaining],
        }
    return data


def show(file, patient, outcome):
    """Print every finding, then what was repaired, then the sum."""
    console = make_console()
    for finding in patient.findings:
        colour = COLOURS[finding.severity]
        place, illness = escape(finding.place), escape(finding.illness)
        say(console, f"[{colour}]{finding.severity}[/{colour}] [bold]{place}[/bold]: {illness}")
        lines = [("what", finding.what), ("effect", finding.effect), ("fix", finding.fix)]
        lines += [("", line.strip()) for line in finding.code.splitlines()]
        for name, text in lines:
            say(console, f"  [dim]{name:6}[/dim] {escape(text)}")
    if outcome is not None:
        show_outcome(console, outcome)
    say(console, summary(file, patient, outcome))


def show_outcome(console, outcome):
    for finding, now in outcome.repaired:
        say(console, f"[green]repaired[/green] {escape(finding.place)}: {escape(now)}")
    for finding, reason in outcome.refused:
        say(console, f"[yellow]not repaired[/yellow] {escape(finding.place)}: {escape(reason)}")
    if outcome.outputs:
        say(console, escape(outcome.outputs))


def summary(file, patient, outcome):
    """The last line: how much was found, and what to do."""
    findings, name = patient.findings, escape(str(file))
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


def say(console, text):
    console.print(text, soft_wrap=True)
