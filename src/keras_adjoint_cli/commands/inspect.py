"""`keras-adjoint inspect`."""

from typing import Annotated

import typer

from keras_adjoint_cli.options import AsJson, Code, Debug, Limit, ModelFile, Modules, Timeout
from keras_adjoint_cli.session import session

EXAMPLES = ("inspect model.keras", "inspect model.keras --batch 32", "inspect model.keras --json")


def inspect(
    file: ModelFile,
    batch: Annotated[
        int, typer.Option(help="How many samples a batch has, on which the choice of the algorithm depends.", min=1)
    ] = 1,
    code: Code = None,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """List every layer of a model: its kernel and sizes, its adjoint, and what a mirror does about it.

    "exact" is undone by its adjoint; "linear part" ends in an activation, about which a policy decides, and what comes before
    that is undone by its adjoint; "policy" by what a policy puts there, shown with its default, such as norm=own; "neither"
    has neither an adjoint nor a policy; "unreached" has no part in the mirror, such as a layer that computes a gate. "tied"
    counts the parameters that a mirror shares with the layer, "own" those that it adds. The sums count a variable once,
    however many layers read it.

    Exit status: 0 if the model can be mirrored; 1 if it cannot, because a layer has neither an adjoint nor a policy; 2 if
    the file cannot be used.
    """
    with session(debug=debug, timeout=timeout):
        from keras_adjoint_cli.files.inputs import about, prepare

        allowed = prepare(file, limit)
        from keras_adjoint.errors import NoRuleError
        from keras_adjoint.models.decisions import decide
        from keras_adjoint.models.facts import facts_about_layers, totals
        from keras_adjoint.models.graph import trace
        from keras_adjoint_cli.actions.encoder import advice, encoder_of
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.inspect import as_data, can_be_mirrored, show
        from keras_adjoint_cli.progress import progress

        whole, decisions, problem = load(file, modules, allowed), None, ""
        with about(file):
            model = encoder_of(whole, code)
        hint, cut = "", None
        try:
            graph = trace(model)
        except NoRuleError as error:
            problem = str(error)
        else:
            with progress("Looking for adjoints", len(graph.calls)) as advance:
                decisions = decide(model, graph=graph, advance=advance)
            hint, cut = advice(model, graph)
        layers, counts = facts_about_layers(model, decisions, batch), totals(model, decisions)
        if as_json:
            print_json(as_data(file, layers, counts, problem, batch=batch, code=code, cut=cut))
        else:
            show(layers, counts, problem, hint)
        if not can_be_mirrored(layers, problem):
            raise typer.Exit(1)
