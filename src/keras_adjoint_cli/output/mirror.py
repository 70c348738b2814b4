"""What `keras-adjoint mirror` decided and wrote, for people and for programs."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras

from keras_adjoint.models.decisions import Decision, Kind, count_parameters
from keras_adjoint_cli.actions.mirror import Figures, Mirrored
from keras_adjoint_cli.console import bytes_text, make_console, plural, print_table, say
from keras_adjoint_cli.policy_options import Setting, because
from keras_adjoint_cli.printable import escape

COLUMNS = ("layers", "type", "which", "undone by", "because", "tied", "own")
WRAP = ("because", "undone by", "which")
SPARE = ("tied", "own", "type", "which")
NAMED = 3  # names of layers in a line of the summary
ADJOINTS = {Kind.EXACT: "its adjoint", Kind.LINEAR_PART: "the adjoint of its linear part"}


def as_data(
    encoder: Path,
    file: Path,
    mirrored: Mirrored,
    figures: Figures,
    *,
    code: str | None,
    autoencoder: bool,
    untied: bool,
) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": str(encoder),
        "output": str(file),
        "backend": keras.backend.backend(),
        "code": code,
        "narrowest": None if mirrored.cut is None else vars(mirrored.cut),
        "autoencoder": autoencoder,
        "untied": untied,
        "input_shape": mirrored.model.input_shape,
        "output_shape": mirrored.model.output_shape,
        **vars(figures),
        "layers": [layer_as_data(decision, mirrored.settings) for decision in mirrored.decisions],
    }


def layer_as_data(decision: Decision, settings: list[Setting]) -> dict[str, Any]:
    return {
        "layer": decision.call.path,
        "type": decision.type,
        "kind": decision.kind,
        "mirror_layers": mirror_layers(decision),
        "policies": decision.policies,
        "settings": decision.settings,
        "tied_parameters": count_parameters(decision.tied_variables),
        "own_parameters": count_parameters(decision.own_variables),
        "because": list(because(decision, settings)),
    }


def mirror_layers(decision: Decision) -> list[str]:
    """The types of the layers that stand for a layer in the mirror."""
    return [type(layer).__name__ for layer in decision.layers.values()]


def show(
    file: Path, mirrored: Mirrored, figures: Figures, *, every_layer: bool, autoencoder: bool, untied: bool
) -> None:
    """Print the table, then what was written."""
    console = make_console()
    rows = [row(same, mirrored.settings) for same in groups(mirrored, every_layer)]
    print_table(console, COLUMNS, rows, numbers=("layers", "tied", "own"), wrap=WRAP, spare=SPARE)
    for line in conclusions(file, figures, autoencoder=autoencoder, untied=untied):
        say(console, line)
    if mirrored.hint:
        say(console, f"[yellow]{escape(mirrored.hint)}[/]")


def groups(mirrored: Mirrored, every_layer: bool) -> Iterable[list[Decision]]:
    """Decisions that are the same but for the layer, together."""
    found: dict[Any, list[Decision]] = {}
    for one in mirrored.decisions:
        same = one.type, tuple(mirror_layers(one)), one.kind, tuple(because(one, mirrored.settings))
        found.setdefault(one.call.path if every_layer else same, []).append(one)
    return found.values()


def row(same: list[Decision], settings: list[Setting]) -> tuple[str, ...]:
    """One line of the table for decisions that are the same."""
    one, adjoint = same[0], ADJOINTS.get(same[0].kind)
    names = [decision.call.path for decision in same[:NAMED]] + (["…"] if len(same) > NAMED else [])
    reasons = "; ".join([*([adjoint] if adjoint else []), *because(one, settings)])
    tied = count_parameters(one for decision in same for one in decision.tied_variables)
    own = count_parameters(one for decision in same for one in decision.own_variables)
    by = " + ".join(mirror_layers(one)) or "nothing"
    if one.left_out and "activation=same" in reasons:
        reasons += "; the code has passed it"
    return (
        str(len(same)),
        escape(one.type),
        escape(", ".join(names)),
        f"[{'green' if adjoint else 'cyan'}]{escape(by)}[/]",
        escape(reasons),
        f"{tied:,}" if tied else "",
        f"{own:,}" if own else "",
    )


def conclusions(file: Path, figures: Figures, *, autoencoder: bool, untied: bool) -> Iterator[str]:
    """What was written, and what loading it again has shown."""
    yield f"Wrote {escape(str(file))}, {bytes_text(figures.bytes)}, and loaded it again: {figures.parameters:,} parameters."
    readers, variables = figures.adjoint_layers, figures.tied_variables
    read = "reads" if readers == 1 else "read"
    if untied:
        yield "It is made of stock Keras layers, with kernels of their own, and loads without this package."
    elif autoencoder:
        yield (
            f"{plural(readers, 'layer')} of the decoder {read} {plural(variables, 'variable')} of the encoder, "
            f"{figures.tied_parameters:,} parameters that are stored once."
        )
    else:
        yield (
            f"{plural(readers, 'adjoint')} {read} {plural(variables, 'kernel')}, "
            f"{figures.tied_parameters:,} parameters, copied from the encoder's file as they are now. Pass --autoencoder "
            "for both halves in one file, where they stay tied in training."
        )
    if not untied:
        yield (
            f"To load it, import keras_adjoint, then keras.saving.load_model({escape(repr(str(file)))}). "
            "With --untie it is made of stock layers, which Keras loads alone."
        )
