"""The findings of `keras-adjoint check`, as a table for people and as data for programs."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_adjoint.models.text import shapes_text, size_text
from keras_adjoint.ops import Shape
from keras_adjoint.testing.model import FAILED, NO_RULE, NOT_LINEAR, NOT_RUN, OK, LayerCheck
from keras_adjoint_cli.console import first_sentence, make_console, plural, print_table, say
from keras_adjoint_cli.printable import escape

COLOURS = {OK: "green", FAILED: "bold red", NO_RULE: "yellow", NOT_LINEAR: "dim", NOT_RUN: "yellow"}
COLUMNS = ("layer", "type", "adjoint", "input", "residual", "tolerance", "verdict")
SPARE = ("type", "tolerance", "adjoint")


def as_data(file: Path, findings: list[LayerCheck]) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": str(file),
        "backend": keras.backend.backend(),
        "ok": passes(findings),
        "layers": [vars(finding) for finding in findings],
    }


def passes(findings: list[LayerCheck]) -> bool:
    """Whether there were tests, and all of them passed."""
    verdicts = {finding.verdict for finding in findings}
    return OK in verdicts and FAILED not in verdicts


def show(findings: list[LayerCheck]) -> None:
    """Print the table, then failures and missing rules in full, then the counts."""
    console = make_console()
    print_table(console, COLUMNS, map(row, findings), numbers=("residual", "tolerance"), wrap=("input",), spare=SPARE)
    for line in explanations(findings):
        say(console, line)
    counts = Counter(finding.verdict for finding in findings)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    say(console, f"{plural(len(findings), 'layer')}: {listed or 'nothing to test'}")
    if not counts[OK] + counts[FAILED]:
        say(console, "[yellow]None of them could be tested[/], so that this says nothing about the model.")


def row(finding: LayerCheck) -> tuple[str, ...]:
    """One line of the table."""
    words = (
        finding.layer,
        finding.type,
        finding.pair,
        input_text(finding.input_shape),
    )
    colour = COLOURS[finding.verdict]
    verdict = f"[{colour}]{finding.verdict}[/{colour}]"
    return *map(escape, words), number(finding.residual), number(finding.tolerance), verdict


def input_text(shape: Shape) -> str:
    """The shape of an input, or the shapes of several, without the batch axis."""
    if not shape:
        return ""
    several = any(isinstance(size, (tuple, list)) for size in shape)
    return shapes_text(shape) if several else size_text(shape[1:])


def explanations(findings: list[LayerCheck]) -> Iterator[str]:
    """Each failure with its whole diagnosis, and once per layer type why others were not tested."""
    for finding in findings:
        if finding.failed:
            yield f"[bold red]FAILED[/bold red] {escape(finding.layer)}: {escape(finding.reason)}"
    untested = Counter(
        (finding.verdict, finding.type, first_sentence(finding.reason))
        for finding in findings
        if finding.verdict in (NO_RULE, NOT_RUN)
    )
    for (verdict, kind, reason), count in untested.items():
        times = f" ({count} layers)" if count > 1 else ""
        yield f"[yellow]{verdict}[/yellow] {escape(kind)}{times}: {escape(reason)}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
