"""What `keras-adjoint report` wrote, in a few lines for people and as data for programs."""

from pathlib import Path
from typing import Any

import keras

from keras_adjoint.report.facts import Facts
from keras_adjoint_cli.console import bytes_text, make_console, say
from keras_adjoint_cli.printable import escape


def as_data(model: Path, file: Path, facts: Facts, size: int, code: str | None) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": str(model),
        "output": str(file),
        "backend": keras.backend.backend(),
        "bytes": size,
        "code": code,
        "narrowest": None if facts.cut is None else vars(facts.cut),
        "can_be_mirrored": not (facts.refusal or facts.gaps),
        "gaps": [{"layer": name, "type": kind, "reason": why} for name, kind, why in facts.gaps],
        "problem": facts.refusal,
        "reconstructed": [reconstruction.name for reconstruction in facts.reconstructions],
        "no_reconstructions": facts.no_reconstructions,
        "layers_with_kernels": len(facts.sections),
        **vars(facts.figures),
    }


def show(file: Path, facts: Facts, size: int) -> None:
    """Say what was written."""
    console = make_console()
    say(console, f"Wrote {escape(str(file))}, {bytes_text(size)}.")
    for number, what in facts.figures.in_words():
        say(console, f"{what}: {number}")
    if facts.hint:
        say(console, f"[yellow]{escape(facts.hint)}[/]")
    for name, kind, why in facts.gaps:
        say(console, f"[yellow]gap[/] at {escape(name)}, {escape(kind)}: {escape(why)}")
    for problem, what in ((facts.refusal, "No mirror"), (facts.no_reconstructions, "No reconstructions")):
        if problem:
            say(console, f"[yellow]{what}[/]: {escape(problem)}")
    names = ", ".join(reconstruction.name for reconstruction in facts.reconstructions)
    say(console, f"Reconstructed: {escape(names or 'nothing')}.")
