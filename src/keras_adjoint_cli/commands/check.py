"""`keras-adjoint check`."""

import typer

from keras_adjoint_cli.options import AsJson, Debug, Limit, ModelFile, Modules, Timeout
from keras_adjoint_cli.session import session

EXAMPLES = ("check model.keras", "check model.keras --json", "check model.keras --import my_layers")


def check(
    file: ModelFile,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Run the adjoint test on every layer of a model.

    A layer is tested without its bias. If it has an activation, the test is of the linear part before it, and the table
    says so. An adjoint layer is tested against its source, and one that a policy made by its own adjoint.
    Layers that are not linear, or have no rule, are listed and do not count.

    Exit status: 0 if all tests passed; 1 if one failed, or nothing could be tested; 2 if the file cannot be used.
    """
    with session(debug=debug, timeout=timeout):
        from keras_adjoint_cli.files.inputs import prepare

        allowed = prepare(file, limit)
        from keras_adjoint.models.graph import layers_of
        from keras_adjoint.testing.model import check_layers
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.check import as_data, passes, show
        from keras_adjoint_cli.progress import progress

        model = load(file, modules, allowed)
        with progress("Testing adjoints", len(list(layers_of(model)))) as advance:
            findings = check_layers(model, advance)
        if as_json:
            print_json(as_data(file, findings))
        else:
            show(findings)
        raise typer.Exit(0 if passes(findings) else 1)
