"""The demo's tables, for a terminal, and the same facts as data for programs."""

from rich import box
from rich.table import Table


def comparison(tied, untied):
    """What the tie changes: the same architecture, the same encoder to begin with, the same batches."""
    table = Table(title="Tied and untied decoder", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("")
    for trained in (tied, untied):
        table.add_column(trained.name, justify="right")
    table.add_column("tied : untied", justify="right")

    def ratio(what, value, show):
        a, b = value(tied), value(untied)
        table.add_row(what, show(a), show(b), f"{a / b:.2f}")

    ratio("parameters", lambda t: t.parameters, "{:,}".format)
    ratio("file on disk, optimizer included", lambda t: t.file_bytes / 1000, "{:,.1f} kB".format)
    ratio("optimizer slots, variables", lambda t: len(t.slots), "{:,}".format)
    ratio("optimizer slots, numbers", lambda t: t.slot_numbers, "{:,}".format)
    ratio("training time", lambda t: t.seconds, "{:.1f} s".format)
    ratio("median step", lambda t: 1000 * t.step_seconds, "{:.1f} ms".format)
    for photograph in tied.psnr:
        a, b = tied.psnr[photograph], untied.psnr[photograph]
        table.add_row(f"PSNR, held-out photograph of a {photograph}", f"{a:.2f} dB", f"{b:.2f} dB", f"{a - b:+.2f} dB")
    return table


def layers(attempts):
    """Every layer: the residual of its adjoint, and what other ways to reuse its kernel give."""
    title = "The way back through every layer"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("layer", no_wrap=True)
    table.add_column("way back", overflow="fold", ratio=2)
    table.add_column("exact", no_wrap=True)
    table.add_column("measured", overflow="fold", ratio=3)
    previous = None
    for attempt in attempts:
        if previous not in (None, attempt.layer):
            table.add_section()
        verdict = "[green]yes[/]" if attempt.passed else "[red]no[/]"
        table.add_row(attempt.layer if attempt.layer != previous else "", attempt.way, verdict, attempt.outcome)
        previous = attempt.layer
    return table


def as_data(results):
    """A dictionary for JSON."""
    facts = ("parameters", "file_bytes", "slot_numbers", "seconds", "step_seconds", "psnr")
    return {
        **{
            trained.name: {fact: getattr(trained, fact) for fact in facts} for trained in (results.tied, results.untied)
        },
        "attempts": [vars(attempt) for attempt in results.attempts],
        "reloaded": results.reloaded,
    }
