"""`keras-adjoint report`: gather the facts, write the page, and say in a few lines what is in it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from keras.layers import Layer
from rich.markup import escape

from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.models.graph import layers_of, trace
from keras_adjoint.report.facts import Facts, facts_about
from keras_adjoint.report.page import page_about
from keras_adjoint.testing.model import LayerCheck, check_layer
from keras_adjoint_cli.errors import unusable
from keras_adjoint_cli.output.console import make_console, progress
from keras_adjoint_cli.policy_options import choices_from, policies_from, read_settings


def make(
    model: keras.Model, file: Path, images: Sequence[Path], *, texts: Sequence[str], limits: tuple[float, float] | None
) -> Facts:
    """The `Facts` about a model, with policies as they were written on the command line."""
    operations = operations_of(model)
    settings = read_settings(texts, operations)
    policies_from(settings, operations)  # reports wrong ones before the work begins
    layers = list(layers_of(model))
    with progress("Testing adjoints", len(layers)) as advance, unusable(ValueError):
        examined = [(name, layer, finding(name, layer, advance)) for name, layer in layers]
        return facts_about(
            model, examined, file=file.name, images=images, limits=limits, policies=choices_from(settings)
        )


def operations_of(model: keras.Model) -> list[Any]:
    """Everything that a policy can be about."""
    layers = layers_inside(model)
    try:
        return [*(call.operation for call in trace(model).calls), *layers]
    except NoRuleError:  # it has no graph; the page says so
        return layers


def finding(name: str, layer: Layer, advance: Callable[[], None]) -> LayerCheck:
    advance()
    # One random pair already tells a wrong operator from rounding; of a large network each takes seconds.
    return check_layer(name, layer, trials=1)


def write(facts: Facts, file: Path) -> int:
    """Write the page in full or not at all, and return its size in bytes."""
    with atomic_write(file) as beside:
        beside.write_text(page_about(facts), encoding="utf-8")
        return beside.stat().st_size


def as_data(model: Path, file: Path, facts: Facts, size: int) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "model": str(model),
        "file": str(file),
        "bytes": size,
        "backend": keras.backend.backend(),
        "mirrored": not (facts.refusal or facts.gaps),
        "gaps": [{"layer": name, "type": kind, "reason": why} for name, kind, why in facts.gaps],
        "refusal": facts.refusal,
        "reconstructed": [reconstruction.name for reconstruction in facts.reconstructions],
        "kernels": len(facts.sections),
        "figures": {what: number for number, what in facts.figures},
    }


def show(file: Path, facts: Facts, size: int) -> None:
    """Say what was written."""
    console = make_console()
    console.print(f"Wrote {escape(str(file))}, {size / 1e6:,.1f} MB.", soft_wrap=True)
    for number, what in facts.figures:
        console.print(f"{number} {what}", soft_wrap=True)
    for name, kind, why in facts.gaps:
        console.print(f"[yellow]gap[/] at {escape(name)}, {escape(kind)}: {escape(why)}", soft_wrap=True)
    for problem, what in ((facts.refusal, "No mirror"), (facts.no_reconstructions, "No reconstructions")):
        if problem:
            console.print(f"[yellow]{what}[/]: {escape(problem)}", soft_wrap=True)
    names = ", ".join(reconstruction.name for reconstruction in facts.reconstructions)
    console.print(f"Reconstructed: {escape(names or 'nothing')}.")
