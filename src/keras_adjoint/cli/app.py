"""The subcommands with their options. Whatever needs time to import is imported by the subcommand that uses it."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint.cli.errors import Unusable, one_line

app = typer.Typer(
    name="keras-adjoint",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path, typer.Option(help="Folder for demo.png and autoencoder.keras.", file_okay=False)]
Modules = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="A module to import first, which registers custom layers."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


def examples(*commands: str) -> str:
    """Commands as the help of a subcommand ends with them."""
    return "Examples:\n\n" + "\n".join(f"- `keras-adjoint {command}`" for command in commands)


def show_version(wanted: bool) -> None:
    if wanted:
        from keras_adjoint import __version__

        print(f"keras-adjoint {__version__}")
        raise typer.Exit


@app.callback()
def keras_adjoint(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Exact adjoints of Keras layers that share their kernels.

    The backend is the one that KERAS_BACKEND names.
    """


@app.command(epilog=examples("demo", "demo --out pictures --steps 3000"))
def demo(
    out: Out = Path("out"),
    steps: Annotated[int, typer.Option(help="Training steps of either autoencoder.", min=2)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the kernels, patches and batches.", min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Train a tied autoencoder on photographs beside an untied one, in about a minute.

    Compares their sizes, times and reconstructions, measures the adjoint of every layer and what naive reuse of its
    kernel gives, writes a picture and the model, and shows that the model is tied after loading.
    """
    with one_line(debug=debug):
        for module, package in (("skimage", "scikit-image"), ("matplotlib", "matplotlib")):
            if importlib.util.find_spec(module) is None:
                raise Unusable(f'The demo needs {package}: pip install "keras-adjoint[demo]"')
        from keras_adjoint.cli.console import make_console
        from keras_adjoint.demo.job import run

        run(out, steps=steps, seed=seed, console=make_console())


@app.command(epilog=examples("check model.keras", "check model.keras --json", "check model.keras --import my_layers"))
def check(
    file: Annotated[Path, typer.Argument(help="A saved Keras model.", metavar="MODEL.keras", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    modules: Modules = None,
    debug: Debug = False,
) -> None:
    """Run the adjoint test on every layer of a model.

    Of a layer with a bias or an activation the linear part is tested; an adjoint layer is tested against its source.
    The exit status is 0 if all tests passed, 1 if one failed, and 2 if the file cannot be used. Layers that are not
    linear, or have no rule, are listed and do not count.
    """
    with one_line(debug=debug):
        from keras_adjoint.cli.check import examine, import_modules, load
        from keras_adjoint.cli.findings import as_data, show

        import_modules(modules or [])
        findings = examine(load(file))
        passed = not any(finding.failed for finding in findings)
        if as_json:
            import json

            print(json.dumps(as_data(file, findings), indent=2))
        else:
            show(findings)
        raise typer.Exit(0 if passed else 1)
