"""`keras-adjoint deconv`."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.options import AsJson, Debug, Force, Limit, ModelFile, Modules, Timeout, layers, policies
from keras_adjoint_cli.session import session

EXAMPLES = (
    "deconv model.keras photo.jpg --layer conv4 -o seen.png",
    "deconv model.keras photo.jpg --layer conv4 -o seen.png --strongest 16 --range -1 1",
    "deconv model.keras photo.jpg --layer conv4 -o seen.png --channel 7 --policy activation=guided",
)
LARGEST = 1e38  # so that the difference of two numbers is finite in float32, too
FORMATS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")

Photograph = Annotated[
    Path, typer.Argument(metavar="PHOTO", help="The photograph, a picture file.", readable=False, show_default=False)
]
Picture = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.png",
        help="The picture to write, a .png, .jpg, .pdf or .svg file.",
        readable=False,
        show_default=False,
    ),
]
Layer = Annotated[
    str,
    typer.Option(
        autocompletion=layers,
        help="The name of the layer whose features are shown, as inspect lists them.",
        show_default=False,
    ),
]


def check_limits(limits: tuple[float, float] | None) -> tuple[float, float] | None:
    """Refuse a range without numbers between black and white."""
    if limits and not (all(abs(limit) < LARGEST for limit in limits) and limits[0] != limits[1]):
        raise typer.BadParameter(
            f"Black and white must be two different, finite numbers, not {limits[0]} and {limits[1]}."
        )
    return limits


Limits = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        callback=check_limits,
        help="What the model expects for black and for white. By default 0 255 if it scales its input itself, else 0 1.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Pixels of the longer side, for a model that takes every size. By default that of the photograph, at most 512.",
        min=8,
    ),
]
Policy = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="KEY=VALUE",
        autocompletion=policies,
        help="A policy, as of mirror. Can be given several times. By default those of keras_adjoint.deconvnet.",
    ),
]


def deconv(
    file: ModelFile,
    photograph: Photograph,
    layer: Layer,
    output: Picture,
    strongest: Annotated[
        int | None,
        typer.Option(help="How many features are shown. By default 9, or all if there are fewer.", min=1, max=100),
    ] = None,
    channel: Annotated[
        int | None,
        typer.Option(
            help="The number of a channel, from 0, whose strongest units are shown. By default each channel has one.",
            min=0,
        ),
    ] = None,
    limits: Limits = None,
    size: Size = None,
    policy: Policy = None,
    force: Force = False,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Show in pixels what a layer's strongest features respond to in a photograph (Zeiler and Fergus 2014).

    The photograph is cropped and scaled to the size of the model's input, in grey or colour by its number of channels.
    Its strongest features, one for each channel, are projected back to pixels by the adjoints of the layers, and shown
    beside the patches of the photograph that they come from. For networks without max pooling, try --policy
    activation=guided.

    Exit status: 0 if the picture was written; 2 if a file or an option cannot be used, and nothing is written.
    """
    with session(debug=debug, timeout=timeout):
        for module in ("matplotlib", "PIL"):
            if importlib.util.find_spec(module) is None:
                raise Unusable('Pictures need matplotlib: pip install "keras-adjoint[plot]"')
        from keras_adjoint_cli.files.inputs import about, prepare

        allowed = prepare(file, limit, output, FORMATS, force=force, pictures=[photograph])
        from keras_adjoint.plots.figures import own_settings
        from keras_adjoint_cli.actions.deconv import project
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.destination import written
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.deconv import as_data, draw, show
        from keras_adjoint_cli.progress import progress

        model = load(file, modules, allowed, runs=True)
        with progress("Projecting features"), about(file):
            seen = project(
                model,
                photograph,
                layer,
                strongest=strongest,
                channel=channel,
                texts=policy or (),
                limits=limits,
                size=size,
            )
        with own_settings(), written(output) as beside, progress("Drawing"):
            draw(beside, seen, file.stem)
        if as_json:
            print_json(as_data(file, photograph, output, seen))
        else:
            show(output, seen)
