"""`keras-adjoint kernel`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.options import AsJson, Debug, Force, Limit, Timeout, kinds, methods
from keras_adjoint_cli.session import session

EXAMPLES = (
    "kernel weights.npz -o keras.npz --from OHWI --to HWIO",
    "kernel model.pt -o keras.safetensors --from OIHW --to HWIO --key 'features.*.weight'",
    "kernel conv.npy -o flipped.npy --kind conv",
    "kernel grouped.npy -o dense.npy --kind conv_transpose --groups 4",
    "kernel rgb.npz -o grey.npz --in-channels 1 --method average",
)

Source = Annotated[Path, typer.Argument(metavar="IN", help="The file of arrays.", readable=False, show_default=False)]
Result = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="The file of arrays to write, in the format of its ending.",
        readable=False,
        show_default=False,
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="LAYOUT",
        help="The layout of the kernels, as in OIHW. By default Keras' own: WIO, HWIO or DHWIO.",
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        help="How many input channels, per group, the kernels are adapted to. By default they keep theirs.", min=1
    ),
]


def kernel(
    file: Source,
    output: Result,
    source: Layout = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="LAYOUT", help="The layout to write them in. By default that of --from."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            autocompletion=kinds,
            help="Which transpose to make: conv_transpose, conv, flip, swap_spatial or swap_channels. By default none.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option(help="How many groups the forward convolution has. For --kind.", min=1)] = 1,
    in_channels: Channels = None,
    out_channels: Annotated[
        int | None,
        typer.Option(help="How many filters the kernels are adapted to. By default they keep theirs.", min=1),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            autocompletion=methods,
            help="How channels are adapted: repeat, average, truncate or pad. For --in-channels and --out-channels.",
        ),
    ] = "repeat",
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="NAME",
            help="The name of a kernel, or a pattern with *. Can be given several times. By default *.",
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Rearrange kernels in a file of arrays: their layout, which transpose they are for, and their channels.

    The files are .npy, .npz, .safetensors, and PyTorch's state dicts, .pt, .pth or .bin; the output may have another
    format than the input. Kernels are all arrays with as many axes as the layout has letters, or those that --key names;
    every other array is copied unchanged. In a layout I stands for the input channels per group, O for the filters, and
    every other letter for a spatial axis. The kinds are those of keras_adjoint.transpose_kernel, and the methods those of
    adapt_channels.

    Exit status: 0 if the output was written; 2 if a file or an option cannot be used, and nothing is written.
    """
    with session(debug=debug, timeout=timeout):
        from keras_adjoint_cli.actions.kernel import Plan, rearrange
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.arrays import SUFFIXES, check_suffix, read, write
        from keras_adjoint_cli.files.destination import check_output
        from keras_adjoint_cli.files.inputs import about
        from keras_adjoint_cli.files.limits import read_limits
        from keras_adjoint_cli.output.kernel import as_data, show

        check_suffix(output)
        check_output(output, inputs=[file], suffixes=SUFFIXES, force=force)
        plan = Plan(source, target, kind, groups, in_channels, out_channels, method)
        contents = read(file, read_limits(limit))
        with about(file, output):
            contents, changes = rearrange(contents, plan, key or ())
            left_out = write(contents, output)
        summary = (file, output, plan, changes, left_out)
        if as_json:
            print_json(as_data(*summary))
        else:
            show(*summary)
