"""`keras-adjoint mirror`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.options import AsJson, Code, Debug, Force, Limit, Modules, Timeout
from keras_adjoint_cli.options import policies as complete_policy
from keras_adjoint_cli.session import session

EXAMPLES = (
    "mirror encoder.keras -o decoder.keras",
    "mirror encoder.keras -o both.keras --autoencoder --policy pooling=switches",
    "mirror encoder.keras -o decoder.keras --policy norm=inverse --policy bias:conv1=none --policy bias:Dense=average",
    "mirror encoder.keras -o stock.keras --untie",
    "mirror autoencoder.keras -o decoder.keras --code bottleneck",
)

Encoder = Annotated[
    Path,
    typer.Argument(
        help="The saved encoder, a .keras or .h5 file.", metavar="ENCODER.keras", readable=False, show_default=False
    ),
]
Decoder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE.keras", help="The .keras file to write.", readable=False, show_default=False
    ),
]
Policy = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="KEY=VALUE",
        autocompletion=complete_policy,
        help="A policy for the whole model, as in pooling=switches, or KEY:LAYER=VALUE for the layers of a name or class, as "
        "in bias:conv1=none. Can be given several times. By default those of keras_adjoint.mirror. The error for a wrong key "
        "or value lists the right ones.",
    ),
]


def mirror(
    file: Encoder,
    output: Decoder,
    autoencoder: Annotated[
        bool,
        typer.Option(
            "--autoencoder",
            help="Write encoder and decoder as one tied model, rather than the decoder alone. Policies that need recorded "
            "activations need it.",
        ),
    ] = False,
    code: Code = None,
    policy: Policy = None,
    untie: Annotated[
        bool,
        typer.Option("--untie", help="Write stock Keras layers with copies of the kernels, rather than tied layers."),
    ] = False,
    every_layer: Annotated[
        bool,
        typer.Option(
            "--every-layer", help="Print a line for each layer, rather than one for all layers that are undone alike."
        ),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Make the tied decoder of an encoder, and say what was decided about each layer, and why.

    Linear layers are undone by their adjoints. Policies decide about everything else; their names and choices are those
    of keras_adjoint.mirror: activation, output_activation, norm, pooling, gates, dropout, preprocessing, and bias.

    The file is loaded again and compared before it is put in place.

    Exit status: 0 if it was written; 1 if it was not the same when loaded again; 2 if the encoder cannot be used or
    mirrored. After 1 and 2 nothing is written.
    """
    with session(debug=debug, timeout=timeout):
        from keras_adjoint_cli.files.inputs import about, prepare

        allowed = prepare(file, limit, output, [".keras"], force=force)
        from keras_adjoint_cli.actions.encoder import encoder_of
        from keras_adjoint_cli.actions.mirror import make, write
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.mirror import as_data, show

        model = load(file, modules, allowed)
        with about(file, output):
            mirrored = make(encoder_of(model, code), policy or (), autoencoder=autoencoder, untie=untie)
            figures = write(mirrored.model, output, autoencoder=autoencoder and not untie)
        if as_json:
            print_json(as_data(file, output, mirrored, figures, code=code, autoencoder=autoencoder, untied=untie))
        else:
            show(output, mirrored, figures, every_layer=every_layer, autoencoder=autoencoder, untied=untie)
