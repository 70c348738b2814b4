"""What `keras-adjoint inspect` found, as a table for people and as data for programs."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_adjoint.models.code import Cut
from keras_adjoint.models.decisions import Kind
from keras_adjoint.models.facts import LayerFacts, Totals
from keras_adjoint.models.text import shapes_text, size_text
from keras_adjoint_cli.console import first_sentence, make_console, plural, print_table, say
from keras_adjoint_cli.printable import escape

COLOURS = {
    Kind.EXACT: "green",
    Kind.LINEAR_PART: "green",
    Kind.POLICY: "cyan",
    Kind.NEITHER: "bold red",
    Kind.UNREACHED: "dim",
}
COLUMNS = ("layer", "type", "kernel", "stride, padding", "input → output", "undone", "by", "tied", "own", "algorithm")
WRAP = ("input → output", "by", "stride, padding", "algorithm", "kernel")
SPARE = ("type", "algorithm", "stride, padding", "tied", "own", "kernel")


def as_data(
    file: Path, layers: list[LayerFacts], totals: Totals, problem: str, *, batch: int, code: str | None, cut: Cut | None
) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": str(file),
        "backend": keras.backend.backend(),
        "ok": can_be_mirrored(layers, problem),
        "problem": problem,
        "batch": batch,
        "code": code,
        "narrowest": None if cut is None else vars(cut),
        **vars(totals),
        "layers": [vars(layer) for layer in layers],
    }


def can_be_mirrored(layers: list[LayerFacts], problem: str) -> bool:
    return not problem and not any(layer.kind == Kind.NEITHER for layer in layers)


def show(layers: list[LayerFacts], totals: Totals, problem: str, hint: str) -> None:
    """Print the table, then what has neither an adjoint nor a policy, the sums, and whether it seems an autoencoder."""
    console = make_console()
    print_table(console, COLUMNS, map(row, layers), numbers=("tied", "own"), wrap=WRAP, spare=SPARE)
    for line in explanations(layers, problem):
        say(console, line)
    for line in sums(layers, totals):
        say(console, line)
    if hint:
        say(console, f"[yellow]{escape(hint)}[/]")


def row(layer: LayerFacts) -> tuple[str, ...]:
    """One line of the table."""
    return (
        escape(layer.layer),
        escape(layer.type),
        ", ".join(size_text(shape) for shape in layer.kernels.values()),
        steps(layer),
        change_of_size(layer),
        f"[{COLOURS[layer.kind]}]{layer.kind.words}[/]",
        escape(undone_by(layer)),
        tied(layer),
        f"{layer.own_parameters:,}" if layer.own_parameters else "",
        " + ".join(layer.algorithms),
    )


def tied(layer: LayerFacts) -> str:
    """The parameters that a mirror shares with a layer; those of an adjoint layer are its source's, and counted there."""
    if layer.adjoint_of and layer.tied_parameters:
        return f"as {escape(layer.adjoint_of)}"
    return f"{layer.tied_parameters:,}" if layer.tied_parameters else ""


def undone_by(layer: LayerFacts) -> str:
    """What undoes a layer: a policy, its adjoint, or first the one and then the other."""
    choices = [f"{policy}={choice}" for policy, choice in layer.policies.items() if policy != "bias"]
    if layer.left_out:
        return f"nothing ({', '.join(choices)})"
    return ", ".join([*choices, *([] if layer.kind in (Kind.POLICY, Kind.NEITHER) else [adjoint(layer)])])


def adjoint(layer: LayerFacts) -> str:
    return f"of {layer.adjoint_of}" if layer.adjoint_of else layer.adjoint


def steps(layer: LayerFacts) -> str:
    """Strides, padding, and what else is not one."""
    words = [along_axes(layer.strides), layer.padding] if layer.strides else []
    if any(step != 1 for step in layer.dilation):
        words.append(f"dilation {along_axes(layer.dilation)}")
    if layer.groups != 1:
        words.append(f"{layer.groups} groups")
    return ", ".join(words)


def change_of_size(layer: LayerFacts) -> str:
    before, after = shapes_text(layer.inputs), shapes_text(layer.outputs)
    return before if before == after else f"{before} → {after}"


def along_axes(numbers: tuple[int, ...]) -> str:
    """One number if it holds along all axes."""
    return size_text(numbers[:1] if len(set(numbers)) == 1 else numbers)


def explanations(layers: list[LayerFacts], problem: str) -> Iterator[str]:
    """Why the model cannot be mirrored as it is, once per layer type."""
    if problem:
        yield f"[bold red]no mirror[/]: {escape(first_sentence(problem))}"
    refused: dict[str, list[str]] = {}
    for layer in layers:
        if layer.kind == Kind.NEITHER:
            refused.setdefault(layer.type, []).append(first_sentence(layer.reason))
    for kind, (reason, *others) in refused.items():
        yield f"[bold red]neither[/] {escape(kind)} ({plural(1 + len(others), 'layer')}): {escape(reason)}"


def sums(layers: list[LayerFacts], totals: Totals) -> Iterator[str]:
    """How many layers are undone by what, and how many parameters a mirror shares and adds."""
    counts = Counter(layer.kind for layer in layers)
    yield f"{plural(len(layers), 'layer')}: " + ", ".join(f"{count} {kind.words}" for kind, count in counts.items())
    yield (
        f"{totals.parameters:,} parameters, of which a mirror shares {totals.tied_parameters:,}, and it adds "
        f"{totals.own_parameters:,} of its own"
    )
