"""`benchmarks/speed/notebook.md`: all that was measured, table by table, and a picture for each machine."""

from itertools import chain
from statistics import geometric_mean

from benchmarks.export.page import table as cells
from benchmarks.speed.files import BACKENDS, RESULTS, everything
from keras_adjoint.atomic_write import atomic_write

# What is to be reached: by backend, for the geometric mean and for the worst of the ratios.
TARGETS = {
    "jax": {"adjoint": (0.85, 2), "gradients": (1.1, None), "native": (None, 1.05), "time": 0.5, "memory": 1.0},
    "tensorflow": {"adjoint": (1.0, 2), "gradients": (0.8, None), "native": (None, 1.05), "time": 1.0, "memory": 1.0},
    "torch": {"adjoint": (1.0, 2.5), "gradients": (1.0, None), "native": (None, 1.05), "time": 1.0, "memory": 1.0},
}
TITLES = {
    "adjoint": "adjoint ÷ forward",
    "gradients": "gradients of the adjoint ÷ those of the forward",
    "native": "adjoint ÷ the backend's own transposed convolution",
}

INTRODUCTION = """# Notebook of the speed benchmarks

<!-- Written by `python -m benchmarks.speed`. Changes made by hand are lost, except those in `notes.md` beside this file. -->

All measurements of [the page on speed](../../docs/speed.md). Every ratio is one of two best times, of functions that took turns
in one process, compiled by JAX and TensorFlow and eager in PyTorch. *Spread* is the distance between the quartiles over the
median, the larger one of the two functions. Numbers in parentheses are targets.
"""


def write(root):
    """The notebook, and a picture for each machine, from the figures that are there."""
    with atomic_write(root / RESULTS.parent / "notebook.md") as beside:
        beside.write_text(text(root), encoding="utf-8")
    for name, of_device in everything(root).items():
        draw(root / RESULTS / f"{name}.png", of_device)


