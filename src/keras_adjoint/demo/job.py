"""The demo from beginning to end."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_adjoint.atomic_write import atomic_write
from keras_adjoint.demo import models, picture, tables
from keras_adjoint.demo.attempts import try_everything
from keras_adjoint.demo.photographs import held_out_photographs, random_patches, training_photographs
from keras_adjoint.demo.reload import in_new_process
from keras_adjoint.demo.training import Trained, train

PATCHES = 3000
SAMPLE = 16


@dataclass(frozen=True)
class Results:
    """Everything that the demo measured."""

    tied: Trained
    untied: Trained
    attempts: list
    reloaded: dict


def run(out, *, steps, seed, console=None):
    """Train, compare, write `demo.png` and `autoencoder.keras` to the folder `out`, and reload the latter.

    Args:
        out: A `pathlib.Path`; made if it does not exist.
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
        f"Training on {patches.shape[1]}×{patches.shape[2]} patches of {listed(training)}; held out: {listed(held_out)}."
    )
    with progress_bars(console) as progress:
        options = {"steps": steps, "seed": seed, "progress": progress}
        tied = train("tied", models.tied, patches, **options)
        untied = train("untied", models.untied, patches, **options)
    file = out / "autoencoder.keras"
    save(tied, file)
    save(untied, out / "untied.keras", keep=False)
    predictions = tied.model.predict(patches[:SAMPLE], verbose=0)
    for trained in (tied, untied):
        trained.reconstruct(held_out)
    console.print(tables.comparison(tied, untied))

    with console.status("Trying every way back through every layer"):
        convolutions = models.convolutions(tied.encoder)
        attempts = [attempt for conv in convolutions for attempt in try_everything(conv, tied.decoder)]
    console.print(tables.layers(attempts))

    with atomic_write(out / "demo.png") as beside:
        picture.draw(beside, held_out, tied, untied)
    with console.status("Loading the file in a new process"):
        reloaded = in_new_process(file, patches[:SAMPLE], predictions)
    console.print(
        f"{file}, loaded in a new process with keras.saving.load_model: "
        f"{'tied' if reloaded['tied'] else '[red]not tied[/]'}, predictions differ by {reloaded['difference']:.1e}. "
        f"With the encoder's first kernel doubled, the decoder's output changes by up to {reloaded['change']:.2f}"
        f"{', and it is the adjoint still' if reloaded['still_adjoint'] else '[red], and it is not the adjoint[/]'}."
    )
    console.print(f"Wrote {out / 'demo.png'} and {file}. {time.perf_counter() - start:.0f} seconds in all.")
    return Results(tied, untied, attempts, reloaded)


def progress_bars(console):
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[quality]:>8}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=console, expand=True)


def save(trained, file, *, keep=True):
    """Save a model, remember the size of its file, and with `keep=False` nothing but that."""
    with atomic_write(file) as beside:
        trained.model.save(beside)
    trained.file_bytes = file.stat().st_size
    if not keep:
        file.unlink()


def listed(names):
    return ", ".join(names)
