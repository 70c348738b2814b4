"""`keras-adjoint apply`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.options import AsJson, Debug, Limit, ModelFile, Modules, Timeout
from keras_adjoint_cli.session import session, start_keras

EXAMPLES = (
    "apply model.keras volume.zarr -o out.zarr --block 128 --workers 2",
    "apply model.keras volume.zarr -o out.zarr --block 128 --workers 2 --resume",
    "apply encoder.keras code.npy -o image.npy --adjoint --size 511x512",
    "apply model.keras scans.h5 --key brain/t1 -o out.npy --memory 2GB",
)

Input = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="The array to apply it to: a .npy file, a .zarr folder, or a .h5 file. With or without a batch axis in front.",
        readable=False,
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="The .npy file or .zarr folder to write.",
        readable=False,
        show_default=False,
    ),
]


def apply(
    file: ModelFile,
    array: Input,
    output: Output,
    adjoint: Annotated[
        bool, typer.Option("--adjoint", help="Apply the adjoint of the model, which is linear then. It has no biases.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="For --adjoint, the size of what the model takes, as in 511x512, where the model does not say it.",
        ),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The size of blocks of the result, one number for all axes or several as in 64x128x128. By default as large "
            "as --memory allows.",
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="How much may be held at once beside Keras itself.")
    ] = "1GiB",
    workers: Annotated[int, typer.Option(help="How many batches of blocks are computed at once.", min=1)] = 1,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The name of the array in a .h5 file or a group of zarr's. By default the only one."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where a run with the same options was stopped; begin where there was none."
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite the output if it exists already, and what a stopped run has left."),
    ] = False,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Apply a model, or its adjoint, to an array that may be larger than memory.

    The result is the one of the whole array, computed block by block: each reads exactly the part that it depends on. A model
    with a layer that depends on the whole array, such as global pooling, is refused, and the layer named.

    The output gets its name when it is complete. A run that is stopped, killed or out of room leaves a file like
    out.part.npy and a journal beside it, with which --resume goes on to the same result. Other options, weights or inputs are
    refused then.

    Exit status: 0 if the output was written; 2 if a file or an option cannot be used, or blocks failed, which are named.
    """
    with session(debug=debug, timeout=timeout, left="the same command with --resume goes on"):
        from keras_adjoint_cli.files.inputs import about, check_files
        from keras_adjoint_cli.files.limits import read_limits
        from keras_adjoint_cli.files.volumes import Target, opened

        check_files(file)
        limits = read_limits(limit)
        target = Target(output, [file, array], force=force, resume=resume)
        with opened(array, key, limits) as volume:
            start_keras()
            from keras_adjoint_cli.actions.apply import Options, apply_to
            from keras_adjoint_cli.console import print_json
            from keras_adjoint_cli.files.models import load
            from keras_adjoint_cli.output.apply import as_data, show

            options = Options.read(adjoint=adjoint, size=size, block=block, memory=memory, workers=workers)
            model = load(file, modules, limits)
            with about(file, array, output, target.beside):
                done = apply_to(model, volume, target, options)
        if as_json:
            print_json(as_data(file, array, output, done, options))
        else:
            show(array, output, done, options)
