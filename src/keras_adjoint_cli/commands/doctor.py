"""`keras-adjoint doctor`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.options import AsJson, Debug, Limit, Modules, Timeout
from keras_adjoint_cli.session import session

EXAMPLES = (
    "doctor model.keras",
    "doctor train.py --json",
    "doctor src models --format github",
    "doctor model.keras --fix",
    "doctor train.py --fix -o train_repaired.py",
)


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


def doctor(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Saved Keras models, .keras or .h5 files, Python scripts, and folders with either.",
            metavar="MODEL.keras|SCRIPT.py|FOLDER...",
            show_default=False,
        ),
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="How findings are printed: for people, as JSON, as annotations of GitHub's workflows, or as SARIF 2.1.0.",
        ),
    ] = Format.TEXT,
    as_json: AsJson = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a repaired copy of each file. The file itself stays as it is.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="REPAIRED",
            help="The repaired copy to write, of a single file. By default model.repaired.keras or script.repaired.py, beside "
            "the file.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the repaired copy if it exists already.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let notes lead to exit status 1 as well.")] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with status 0 whatever is found in the files.")
    ] = False,
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

    In a script, the comment `# keras-adjoint: ignore` silences what is found on its line, or, on a line of its own, on the
    next one; `ignore[checkerboard, tie-lost]` silences these rules alone.

    Of a folder, every model and script in it and below is examined, but for what is hidden or belongs to an environment of
    Python.

    Exit status: 2 if a file cannot be used, though the others are examined; else 1 if there are errors or warnings, or, with
    --strict, notes; else 0. With --fix it is about what is left in the repaired copies.
    """
    with session(debug=debug, timeout=timeout):
        from keras_adjoint_cli.actions.doctor import examine_all, exit_status, files_in
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.limits import read_limits
        from keras_adjoint_cli.output.annotations import annotations, sarif
        from keras_adjoint_cli.output.doctor import as_data, report_problems, show

        if as_json and form not in (Format.TEXT, Format.JSON):
            raise Unusable(f"--json is --format json. Received: --json --format {form}")
        if (output or force) and not fix:
            raise Unusable("-o and --force are for the repaired copy that --fix writes.")
        limits, found = read_limits(limit), files_in(files)
        if output and len(found) != 1:
            raise Unusable(f"-o is for the repaired copy of a single file, and there are {len(found)}. Leave it out.")
        results = examine_all(found, modules, limits, fix=fix, output=output, force=force, debug=debug)
        report_problems(results)
        if as_json or form == Format.JSON:
            if len(results) > 1 or not results[0].problem:
                print_json(as_data(results, strict=strict))
        elif form == Format.SARIF:
            print_json(sarif(results))
        elif form == Format.GITHUB:
            for line in annotations(results):
                print(line)
        else:
            show(results)
        raise typer.Exit(exit_status(results, strict=strict, exit_zero=exit_zero))
