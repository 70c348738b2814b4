"""What `keras-adjoint kernel` did, for people and for programs."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_adjoint.models.text import size_text
from keras_adjoint_cli.actions.kernel import Change, Plan
from keras_adjoint_cli.console import make_console, plural, print_table, say
from keras_adjoint_cli.printable import escape

MOST = 40  # lines of the table


def as_data(source: Path, file: Path, plan: Plan, changes: list[Change], left_out: list[str]) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": str(source),
        "output": str(file),
        **plan.as_data(),
        "arrays": [vars(change) for change in changes],
        "left_out": left_out,
    }


def show(source: Path, file: Path, plan: Plan, changes: list[Change], left_out: list[str]) -> None:
    """Print the kernels that were rearranged, then what became of everything else."""
    console = make_console()
    kernels = [change for change in changes if change.rearranged]
    rows = [(escape(one.name), size_text(one.before), size_text(one.after), one.dtype) for one in kernels[:MOST]]
    if rows:
        print_table(console, ("array", "shape", "becomes", "dtype"), rows)
    for line in conclusions(file, plan, changes, left_out):
        say(console, line)


def misfits(plan: Plan, kernels: list[Change], others: list[Change]) -> Iterator[tuple[Change, int]]:
    """Biases that fitted the kernel of their layer and do not any more, with the output channels that this has now."""
    of_layer = {parent(one.name): one for one in kernels}
    for bias in others:
        kernel = of_layer.get(parent(bias.name))
        if kernel is None or len(bias.before) != 1:
            continue
        before = plan.layout(len(kernel.before)) or ""
        after, outputs = plan.target or before, "I" if plan.kind == "conv_transpose" else "O"
        if "O" in before and bias.before[0] == kernel.before[before.index("O")] != kernel.after[after.index(outputs)]:
            yield bias, kernel.after[after.index(outputs)]


def parent(name: str) -> str:
    """The name of what holds an array: conv1 of conv1/kernel and of conv1.weight; "" if the name has no parts."""
    return re.split(r"[./](?=[^./]*$)", name)[0] if re.search("[./]", name) else ""


def conclusions(file: Path, plan: Plan, changes: list[Change], left_out: list[str]) -> Iterator[str]:
    """What was done to how many arrays."""
    kernels, others = ([one for one in changes if one.rearranged is wanted] for wanted in (True, False))
    if len(kernels) > MOST:
        yield f"… and {len(kernels) - MOST} more"
    if kernels:
        yield f"{plural(len(kernels), 'array')} rearranged: {', '.join(plan.steps())}"
    if others:
        ranks = Counter(len(one.before) for one in others)
        axes = ", ".join(f"{count} with {plural(rank, 'axis', 'axes')}" for rank, count in sorted(ranks.items()))
        yield f"{plural(len(others), 'array')} carried over unchanged: {axes}"
    for bias, count in misfits(plan, kernels, others):
        has = bias.before[0]
        yield (
            f"[yellow]{escape(bias.name)}[/] no longer fits: it has {plural(has, 'number')}, and the layer that its kernel "
            f"is for has {plural(count, 'channel')} of output"
        )
    if left_out:
        yield f"Left out, because only PyTorch's files can hold them: {escape(', '.join(left_out))}"
    yield f"Wrote {escape(str(file))}"
