"""The zoo's table, for a terminal and as Markdown."""

import statistics

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks.zoo.networks import cases
from benchmarks.zoo.rows import FAILED, NOT_BUILT, OK
from keras_adjoint.atomic_write import atomic_write

HEAD = (
    "network",
    "top",
    "size",
    "layers",
    "kernels",
    "tied",
    "own",
    "Keras, s",
    "mirror, s",
    "ratio",
    "residual",
    "share",
    "verdict",
)

NOT_MEASURED = {"verdict": "not measured yet", "problems": []}

INTRODUCTION = """# The zoo

<!-- Written by `python -m benchmarks.zoo`. Changes made by hand are lost. -->

The smallest network of each family of `keras.applications`, with random weights, mirrored by `ka.mirror` with its default
policies, and by `ka.autoencoder` with `pooling="switches"`, `gates="recorded"` and `activation="gradient"`; with and without
its classifier, at the size that it was designed for and at 225 × 219. A row is "ok" if

- both decoders predict finite values of exactly the input's shape;
- the decoder reads every kernel of the network, except those of layers that compute gates, as the same object;
- the decoder adds as many parameters as the policies imply, counted from the network alone, and no kernel;
- after saving and loading, both models are tied, have the same number of parameters and predict the same.

| column | meaning |
| --- | --- |
| layers | of the network / of its mirror |
| kernels | read by both / in the network; "+ n gates": n more, which compute gates and are not mirrored |
| tied, own | parameters in shared kernels / added by the decoder: biases, and one normalisation for each of the network's |
| Keras, mirror, ratio | seconds to build the network and its mirror, each the median of three, and the second over the first |
| residual | the largest of all adjoints in the backward pass, each tested at its own size in the network |
| share | the largest ratio of a residual to its tolerance, which is derived from rounding; above 1 the row fails |
"""


def row_of(case, row):
    """The cells of one row."""
    place = [case.network, "with" if case.top else "without", f"{case.size[0]} × {case.size[1]}"]
    if "ratio" not in row or "residuals" not in row:
        return [*place, *[""] * (len(HEAD) - 4), verdict(row)]
    kernels, seconds = row["kernels"], row["seconds"]
    gates = kernels["left_out_with_gates"]
    return [
        *place,
        f"{row['layers']['network']} / {row['layers']['mirror']}",
        f"{kernels['shared']} / {kernels['all'] - gates}" + (f" + {gates} gates" if gates else ""),
        f"{row['parameters']['tied']:,}",
        f"{row['parameters']['own']:,}",
        f"{statistics.median(seconds['network']):.2f}",
        f"{statistics.median(seconds['mirror']):.2f}",
        f"{row['ratio']:.2f}",
        f"{row['residuals']['residual']:.1e}",
        f"{row['residuals']['over_tolerance']:.3f}",
        verdict(row),
    ]


def verdict(row):
    """One word, or what went wrong."""
    return ": ".join([row["verdict"], "; ".join(row["problems"])] if row["problems"] else [row["verdict"]])


def summary(rows):
    """One sentence on all rows of a backend."""
    rows = list(rows)
    measured = [row for row in rows if "ratio" in row and "residuals" in row]
    verdicts = [row["verdict"] for row in rows] + [NOT_MEASURED["verdict"]] * (len(cases()) - len(rows))
    others = [verdict for verdict in (FAILED, NOT_BUILT, NOT_MEASURED["verdict"]) if verdict in verdicts]
    counts = [f"{verdicts.count(OK)} of {len(cases())} rows ok", *(f"{verdicts.count(each)} {each}" for each in others)]
    if measured:
        ratios = [row["ratio"] for row in measured]
        slowest = max(measured, key=lambda row: row["ratio"])
        worst = max(measured, key=lambda row: row["residuals"]["over_tolerance"])
        counts += [
            f"a mirror is built in {statistics.median(ratios):.2f} times the time that Keras takes for the network (median; at "
            f"most {slowest['ratio']:.2f}, {slowest['network']})",
            f"the worst residual is {worst['residuals']['over_tolerance']:.3f} of its tolerance ({worst['network']})",
        ]
    return "; ".join(counts) + "."


def terminal(rows):
    """A table for a terminal, without the words on what went wrong."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
    for column in HEAD:
        words = column in ("network", "top", "verdict")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for case in cases():
        row = rows.get(case.key, NOT_MEASURED)
        table.add_row(*map(escape, [*row_of(case, row)[:-1], row["verdict"]]))
    return table


def markdown(sections):
    """The whole page: one section for each backend."""
    parts = [INTRODUCTION]
    for section in sections:
        versions = ", ".join(f"{name} {number}" for name, number in section["versions"].items())
        rows = section["rows"]
        lines = ["| " + " | ".join(HEAD) + " |", "|" + "|".join(" --- " for _ in HEAD) + "|"]
        for case in cases():
            cells = (cell.replace("|", "\\|") for cell in row_of(case, rows.get(case.key, NOT_MEASURED)))
            lines.append("| " + " | ".join(cells) + " |")
        parts.append(f"## {section['backend']}\n\n{section['date']}; {versions}. {summary(rows.values())}\n")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def write_page(path, sections):
    """Replace the page."""
    with atomic_write(path) as beside:
        beside.write_text(markdown(sections), encoding="utf-8")
