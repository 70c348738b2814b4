"""The demo from beginning to end, and its results as tables and as data."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.demo import models, picture
from keras_adjoint.demo.attempts import Attempt, try_everything
from keras_adjoint.demo.training import Trained, held_out_photographs, random_patches, train, training_photographs
from keras_adjoint.models.text import size_text

PATCHES = 3000
SAMPLE = 16


@dataclass(frozen=True)
class Results:
    """Everything that the demo measured, and the folder that it wrote to."""

    out: Path
    tied: Trained
    untied: Trained
    attempts: list[Attempt]
    reloaded: dict[str, Any]


def run(out: Path, *, steps: int, seed: int, console: Console | None = None) -> Results:
    """Train, compare, write `demo.png` and `autoencoder.keras` to the folder `out`, and reload the latter.

    Args:
        out: The folder; made if it does not exist.
        steps: Number of training steps of either autoencoder.
        seed: Seed of the patches, the encoder and the batches.
        console: Where to print to; standard output by default.

    Returns:
        The `Results`.
    """
    console = console or Console()
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    training, held_out = training_photographs(), held_out_photographs()
    patches = random_patches(training.values(), PATCHES, seed=seed)
    console.print(
        f"Training on {size_text(patches.shape[1:3])} patches of {listed(training)}; held out: {listed(held_out)}."
    )
    with progress_bars(console) as progress:
        tied = train("tied", models.tied, patches, steps=steps, seed=seed, progress=progress)
        untied = train("untied", models.untied, patches, steps=steps, seed=seed, progress=progress)
    file = out / "autoencoder.keras"
    save(tied, file)
    save(untied, out / "untied.keras", keep=False)
    predictions = tied.model.predict(patches[:SAMPLE], verbose=0)
    for trained in (tied, untied):
        trained.reconstruct(held_out)
    console.print(table_of_models(tied, untied))

    with console.status("Trying other methods to reuse each kernel"):
        convolutions = models.convolutions(tied.encoder)
        attempts = [attempt for conv in convolutions for attempt in try_everything(conv, tied.decoder)]
    console.print(table_of_attempts(attempts))

    with atomic_write(out / "demo.png") as beside:
        picture.draw(beside, held_out, tied, untied)
    with console.status("Loading the file in a new process"):
        reloaded = models.load_in_new_process(file, patches[:SAMPLE], predictions)
    console.print(
        f"{file}, loaded in a new process with keras.saving.load_model: "
        f"{'tied' if reloaded['tied'] else '[red]not tied[/]'}, predictions differ by {reloaded['difference']:.1e}. "
        f"With the encoder's first kernel doubled, the decoder's output changes by up to {reloaded['change']:.2f}"
        f"{', and it is still the adjoint' if reloaded['still_adjoint'] else '[red], and it is not the adjoint[/]'}."
    )
    console.print(f"Wrote {out / 'demo.png'} and {file}. {time.perf_counter() - start:.0f} seconds in all.")
    return Results(out, tied, untied, attempts, reloaded)


def progress_bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[quality]:>8}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=console, expand=True)


def save(trained: Trained, file: Path, *, keep: bool = True) -> None:
    """Save a model and note the size of its file; `keep=False` deletes the file."""
    with atomic_write(file) as beside:
        trained.model.save(beside)
    trained.file_bytes = file.stat().st_size
    if not keep:
        file.unlink()


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)


# --- the results


def table_of_models(tied: Trained, untied: Trained) -> Table:
    """The effect of the tie: the architecture, the initial encoder and the batches are the same."""
    table = Table(title="Tied and untied decoder", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("")
    for trained in (tied, untied):
        table.add_column(trained.name, justify="right")
    table.add_column("tied : untied", justify="right")

    def add_ratio(what: str, value: Callable[[Trained], float], show: Callable[[float], str]) -> None:
        a, b = value(tied), value(untied)
        table.add_row(what, show(a), show(b), f"{a / b:.2f}")

    add_ratio("parameters", lambda t: t.parameters, "{:,}".format)
    add_ratio("file on disk, optimizer included", lambda t: t.file_bytes / 1000, "{:,.1f} kB".format)
    add_ratio("optimizer slots, variables", lambda t: len(t.slots), "{:,}".format)
    add_ratio("optimizer slots, numbers", lambda t: t.slot_numbers, "{:,}".format)
    add_ratio("training time", lambda t: t.seconds, "{:.1f} s".format)
    add_ratio("median step", lambda t: 1000 * t.step_seconds, "{:.1f} ms".format)
    for photograph in tied.psnr:
        a, b = tied.psnr[photograph], untied.psnr[photograph]
        table.add_row(f"PSNR, held-out photograph of a {photograph}", f"{a:.2f} dB", f"{b:.2f} dB", f"{a - b:+.2f} dB")
    return table


def table_of_attempts(attempts: Iterable[Attempt]) -> Table:
    """The adjoint of every layer, and other methods to reuse its kernel."""
    title = "The adjoint of every layer, and other methods to reuse its kernel"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("layer", no_wrap=True)
    table.add_column("method", overflow="fold", ratio=2)
    table.add_column("exact", no_wrap=True)
    table.add_column("measured", overflow="fold", ratio=3)
    previous: str | None = None
    for attempt in attempts:
        if previous not in (None, attempt.layer):
            table.add_section()
        verdict = "[green]yes[/]" if attempt.passed else "[red]no[/]"
        table.add_row(attempt.layer if attempt.layer != previous else "", attempt.method, verdict, attempt.outcome)
        previous = attempt.layer
    return table


def as_data(results: Results) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "output": str(results.out),
        "backend": keras.backend.backend(),
        "tied": trained_as_data(results.tied),
        "untied": trained_as_data(results.untied),
        "attempts": [vars(attempt) for attempt in results.attempts],
        "reloaded": results.reloaded,
    }


def trained_as_data(trained: Trained) -> dict[str, Any]:
    return {
        "parameters": trained.parameters,
        "bytes": trained.file_bytes,
        "slot_numbers": trained.slot_numbers,
        "seconds": trained.seconds,
        "step_seconds": trained.step_seconds,
        "psnr": trained.psnr,
    }
