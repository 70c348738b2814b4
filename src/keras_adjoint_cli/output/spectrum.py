"""What `keras-adjoint spectrum` found, as a table for people and as data for programs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_adjoint.models.text import shapes_text
from keras_adjoint.operators.certificate import Certificate, at_most
from keras_adjoint.operators.spectrum import LayerSpectrum
from keras_adjoint_cli.actions.spectrum import Spectra
from keras_adjoint_cli.console import first_sentence, make_console, plural, print_table, say
from keras_adjoint_cli.printable import escape

COLUMNS = ("layer", "type", "input → output", "norm", "bound", "condition", "reshaped")
NUMBERS = ("norm", "bound", "condition", "reshaped")
SPARE = ("type", "reshaped", "condition")
NONE = "–"


def as_data(file: Path, found: Spectra, *, layer: str | None, size: str | None) -> dict[str, Any]:
    """A dictionary for JSON."""
    certificate = found.certificate
    return {
        "input": str(file),
        "backend": keras.backend.backend(),
        "layer": layer,
        "size": size,
        "bound": None if certificate is None else certificate.bound,
        "without_constant": [
            {"layer": call.layer, "type": call.type, "reason": call.reason}
            for call in (certificate.unknown if certificate else ())
        ],
        "layers": [vars(one) for one in found.layers],
    }


def show(found: Spectra) -> None:
    """Print the table, then why there are gaps in it, and what is known of the whole."""
    console = make_console()
    if found.layers:
        print_table(console, COLUMNS, map(row, found.layers), numbers=NUMBERS, wrap=("input → output",), spare=SPARE)
    for line in (*gaps(found.layers), *of_the_whole(found.certificate, len(found.layers))):
        say(console, line)


def row(layer: LayerSpectrum) -> tuple[str, ...]:
    """One line of the table."""
    before, after = shapes_text(layer.inputs), shapes_text(layer.outputs)
    return (
        escape(layer.layer),
        escape(layer.type),
        before if before == after else f"{before} → {after}",
        number(layer.norm),
        NONE if layer.bound is None else at_most(layer.bound),
        *map(number, (layer.condition, layer.reshaped_norm)),
    )


def number(value: float | None) -> str:
    """A number with four significant digits."""
    if value is None:
        return NONE
    return "∞" if math.isinf(value) else f"{value:.4g}"


def gaps(layers: list[LayerSpectrum]) -> Iterator[str]:
    """Why some numbers are missing, once per reason."""
    for what, attribute in (("norm", "reason"), ("condition", "condition_reason")):
        names: dict[str, list[str]] = {}
        for layer in layers:
            if getattr(layer, attribute):
                names.setdefault(first_sentence(getattr(layer, attribute)), []).append(layer.layer)
        for reason, of in names.items():
            count = "" if len(of) == 1 else f" and {plural(len(of) - 1, 'other')}"
            yield f"[yellow]{what}[/] of {escape(of[0])}{count}: {escape(reason)}"


def of_the_whole(certificate: Certificate | None, count: int) -> Iterator[str]:
    """The bound of the whole, and what has no constant."""
    if certificate is None:
        return
    for call in certificate.unknown:
        reason = escape(first_sentence(call.reason))
        yield f"[yellow]no Lipschitz constant[/]: {escape(call.layer)} ({escape(call.type)}): {reason}"
    yield (
        f"{plural(count, 'linear layer')}; "
        + (
            "the whole has no bound"
            if math.isinf(certificate.bound)
            else f"the Lipschitz constant of the whole is at most {at_most(certificate.bound)}"
        )
    )
