"""The command: its subcommands in the order of its help, and what they have in common."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keras_adjoint_cli.commands import apply, check, deconv, demo, doctor, inspect, kernel, mirror, report, spectrum
from keras_adjoint_cli.errors import STATUSES, UNUSABLE, print_error, sentence
from keras_adjoint_cli.options import examples

UsageError: Any = typer.BadParameter.__base__  # of wrong arguments; typer does not name it


class Command(TyperGroup):
    """The command as a whole, which says in one line what is wrong with its arguments, too."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        exits = options.get("standalone_mode", True)
        options["standalone_mode"] = False
        if not exits:
            return super().main(*arguments, **options)
        try:
            status = super().main(*arguments, **options)
        except UsageError as error:
            if error.format_message():  # without any arguments it is empty, for the help has been printed
                print_error(f"{sentence(error.format_message())} {where_to_look(error)}")
            status = UNUSABLE
        sys.exit(status)


def where_to_look(error: Any) -> str:
    """Which help says more about wrong arguments."""
    return "" if error.ctx is None else f"See {error.ctx.command_path} --help."


def statuses() -> str:
    """The exit statuses, as the help ends with them."""
    return "Exit status:\n\n" + "\n".join(f"- `{status}`: {meaning}" for status, meaning in STATUSES.items())


app = typer.Typer(
    name="keras-adjoint",
    cls=Command,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command, commands in (
    (demo.demo, demo.EXAMPLES),
    (inspect.inspect, inspect.EXAMPLES),
    (check.check, check.EXAMPLES),
    (spectrum.spectrum, spectrum.EXAMPLES),
    (mirror.mirror, mirror.EXAMPLES),
    (kernel.kernel, kernel.EXAMPLES),
    (deconv.deconv, deconv.EXAMPLES),
    (apply.apply, apply.EXAMPLES),
    (report.report, report.EXAMPLES),
    (doctor.doctor, doctor.EXAMPLES),
):
    app.command(epilog=examples(*commands))(command)


def show_version(wanted: bool) -> None:
    if wanted:
        from keras_adjoint import __version__

        print(f"keras-adjoint {__version__}")
        raise typer.Exit


@app.callback(epilog=statuses())
def keras_adjoint(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Exact adjoints of Keras layers that share their kernels.

    The backend is the one that KERAS_BACKEND names.

    Errors are one line on standard error; --debug shows where they come from. What is being done stands there as well, if
    it is a terminal. When a reader stops, as `head` does, the exit status stays that of the work.
    """
