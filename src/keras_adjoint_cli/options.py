"""Options and arguments that several subcommands have, how their help ends, and what the shell completes."""

import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

ModelFile = Annotated[
    Path,
    typer.Argument(
        help="The saved Keras model, a .keras or .h5 file.", metavar="MODEL.keras", readable=False, show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON rather than for people.")]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="A Python module to import first, because it registers custom layers. Can be given several times.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite the output if it exists already. The input is never overwritten.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Stop after so many seconds, with exit status 124. By default never.", min=0.001
    ),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=NUMBER",
        help="How much a file may ask for: memory=4GB, layers=5000 and calls=10000 of a model and lines=20000 of a script by "
        "default, and of memory at most a hundred times the file's size, or 256 MB. Can be given several times.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error rather than one line.")]

LARGEST_CONFIG = 20_000_000  # bytes that are read for completion


def examples(*commands: str) -> str:
    """Commands as the help of a subcommand ends with them."""
    return "Examples:\n\n" + "\n".join(f"- `keras-adjoint {command}`" for command in commands)


# --- what the shell offers for an option when the tab key is pressed; none of it loads a model


def policies(incomplete: str) -> list[str]:
    """The keys of policies, and after the equals sign the choices."""
    from keras_adjoint.models.policy_names import NAMES

    left, equals, _ = incomplete.partition("=")
    policy = left.partition(":")[0]
    if equals:
        return [f"{left}={choice}" for choice in NAMES.get(policy, ()) if f"{left}={choice}".startswith(incomplete)]
    return [f"{name}=" for name in (*NAMES, "output_activation") if name.startswith(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """What `transpose_kernel` makes."""
    from keras_adjoint.kernels.layouts import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """How `adapt_channels` adapts."""
    from keras_adjoint.kernels.channels import METHODS

    return [method for method in METHODS if method.startswith(incomplete)]


def layers(context: typer.Context, incomplete: str) -> list[str]:
    """The layers of the model that has been named already."""
    for word in context.args:  # as long as the line is not complete, typer does not know which argument is which
        try:
            return [name for name in names_in(config_in(word)) if name.startswith(incomplete)]
        except Exception:  # whatever is wrong with a file, the tab key is not the one to say it
            continue
    return []


def config_in(file: str) -> Any:
    """The configuration in a .keras file that is small enough to be read between two keys."""
    if not os.path.isfile(file):
        raise ValueError("It may be a named pipe, which would be waited for.")
    with zipfile.ZipFile(file) as archive:
        if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
            raise ValueError("It is too large.")
        return json.loads(archive.read("config.json"))


def names_in(config: dict[str, Any]) -> Iterator[str]:
    """The names of all layers in the config of a model, but for those that a shell could read as something else.

    Shells print what they are offered as it is, and some evaluate it.
    """
    for layer in config.get("config", {}).get("layers", ()):
        name = layer.get("config", {}).get("name")
        if isinstance(name, str) and layer.get("class_name") != "InputLayer" and re.fullmatch(r"\w[\w./-]*", name):
            yield name
        yield from names_in(layer)


Code = Annotated[
    str | None,
    typer.Option(
        "--code",
        metavar="LAYER",
        autocompletion=layers,
        help="Of an autoencoder, the layer whose output is the code: what comes after it is left out. 'narrowest' finds the "
        "narrowest place that everything passes. By default the whole model is the encoder.",
    ),
]
