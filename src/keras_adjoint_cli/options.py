"""Options and arguments that several subcommands have, and how their help ends."""

from pathlib import Path
from typing import Annotated

import typer

ModelFile = Annotated[
    Path, typer.Argument(help="A saved Keras model.", metavar="MODEL.keras", readable=False, show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")]
Modules = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="A module to import first, which registers custom layers."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output if it exists already; never the input.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


def examples(*commands: str) -> str:
    """Commands as the help of a subcommand ends with them."""
    return "Examples:\n\n" + "\n".join(f"- `keras-adjoint {command}`" for command in commands)
