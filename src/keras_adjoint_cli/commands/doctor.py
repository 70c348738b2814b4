"""`keras-adjoint doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.options import AsJson, Debug, Limit, Modules, Timeout
from keras_adjoint_cli.session import session

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
            help="The saved Keras model, a .keras or .h5 file, or the Python script.",
            metavar="MODEL.keras|SCRIPT.py",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired copy. The file itself stays as it is.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="REPAIRED",
            help="The repaired copy to write. By default model.repaired.keras or script.repaired.py, beside the file.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the repaired copy if it exists already.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let notes lead to exit status 1 as well.")] = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Find common mistakes with transposed kernels.

    In models: kernels that are stored twice or wrongly transposed, sizes that a decoder cannot return, checkerboards, and
    more. In scripts, which are read and never run: the code that leads to these. Each finding has its place, its effect in
    figures, and the fix.

    An error computes something else than was meant, or does not run; a warning costs something, or goes wrong once the
    model is trained, saved or called; a note is worth knowing, and perhaps intended.

    Exit status: 0 if there are no errors and no warnings, with --fix in the repaired copy; 1 if there are some, or, with
    --strict, notes; 2 if the file cannot be used.
    """
    with session(debug=debug, timeout=timeout, needs_keras=False):
        from keras_adjoint_cli.actions.doctor import open_file, target_for, wrong
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.limits import read_limits
        from keras_adjoint_cli.output.doctor import as_data, show

        if (output or force) and not fix:
            raise Unusable("-o and --force are for the repaired copy that --fix writes.")
        target = target_for(file, output, force) if fix else None
        examined = open_file(file, modules, read_limits(limit))
        outcome = None if target is None else examined.repair(target)
        if as_json:
            print_json(as_data(file, examined, outcome, strict=strict))
        else:
            show(file, examined, outcome)
        left = examined.findings if outcome is None else outcome.remaining
        raise typer.Exit(1 if wrong(left, strict=strict) else 0)
