"""The findings of `keras-adjoint doctor` in the formats of other programs: annotations of GitHub, and SARIF 2.1.0.

SARIF is the format of OASIS for what static analysis finds, which code hosts and editors read.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from keras_adjoint import __version__
from keras_adjoint.doctor.finding import ERROR, NOTE, WARNING, Finding, Rule, identifier
from keras_adjoint.doctor.rules import RULES
from keras_adjoint_cli.actions.doctor import SCRIPT
from keras_adjoint_cli.actions.examined import Examined

COMMANDS = {ERROR: "error", WARNING: "warning", NOTE: "notice"}  # of GitHub's runners
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
HOME = "https://github.com/keras-adjoint/keras-adjoint"


def position(finding: Finding[Any], result: Examined) -> tuple[int, int] | None:
    """(line, column) of a finding in a script, both counted from 1."""
    if result.kind != SCRIPT:
        return None
    line, column = finding.place.removeprefix(f"{result.file}:").split(":")
    return int(line), int(column)


def message(finding: Finding[Any]) -> str:
    return f"{finding.what}. Effect: {finding.effect}. Fix: {finding.fix}."


# --- GitHub


def annotations(results: Sequence[Examined]) -> Iterator[str]:
    """Lines that GitHub shows beside the code when a step prints them."""
    for result in results:
        file = os.path.relpath(result.file)
        if result.problem:
            yield annotation("error", result.problem, file=file, title="cannot be examined")
        for finding in result.findings:
            place: dict[str, Any] = {"file": file}
            found = position(finding, result)
            if found is not None:
                place |= {"line": found[0], "col": found[1]}
            text = message(finding) if found is not None else f"{finding.place}: {message(finding)}"
            yield annotation(COMMANDS[finding.severity], text, **place, title=f"keras-adjoint: {finding.rule}")


def annotation(command: str, text: str, **properties: Any) -> str:
    listed = ",".join(f"{name}={escaped(str(value), ':,')}" for name, value in properties.items())
    return f"::{command} {listed}::{escaped(text)}"


def escaped(text: str, more: str = "") -> str:
    """A text without the letters that end a line, a property or a list of them."""
    text = text.replace("%", "%25")
    for letter in f"\r\n{more}":
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text


# --- SARIF


def sarif(results: Sequence[Examined]) -> dict[str, Any]:
    """A log of one run."""
    notifications = [
        {
            "level": "error",
            "message": {"text": result.problem},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(result.file)}}}],
        }
        for result in results
        if result.problem
    ]
    run = {
        "tool": {
            "driver": {
                "name": "keras-adjoint",
                "semanticVersion": __version__,
                "informationUri": HOME,
                "rules": [descriptor(rule) for rule in RULES],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not notifications, "toolExecutionNotifications": notifications}],
        "results": [
            sarif_result(finding, result, silenced=silenced)
            for result in results
            for silenced, findings in ((False, result.findings), (True, result.silenced))
            for finding in findings
        ],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def descriptor(rule: Rule) -> dict[str, Any]:
    searches = [search for search in (rule.in_model, rule.in_script) if search is not None]
    finds, fixes = (
        "; ".join(dict.fromkeys(texts)) for texts in zip(*((s.finds, s.fix) for s in searches), strict=True)
    )
    return {
        "id": identifier(rule.name),
        "shortDescription": {"text": rule.name},
        "fullDescription": {"text": finds},
        "help": {"text": f"Fixed {fixes}."},
        "defaultConfiguration": {"level": rule.severities[0]},
    }


def sarif_result(finding: Finding[Any], result: Examined, *, silenced: bool) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri(result.file)}}}
    found = position(finding, result)
    if found is not None:
        location["physicalLocation"]["region"] = {"startLine": found[0], "startColumn": found[1]}
    else:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.place}]
    return {
        "ruleId": finding.identifier,
        "ruleIndex": [rule.name for rule in RULES].index(finding.rule),
        "level": finding.severity,
        "message": {"text": message(finding)},
        "locations": [location],
        "suppressions": [{"kind": "inSource"}] if silenced else [],
        "properties": finding.figures,
    }


def uri(file: Path) -> str:
    """A file as seen from the current folder, or, if it is not below that, as a whole."""
    resolved = Path(os.path.realpath(file))
    below = resolved.is_relative_to(Path.cwd())
    return quote(os.fsencode(resolved.relative_to(Path.cwd()).as_posix())) if below else resolved.as_uri()
