"""`keras-adjoint doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.errors import Unusable, one_line
from keras_adjoint_cli.files.without_tensorflow import without_tensorflow
from keras_adjoint_cli.options import AsJson, Debug, Modules

EXAMPLES = (
    "doctor model.keras",
    "doctor train.py --json",
    "doctor model.keras --fix",
    "doctor train.py --fix -o train_repaired.py",
)


def doctor(
    file: Annotated[
        Path,
        typer.Argument(
            help="A saved Keras model, or a Python script.", metavar="MODEL.keras|SCRIPT.py", show_default=False
        ),
    ],
    as_json: AsJson = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired copy; the file itself stays as it is.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="REPAIRED", help="The repaired copy. By default model.repaired.keras, beside it."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a repaired copy that is there already.")] = False,
    modules: Modules = None,
    debug: Debug = False,
) -> None:
    """Find common mistakes with transposed kernels.

    In models: kernels that are stored twice or wrongly transposed, sizes that a decoder cannot return, checkerboards, and
    more. In scripts, which are read and never run: the recipes that lead there. Each finding has its place, its effect in
    figures, and the fix.

    The exit status is 0 if nothing was found, 1 if something was, and 2 if the file cannot be used. With --fix it is 0 if
    nothing is left to be found in the repaired copy.
    """
    with one_line(debug=debug), without_tensorflow():
        from keras_adjoint_cli.output.console import print_json
        from keras_adjoint_cli.output.doctor import as_data, show
        from keras_adjoint_cli.repair import open_file, target_for

        if (output or force) and not fix:
            raise Unusable("-o and --force are for the repaired copy that --fix writes.")
        target = target_for(file, output, force) if fix else None
        examined = open_file(file, modules)
        outcome = None if target is None else examined.repair(target)
        if as_json:
            print_json(as_data(file, examined, outcome))
        else:
            show(file, examined, outcome)
        left = examined.findings if outcome is None else outcome.remaining
        raise typer.Exit(1 if left else 0)
