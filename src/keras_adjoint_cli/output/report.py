"""What `keras-adjoint report` wrote, in a few lines for people and as data for programs."""

from pathlib import Path
from typing import Any

import keras

from keras_adjoint.report.facts import Facts
from keras_adjoint_cli.console import bytes_text, make_console
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
    console.print(f"Wrote {escape(str(file))}, {bytes_text(size)}.", soft_wrap=True)
    for number, what in facts.figures.in_words():
        console.print(f"{what}: {number}", soft_wrap=True)
    if facts.hint:
        console.print(f"[yellow]{escape(facts.hint)}[/]", soft_wrap=True)
    for name, kind, why in facts.gaps:
        console.print(f"[yellow]gap[/] at {escape(name)}, {escape(kind)}: {escape(why)}", soft_wrap=True)
    for problem, what in ((facts.refusal, "No mirror"), (facts.no_reconstructions, "No reconstructions")):
        if problem:
            console.print(f"[yellow]{what}[/]: {escape(problem)}", soft_wrap=True)
    names = ", ".join(reconstruction.name for reconstruction in facts.reconstructions)
    console.print(f"Reconstructed: {escape(names or 'nothing')}.")
