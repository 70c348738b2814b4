"""`keras-adjoint inspect`."""

from typing import Annotated

import typer

from keras_adjoint_cli.errors import one_line
from keras_adjoint_cli.files.without_tensorflow import without_tensorflow
from keras_adjoint_cli.options import AsJson, Debug, ModelFile, Modules

EXAMPLES = ("inspect model.keras", "inspect model.keras --batch 32", "inspect model.keras --json")


def inspect(
    file: ModelFile,
    batch: Annotated[int, typer.Option(help="Samples at once, on which the fastest algorithm depends.", min=1)] = 1,
    as_json: AsJson = False,
    modules: Modules = None,
    debug: Debug = False,
) -> None:
    """List every layer of a model: its kernel and sizes, its adjoint, and what a mirror does about it.

    "exact" is undone by its adjoint; what a policy decides about shows the policy's name and default, such as norm=own;
    "neither" has neither an adjoint nor a policy; "not reached" lies beside the way back, as what computes a gate does.
    "tied" counts the parameters that a mirror shares with the layer, "own" those that it adds.

    Exit status: 0 if the model can be mirrored; 1 if it cannot, because a layer has neither an adjoint nor a policy; 2 if
    the file cannot be used.
    """
    with one_line(debug=debug), without_tensorflow():
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.console import print_json
        from keras_adjoint_cli.output.inspect import as_data, can_be_mirrored, show
        from keras_adjoint_cli.survey import survey

        entries, problem = survey(load(file, modules), batch)
        if as_json:
            print_json(as_data(file, entries, problem, batch))
        else:
            show(entries, problem)
        if not can_be_mirrored(entries, problem):
            raise typer.Exit(1)
