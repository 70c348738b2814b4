"""`keras-adjoint spectrum`."""

from typing import Annotated

import typer

from keras_adjoint_cli.options import AsJson, Debug, Limit, ModelFile, Modules, Timeout, layers
from keras_adjoint_cli.session import session

EXAMPLES = (
    "spectrum model.keras",
    "spectrum model.keras --layer conv1 --size 224x224x3",
    "spectrum model.keras --json",
)


def spectrum(
    file: ModelFile,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            autocompletion=layers,
            help="The name of one linear layer. By default all of them, and the bound of the whole model.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The shape of the model's input as in 224x224x3, or one number for all spatial axes. By default the size that "
            "the model was made with.",
        ),
    ] = None,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Print the norm of every linear layer at its size, a bound of it, its condition, and a bound of the whole model.

    The norm is the largest factor by which the layer lengthens its input, without its bias and its activation; "bound" is
    never below it. "reshaped" is the norm of the kernel written as a matrix, which spectral normalization is often applied
    to; it is that of the layer for Dense layers alone. The condition is the largest such factor over the smallest one: at
    least 1, and infinite where the layer loses more than its shapes say. It is computed where the layer's matrix is small.
    Layers that only move numbers are left out. The bound of the whole is its Lipschitz constant at most, see
    keras_adjoint.certify.

    Exit status: 0 if the norms were computed; 2 if the file or an option cannot be used.
    """
    with session(debug=debug, timeout=timeout):
        from keras_adjoint_cli.files.inputs import prepare

        limits = prepare(file, limit)
        from keras_adjoint_cli.actions.spectrum import spectra_in
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.spectrum import as_data, show

        found = spectra_in(load(file, modules, limits), file, limits, layer=layer, size=size)
        if as_json:
            print_json(as_data(file, found, layer=layer, size=size))
        else:
            show(found)
