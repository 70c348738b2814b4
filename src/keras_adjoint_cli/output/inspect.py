"""What `keras-adjoint inspect` found, as a table for people and as data for programs."""

from collections import Counter

import keras
from rich.markup import escape

from keras_adjoint_cli.output.console import first_sentence, make_console, plural, size_of
from keras_adjoint_cli.output.tables import print_table
from keras_adjoint_cli.survey import EXACT, NEITHER, NOT_REACHED, POLICY

COLOURS = {EXACT: "green", POLICY: "cyan", NEITHER: "bold red", NOT_REACHED: "dim"}
COLUMNS = ("layer", "type", "kernel", "stride, padding", "input → output", "undone", "by", "tied", "own", "algorithm")
WORDY = ("input → output", "by", "stride, padding", "algorithm", "kernel")
SPARE = ("type", "algorithm", "stride, padding", "tied", "own", "kernel")


def as_data(file, entries, problem, batch):
    """A dictionary for JSON."""
    return {
        "file": str(file),
        "backend": keras.backend.backend(),
        "batch": batch,
        "can_be_mirrored": can_be_mirrored(entries, problem),
        "problem": problem,
        "layers": [vars(entry) for entry in entries],
    }


def can_be_mirrored(entries, problem):
    return not problem and not any(entry.undone == NEITHER for entry in entries)


def show(entries, problem):
    """Print the table, then what has neither an adjoint nor a policy, then the sums."""
    console = make_console()
    print_table(console, COLUMNS, map(row, entries), numbers=("tied", "own"), wordy=WORDY, spare=SPARE)
    for line in explanations(entries, problem):
        console.print(line, soft_wrap=True)
    for line in sums(entries):
        console.print(line, soft_wrap=True)


def row(entry):
    """One line of the table."""
    return (
        escape(entry.layer),
        escape(entry.type),
        ", ".join(size(shape) for shape in entry.kernels.values()),
        steps(entry),
        change_of_size(entry),
        f"[{COLOURS[entry.undone]}]{entry.undone}[/]",
        escape(way_back(entry)),
        f"{entry.tied:,}" if entry.tied else "",
        f"{entry.own:,}" if entry.own else "",
        " + ".join(entry.algorithms),
    )


def way_back(entry):
    """What undoes a layer: a policy, its adjoint, or first the one and then the other."""
    choices = [f"{policy}={choice}" for policy, choice in entry.policies.items() if policy != "bias"]
    return ", ".join([*choices, *([] if entry.undone in (POLICY, NEITHER) else [entry.adjoint])])


def steps(entry):
    """Strides, padding, and what else is not one."""
    words = [along_axes(entry.strides), entry.padding] if entry.strides else []
    if any(step != 1 for step in entry.dilation):
        words.append(f"dilation {along_axes(entry.dilation)}")
    if entry.groups != 1:
        words.append(f"{entry.groups} groups")
    return ", ".join(words)


def change_of_size(entry):
    ends = [joined(map(size_of, shapes)) for shapes in (entry.inputs, entry.outputs)]
    return ends[0] if ends[0] == ends[1] else " → ".join(ends)


def joined(sizes):
    """Several sizes in a few characters."""
    return ", ".join(f"{count} of {size}" if count > 1 else size for size, count in Counter(sizes).items())


def along_axes(numbers):
    """One number if it holds along all axes."""
    return size(numbers[:1] if len(set(numbers)) == 1 else numbers)


def size(numbers):
    return "×".join(map(str, numbers))


def explanations(entries, problem):
    """Why the model cannot be mirrored as it is, once per layer type."""
    if problem:
        yield f"[bold red]no mirror[/]: {escape(first_sentence(problem))}"
    refused: dict = {}
    for entry in entries:
        if entry.undone == NEITHER:
            refused.setdefault(entry.type, []).append(first_sentence(entry.reason))
    for kind, (reason, *others) in refused.items():
        yield f"[bold red]neither[/] {escape(kind)} ({plural(1 + len(others), 'layer')}): {escape(reason)}"


def sums(entries):
    """How many layers are undone in which way, and what a mirror shares and adds."""
    counts = Counter(entry.undone for entry in entries)
    yield f"{plural(len(entries), 'layer')}: " + ", ".join(f"{count} {undone}" for undone, count in counts.items())
    total, tied, own = (sum(getattr(entry, name) for entry in entries) for name in ("parameters", "tied", "own"))
    yield f"{total:,} parameters, of which a mirror shares {tied:,}, and it adds {own:,} of its own"
