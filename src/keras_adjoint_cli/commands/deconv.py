"""`keras-adjoint deconv`."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.errors import Unusable, one_line
from keras_adjoint_cli.files.without_tensorflow import without_tensorflow
from keras_adjoint_cli.options import AsJson, Debug, Force, ModelFile, Modules, layers, policies

EXAMPLES = (
    "deconv model.keras photo.jpg --layer conv4 -o seen.png",
    "deconv model.keras photo.jpg --layer conv4 -o seen.png --strongest 16 --range -1 1",
    "deconv model.keras photo.jpg --layer conv4 -o seen.png --channel 7 --policy activation=guided",
)
FORMATS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")

Photograph = Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture.", readable=False, show_default=False)]
Picture = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT.png", help="Where to.", readable=False, show_default=False)
]
Layer = Annotated[
    str, typer.Option(autocompletion=layers, help="The layer whose features are shown.", show_default=False)
]
Limits = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Numbers for black and white; 0 255 if the model scales them itself, else 0 1.",
    ),
]
Size = Annotated[int | None, typer.Option(help="Pixels of the longer side, for a model that takes every size.", min=8)]
Policy = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="KEY=VALUE", autocompletion=policies, help="Another policy, as of mirror."),
]


def deconv(
    file: ModelFile,
    photograph: Photograph,
    layer: Layer,
    output: Picture,
    strongest: Annotated[
        int | None, typer.Option(help="How many features; by default 9, if there are as many.", min=1, max=100)
    ] = None,
    channel: Annotated[int | None, typer.Option(help="Show the strongest units of this channel alone.", min=0)] = None,
    limits: Limits = None,
    size: Size = None,
    policy: Policy = None,
    force: Force = False,
    as_json: AsJson = False,
    modules: Modules = None,
    debug: Debug = False,
) -> None:
    """Show in pixels what a layer's strongest features respond to in a photograph (Zeiler and Fergus 2014).

    The photograph is cut and scaled to the size that the model takes, in grey or colour as it has channels. Its strongest
    features, one for each channel, are projected back to pixels by the adjoints of the layers, beside the patches of the
    photograph that they come from. For networks without max pooling, try --policy activation=guided.

    Exit status: 0 if the picture was written; 2 if a file or an option cannot be used. Nothing is written then.
    """
    with one_line(debug=debug), without_tensorflow():
        for module in ("matplotlib", "PIL"):
            if importlib.util.find_spec(module) is None:
                raise Unusable('Pictures need matplotlib: pip install "keras-adjoint[plot]"')
        from keras_adjoint.atomic_write import atomic_write
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.files.output import check_output
        from keras_adjoint_cli.output.deconv import draw, report
        from keras_adjoint_cli.projections import project

        check_output(output, inputs=[file, photograph], suffixes=FORMATS, force=force)
        model = load(file, modules)
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
        with atomic_write(output) as beside:
            draw(beside, seen, file.stem)
        report(file, photograph, output, seen, as_json=as_json)
