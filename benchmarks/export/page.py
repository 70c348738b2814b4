"""The tables of `docs/export.md`, written between two marks of the page."""

from benchmarks.export.formats import FORMATS
from benchmarks.export.models import MODELS

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
START, END = "<!-- tables: python -m benchmarks.export -->", "<!-- end of tables -->"


def tables(records):
    """All of them, in Markdown."""
    done = [
        (kind, backend, records[backend][kind.name])
        for kind in FORMATS
        for backend in BACKENDS
        if backend in records and not records[backend][kind.name]["fails"]
    ]
    return "\n\n".join((differences(done), sizes(done), layers(done), refused(records)))


def differences(done):
    rows = [
        [kind.title, BACKENDS[backend], *(verdict(record["networks"][make.__name__]) for make in MODELS)]
        for kind, backend, record in done
    ]
    text = "Largest difference between Keras and the format's own runtime, relative to the largest output:"
    return f"{text}\n\n{table(['format', 'backend', *(make.__name__ for make in MODELS)], rows)}"


def verdict(record):
    if "difference" in record:
        return f"{record['difference']:.0e}"
    return "**fails**" if record["encoder"] else "encoder fails"


def sizes(done):
    rows = [
        [
            kind.title,
            BACKENDS[backend],
            name,
            *(kilobytes(row[key]) for key in ("encoder", "tied", "plainly", "untied")),
            held(row),
        ]
        for kind, backend, record in done
        for name, row in record["sizes"].items()
    ]
    kernels = " and ".join(f"{row['kernel'] / 1000:.0f} kB ({name})" for name, row in done[0][2]["sizes"].items())
    text = f"Size of the file in kB around one kernel of {kernels}:"
    heads = [
        "format",
        "backend",
        "layer",
        "encoder alone",
        "tied",
        "tied, without `exporting`",
        "untied",
        "tied kernel stored",
    ]
    return f"{text}\n\n{table(heads, rows)}"


def kilobytes(size):
    return f"{size / 1000:.0f}" if size else "fails"


def held(row):
    if not row["tied"] or not row["encoder"]:
        return "fails"
    return "once" if row["tied"] - row["encoder"] < 0.3 * row["kernel"] else "twice"


def layers(done):
    rows = []
    for title in done[0][2]["layers"]:
        cells = [record["layers"][title] for _, _, record in done]
        rows.append([title, *("yes" if "difference" in cell else verdict(cell) for cell in cells)])
    heads = ["autoencoder of", *(f"{kind.title}, {BACKENDS[backend]}" for kind, backend, _ in done)]
    return f"Layer by layer:\n\n{table(heads, rows)}"


def refused(records):
    rows = [
        [kind.title, BACKENDS[backend], records[backend][kind.name]["fails"].replace("|", "/")]
        for kind in FORMATS
        for backend in BACKENDS
        if backend in records and records[backend][kind.name]["fails"]
    ]
    text = "Where Keras does not export a plain `Conv2DTranspose` either:"
    return f"{text}\n\n{table(['format', 'backend', 'what it says'], rows)}"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(path, text):
    """Put the tables between their marks."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"{START}\n{END}\n"
    before, rest = page.split(START)
    path.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