def text(root):
    """The notebook in Markdown."""
    of_devices = everything(root)
    notes = root / RESULTS.parent / "notes.md"
    parts = [INTRODUCTION, *(device(*item) for item in of_devices.items())]
    parts += [notes.read_text(encoding="utf-8")] if notes.exists() else []
    found = list(chain.from_iterable(of_devices.values()))
    parts += [training(found), overhead(found), workspace(found), *map(table, found)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def device(name, found):
    """What one machine came to."""
    picture = f"![Adjoint over forward, for every convolution and backend]({RESULTS.name}/{name}.png)"
    return f"## {found[0]['processor']} (*{name}*)\n\n{summary(found)}\n\n{picture}"


def place(figures):
    """The backend and the machine that figures are of."""
    return f"{BACKENDS[figures['backend']]}, {figures['device']}"


def summary(found):
    """Geometric means and worst ratios beside what is to be reached."""
    lines = [
        "| | " + " | ".join(BACKENDS[figures["backend"]] for figures in found) + " |",
        "| --- |" + " --- |" * len(found),
    ]
    for dtype in ("float32", "bfloat16"):
        for ratio, title in TITLES.items():
            for column, name in enumerate(("geometric mean", "worst")):
                cells = [_cell(figures, dtype, ratio, column) for figures in found]
                if any(cells):
                    lines.append(f"| {title}, {name}, {dtype} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figures, dtype, ratio, column):
    rows = [row for row in figures.get(dtype, {}).values() if ratio in row]
    if not rows:
        return ""
    values = [row[ratio] for row in rows]
    value = (geometric_mean(values), max(values))[column]
    target = TARGETS[figures["backend"]][ratio][column]
    if target is None:
        return f"{value:.2f}"
    return f"{value:.2f}{'' if value <= target else ' **missed**'} (≤ {target:g})"


def training(found):
    """One step of a tied autoencoder over one of the untied."""
    text = "A tied autoencoder beside one with its own `Conv2DTranspose` layers, `train_on_batch` after `compile`."
    rows = [
        [place(figures), name, f"{row['tied_ms']:.1f}", f"{row['untied_ms']:.1f}"]
        + [f"{row[ratio]:.2f}" for ratio in ("time", "spread", "memory")]
        for figures in found
        for name, row in figures.get("training", {}).items()
    ]
    heads = ["backend", "network", "tied, ms", "untied, ms", "time", "spread", "memory"]
    return f"## One training step\n\n{text}\n\n{cells(heads, rows)}"


def overhead(found):
    """Import and eager calls."""
    text = (
        "*Import* is what `import keras_adjoint` takes after `import keras`, in milliseconds (≤ 50). The others are eager\n"
        "calls of a small adjoint of stride 2, beside those of a layer that only calls the same operation (*direct*, ≤ 1.15),\n"
        "and of Keras' own `Conv2DTranspose` (*stock*). *Frames* counts the Python calls of functions of this package in ours\n"
        "(≤ 15), and the files that they are in (≤ 6)."
    )
    rows = []
    for figures in found:
        for name, row in figures.get("overhead", {}).items():
            if name == "import_ms":
                rows.append([place(figures), "import, ms", f"{row:.0f}", "", "", "", "", ""])
            else:
                numbers = [f"{row[key]:.0f}" for key in ("call_us", "direct_us", "stock_us")]
                numbers += [f"{row[key]:.2f}" for key in ("ratio", "spread")]
                crossed = f"{row['frames']} in {row['files']}" if "frames" in row else ""  # older figures have none
                rows.append([place(figures), f"call, µs: {name}", *numbers, crossed])
    columns = ["backend", "", "ours", "direct", "stock", "ours ÷ direct", "spread", "frames"]
    return f"## Overhead\n\n{text}\n\n{cells(columns, rows)}"


def workspace(found):
    """Memory of the algorithms."""
    text = (
        "What a process grows by beside y and x, over the larger of the two (≤ 4); for JAX also what XLA plans. An algorithm\n"
        "that a backend does not consider, because of its memory or its time, runs only if it is asked for by name."
    )
    rows = [
        [place(figures), geometry, name]
        + [f"{ratios[way]:.2f}" if way in ratios else "" for way in ("resident", "planned")]
        + ["" if ratios["considered"] else "not considered"]
        for figures in found
        for geometry, algorithms in figures.get("workspace", {}).items()
        for name, ratios in algorithms.items()
    ]
    heads = ["backend", "convolution", "algorithm", "resident", "planned", ""]
    return f"## Memory of the algorithms\n\n{text}\n\n{cells(heads, rows)}"


def facts(run):
    """When, where and with what was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{run['date']}; {run['processor']}; {versions}"


def table(figures):
    """Every convolution on one backend and machine."""
    runs = [facts(figures), *(f"{part}: {facts(run)}" for part, run in figures.get("alone", {}).items())]
    lines = [f"## {place(figures)}", "", f"{'. Measured anew, '.join(runs)}."]
    for dtype in ("float32", "bfloat16"):
        if dtype not in figures:
            continue
        lines += [
            "",
            f"### {dtype}",
            "",
            "| convolution | algorithm | forward, ms | adjoint ÷ forward | spread | gradients | spread | ÷ native | spread |",
        ]
        lines.append("| --- |" + " --- |" * 8)
        for name, row in figures[dtype].items():
            if "fails" in row:
                lines.append(f"| {name} | {row.get('algorithm', '')} | {row['fails'].replace('|', '/')} | | | | | | |")
                continue
            cells = [f"{row[r]:.2f} | {row[f'{r}_spread']:.2f}" for r in TITLES]
            lines.append(f"| {name} | {row['algorithm']} | {row['forward_ms']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(file, found):
    """A bar for every convolution: the adjoint over the forward, and the native one over the forward behind it."""
    from matplotlib.figure import Figure

    names = list(max((figures["float32"] for figures in found), key=len))
    figure = Figure(figsize=(4 + 3 * len(found), 0.2 * len(names) + 1.5), layout="constrained")
    for column, (axes, figures) in enumerate(zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True)):
        rows = [figures["float32"].get(name, {}) for name in names]
        native = [row["adjoint"] / row["native"] if "native" in row else 0 for row in rows]
        axes.barh(names, native, color="#c9c9c9", label="native ÷ forward")
        axes.barh(
            names, [row.get("adjoint", 0) for row in rows], height=0.5, color="#2b6a99", label="adjoint ÷ forward"
        )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xlim=(0, 4), ylim=(len(names) - 0.5, -0.5), title=BACKENDS[figures["backend"]])
        axes.tick_params(axis="y", labelsize=6, labelleft=column == 0)
    axes.legend(loc="lower right", fontsize=7)
    with atomic_write(file) as beside:
        figure.savefig(beside, format="png", dpi=110)
