"""What `keras-adjoint mirror` decided and wrote, for people and for programs."""

import keras
from rich.markup import escape

from keras_adjoint_cli.output.console import make_console, plural
from keras_adjoint_cli.output.tables import print_table
from keras_adjoint_cli.policy_options import because

COLUMNS = ("layers", "type", "which", "undone by", "because", "tied", "own")
WORDY = ("because", "undone by", "which")
SPARE = ("tied", "own", "type", "which")
NAMED = 3  # names of layers in a line of the summary
LINEAR = "its adjoint"


def as_data(encoder, file, mirrored, figures, *, autoencoder, untied):
    """A dictionary for JSON."""
    layers = [{**vars(one), "because": list(because(one, mirrored.settings))} for one in mirrored.decisions]
    return {
        "encoder": str(encoder),
        "file": str(file),
        "backend": keras.backend.backend(),
        "autoencoder": autoencoder,
        "untied": untied,
        "input_shape": mirrored.model.input_shape,
        "output_shape": mirrored.model.output_shape,
        **vars(figures),
        "layers": layers,
    }


def show(file, mirrored, figures, *, every_layer, autoencoder, untied):
    """Print the table, then what was written."""
    console = make_console()
    rows = [row(same, mirrored.settings) for same in groups(mirrored, every_layer)]
    print_table(console, COLUMNS, rows, numbers=("layers", "tied", "own"), wordy=WORDY, spare=SPARE)
    for line in conclusions(file, figures, autoencoder=autoencoder, untied=untied):
        console.print(line, soft_wrap=True)


def groups(mirrored, every_layer):
    """Decisions that are the same but for the layer, together."""
    found: dict = {}
    for one in mirrored.decisions:
        reasons = tuple(because(one, mirrored.settings))
        found.setdefault(one.layer if every_layer else (one.type, tuple(one.by), one.exact, reasons), []).append(one)
    return found.values()


def row(same, settings):
    """One line of the table for decisions that are the same."""
    one = same[0]
    names = [decision.layer for decision in same[:NAMED]] + (["…"] if len(same) > NAMED else [])
    reasons = "; ".join([*([LINEAR] if one.exact else []), *because(one, settings)])
    tied, own = (sum(getattr(decision, name) for decision in same) for name in ("tied", "own"))
    by = " + ".join(one.by) or "nothing"
    return (
        str(len(same)),
        escape(one.type),
        escape(", ".join(names)),
        f"[{'green' if one.exact else 'cyan'}]{escape(by)}[/]",
        escape(reasons),
        f"{tied:,}" if tied else "",
        f"{own:,}" if own else "",
    )


def conclusions(file, figures, *, autoencoder, untied):
    """What was written, and what loading it again has shown."""
    yield f"Wrote {escape(str(file))}, {figures.bytes / 1e6:,.1f} MB, and loaded it again: {figures.parameters:,} parameters."
    if untied:
        yield "It is made of stock Keras layers, with kernels of their own, and loads without this package."
    elif autoencoder:
        yield (
            f"{plural(figures.adjoints, 'layer')} of the decoder read {plural(figures.variables, 'variable')} of the encoder, "
            f"{figures.shared:,} parameters that are there once."
        )
    else:
        yield (
            f"{plural(figures.adjoints, 'adjoint')} read {plural(figures.variables, 'kernel')}, {figures.shared:,} parameters, "
            "copied from the encoder's file as they are now. Pass --autoencoder for both halves in one file, where they stay "
            "tied in training."
        )
