"""`docs/speed.md` and its chart: what the measurements come to, on one screen."""

import re
import tomllib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import geometric_mean, quantiles

from benchmarks.export.page import table
from benchmarks.speed.chart import draw
from benchmarks.speed.files import BACKENDS, RESULTS, everything
from keras_adjoint.atomic_write import atomic_write

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOK = f"{PROJECT['urls']['Repository']}/blob/main/{(RESULTS.parent / 'notebook.md').as_posix()}"

PAGE = """# Speed

<!-- Written by `python -m benchmarks.speed` from the measurements in `{results}`. Changes made by hand are lost. -->

An adjoint does as many multiply-adds as its layer, so it should take about as long. Up to {count} convolutions of real networks
were timed on CPUs, in float32. Each dot is the time of one adjoint over that of its layer. The circle is their geometric mean,
and the bar their middle half: a quarter of the dots lie to the left of it, and a quarter to the right.

![Ratios of times for every convolution, backend and machine; left of the line the adjoint is faster](speed.svg)

{table}

All entries are ratios of times, below 1 where the adjoint is faster{ranges}. The geometric mean
is about the convolutions as a whole: one that takes twice as long and one that takes half as long balance. The middle half is
about a single convolution: half of them lie in it.

In short, an adjoint takes {layer} of the time of its layer, and {own} of that of the backend's own transpose, which
`Conv2DTranspose` calls; a training step of a tied autoencoder takes {step} of that of an untied one (geometric means). The
slowest adjoint takes {worst_ratio} times as long as its layer: *{worst}*, on {worst_place}. Nothing has been measured on a GPU;
`ka.autotune(layer, shape)` measures the algorithms on your machine and keeps the fastest.

The [notebook]({notebook}) has every convolution, bfloat16, memory, eager calls, and the targets that are missed.
"""


@dataclass(frozen=True)
class Ratios:
    """The ratios of one kind of time to another, by convolution."""

    by_name: dict

    def __bool__(self):
        return bool(self.by_name)

    @property
    def mean(self):
        return geometric_mean(self.by_name.values())

    @property
    def middle_half(self):
        """The lower and the upper quartile."""
        values = list(self.by_name.values())
        if len(values) == 1:
            return values * 2
        lower, _, upper = quantiles(values, method="inclusive")
        return lower, upper

    @property
    def worst(self):
        """(ratio, name) of the largest."""
        return max((ratio, name) for name, ratio in self.by_name.items())


def ratios(figures, name, part="float32"):
    """The ratios of this name on one backend and machine."""
    return Ratios({key: row[name] for key, row in figures.get(part, {}).items() if name in row})


def write(root):
    """The page and its chart, from the figures that are there."""
    measured = measurements(root)
    if not measured:
        return
    with atomic_write(root / "docs" / "speed.md") as beside:
        beside.write_text(text(measured), encoding="utf-8")
    rows = [
        (place(figures), BACKENDS[figures["backend"]], [ratios(figures, name) for name in ("adjoint", "native")])
        for figures in measured
    ]
    draw(root / "docs" / "speed.svg", rows)


def measurements(root):
    """The figures of every machine and backend on which convolutions were timed in float32."""
    return [figures for figures in chain.from_iterable(everything(root).values()) if ratios(figures, "adjoint")]


def place(figures):
    """The machine that figures are of."""
    name = re.sub(r"\(\w+\)| Processor", "", figures["processor"].partition(",")[0])
    return f"{name} ({figures['device']})"


def text(measured):
    """The page in Markdown."""
    steps = [step.mean for figures in measured if (step := ratios(figures, "time", "training"))]
    (worst_ratio, worst), where = max((ratios(figures, "adjoint").worst, _where(figures)) for figures in measured)
    return PAGE.format(
        results=RESULTS.as_posix(),
        count=max(len(ratios(figures, "adjoint").by_name) for figures in measured),
        table=summary(measured),
        ranges=", from the lowest machine to the highest"
        if len({figures["device"] for figures in measured}) > 1
        else "",
        layer=between([ratios(figures, "adjoint").mean for figures in measured]),
        own=between([ratios(figures, "native").mean for figures in measured]),
        step=between(steps) if steps else "(not measured)",
        worst=worst.partition(":")[0],
        worst_ratio=f"{worst_ratio:.1f}",
        worst_place=where,
        notebook=NOTEBOOK,
    )


def _where(figures):
    return f"{BACKENDS[figures['backend']]}, {place(figures)}"


def between(values):
    """The smallest and the largest of some ratios."""
    return f"{min(values):.2f} to {max(values):.2f}"


def summary(measured):
    """One line for each measure, one column for each backend, with the range over machines."""
    backends = [backend for backend in BACKENDS if any(figures["backend"] == backend for figures in measured)]
    machines = len({figures["device"] for figures in measured})
    rows = []
    for title, measure in MEASURES.items():
        found = [[measure(figures) for figures in measured if figures["backend"] == backend] for backend in backends]
        rows.append([title, *(_range([value for values in of_backend for value in values]) for of_backend in found)])
    return table([f"{machines} machines" if machines > 1 else "", *(BACKENDS[backend] for backend in backends)], rows)


def _range(values):
    if not values:
        return ""
    smallest, largest = f"{min(values):.2f}", f"{max(values):.2f}"
    return smallest if smallest == largest else f"{smallest} – {largest}"


def _mean(name, part="float32"):
    """A function that gives the geometric mean of ratios, in a list that is empty where there are none."""
    return lambda figures: [found.mean] if (found := ratios(figures, name, part)) else []


MEASURES = {
    "adjoint ÷ layer, geometric mean": _mean("adjoint"),
    "adjoint ÷ layer, middle half": lambda figures: ratios(figures, "adjoint").middle_half,
    "adjoint ÷ layer, slowest convolution": lambda figures: [ratios(figures, "adjoint").worst[0]],
    "adjoint ÷ the backend's own transpose, geometric mean": _mean("native"),
    "gradients of the adjoint ÷ gradients of the layer, geometric mean": _mean("gradients"),
    "training step, tied ÷ untied, geometric mean": _mean("time", "training"),
}
