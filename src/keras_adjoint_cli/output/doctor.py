"""What `keras-adjoint doctor` found, as a list for people and as data for programs."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from keras_adjoint.doctor.finding import ERROR, NOTE, WARNING, Finding
from keras_adjoint_cli.actions.doctor import MODEL
from keras_adjoint_cli.actions.examined import Examined, Outcome
from keras_adjoint_cli.console import make_console, plural, say
from keras_adjoint_cli.errors import print_error
from keras_adjoint_cli.printable import escape

COLOURS = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}


def as_data(results: Sequence[Examined], *, strict: bool) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": [str(result.file) for result in results],
        "backend": backend_of(results),
        "ok": not any(result.problem or result.wrong(strict=strict) for result in results),
        "files": [file_as_data(result, strict=strict) for result in results],
    }


def backend_of(results: Sequence[Examined]) -> str | None:
    """The backend of Keras, if a model was examined; scripts are read without Keras."""
    if not any(result.kind == MODEL for result in results):
        return None
    name: str = sys.modules["keras"].backend.backend()
    return name


def file_as_data(result: Examined, *, strict: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "input": str(result.file),
        "kind": result.kind,
        "problem": result.problem,
        "ok": not (result.problem or result.wrong(strict=strict)),
        "findings": [finding.as_data() for finding in result.findings],
        "silenced": [{"place": finding.place, "rule": finding.rule} for finding in result.silenced],
        "repair": None if result.outcome is None else outcome_as_data(result.outcome),
    }
    return data


def outcome_as_data(outcome: Outcome) -> dict[str, Any]:
    return {
        "output": None if outcome.file is None else str(outcome.file),
        "repaired": [{"place": finding.place, "rule": finding.rule} for finding, _ in outcome.repaired],
        "refused": [
            {"place": finding.place, "rule": finding.rule, "reason": reason} for finding, reason in outcome.refused
        ],
        "difference": outcome.difference,
        "remaining": [finding.as_data() for finding in outcome.remaining],
    }


def report_problems(results: Iterable[Examined]) -> None:
    """One line on standard error for each file that cannot be used, and for each remark."""
    for result in results:
        for remark in result.remarks:
            print_error(remark)
        if result.problem:
            print_error(result.problem)


def show(results: Sequence[Examined]) -> None:
    """Print every finding, then what was repaired, then the sums."""
    console = make_console()
    for result in results:
        for finding in result.findings:
            show_finding(console, finding)
        if result.outcome is not None:
            show_outcome(console, result.outcome)
        if not result.problem and (len(results) == 1 or result.findings or result.silenced):
            say(console, summary(result))
    if len(results) > 1:
        say(console, total(results))


def show_finding(console: Console, finding: Finding[Any]) -> None:
    colour = COLOURS[finding.severity]
    place, rule = escape(finding.place), escape(finding.rule)
    said = [("what", finding.what), ("effect", finding.effect), ("fix", finding.fix)]
    code = [("", line.strip()) for line in finding.code.splitlines() if line.strip()]
    say(
        console,
        f"[{colour}]{finding.severity}[/{colour}] [bold]{place}[/bold]: {rule}",
        *(f"  [dim]{name:6}[/dim] {escape(text)}" for name, text in (*said, *code)),
        indent=9,
    )


def show_outcome(console: Console, outcome: Outcome) -> None:
    for finding, now in outcome.repaired:
        say(console, f"[green]repaired[/green] {escape(finding.place)}: {escape(now)}")
    for finding, reason in outcome.refused:
        say(console, f"[yellow]not repaired[/yellow] {escape(finding.place)}: {escape(reason)}")
    if outcome.outputs:
        say(console, escape(outcome.outputs))


def summary(result: Examined) -> str:
    """The last line about a file: how much was found, and what to do."""
    findings, name, outcome = result.findings, escape(str(result.file)), result.outcome
    silenced = f" {len(result.silenced)} silenced by comments." if result.silenced else ""
    if not findings:
        return f"{name}: nothing found.{silenced}"
    said = f"{name}: {counted(findings)}.{silenced}"
    fixable = sum(finding.fixable for finding in findings)
    if not fixable:
        return f"{said} All have to be repaired by hand."
    if outcome is None:
        return f"{said} --fix repairs {fixable} of {len(findings)} in a copy."
    if outcome.file is None:
        return f"{said} None could be repaired by --fix, so there is no copy."
    return f"{said} The copy {escape(str(outcome.file))} has {len(outcome.remaining)} left."


def total(results: Sequence[Examined]) -> str:
    """The last line about several files."""
    findings = [finding for result in results for finding in result.findings]
    unusable = sum(bool(result.problem) for result in results)
    could_not = f" {unusable} of them could not be used." if unusable else ""
    return f"{plural(len(results), 'file')}: {counted(findings) or 'nothing found'}.{could_not}"


def counted(findings: Sequence[Finding[Any]]) -> str:
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(plural(counts[severity], severity) for severity in COLOURS if counts[severity])
