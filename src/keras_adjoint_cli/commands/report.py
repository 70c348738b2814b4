"""`keras-adjoint report`."""

import importlib.util
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.commands.deconv import Limits
from keras_adjoint_cli.commands.mirror import Policy
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.options import AsJson, Code, Debug, Force, Limit, ModelFile, Modules, Timeout
from keras_adjoint_cli.session import session

EXAMPLES = (
    "report model.keras -o report.html",
    "report model.keras -o report.html --images cat.jpg --images dog.jpg --range -1 1",
    "report autoencoder.keras -o report.html --code bottleneck --open",
    "report encoder.keras -o report.html --policy pooling=switches --policy activation=gradient",
)

Page = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE.html", help="The .html file to write.", readable=False, show_default=False
    ),
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="PHOTO",
        help="A picture file to reconstruct. Can be given several times. By default three photographs of scikit-image.",
    ),
]


def report(
    file: ModelFile,
    output: Page,
    images: Images = None,
    limits: Limits = None,
    code: Code = None,
    policy: Policy = None,
    force: Force = False,
    opened: Annotated[bool, typer.Option("--open", help="Open the page in the browser once it is written.")] = False,
    as_json: AsJson = False,
    modules: Modules = None,
    timeout: Timeout = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Write one HTML file about a model and its mirror: a page with pictures that needs no network and runs no script.

    It has a diagram of the encoder and its mirror, what the policies decided, reconstructions of pictures (yours, or
    photographs that come with scikit-image), every kernel with its transposes, what the adjoint and the pseudo-inverse of a
    layer make of its outputs, and the adjoint test of every layer. Where a layer cannot be mirrored, the page says so and
    shows the rest.

    Exit status: 0 if the page was written; 2 if a file or an option cannot be used, and nothing is written.
    """
    with session(debug=debug, timeout=timeout):
        for module in ("jinja2", "PIL"):
            if importlib.util.find_spec(module) is None:
                raise Unusable('Reports need jinja2 and Pillow: pip install "keras-adjoint[cli]"')

        from keras_adjoint_cli.files.inputs import prepare

        allowed = prepare(file, limit, output, [".html", ".htm"], force=force, pictures=images or [])
        from keras_adjoint_cli.actions.encoder import encoder_of
        from keras_adjoint_cli.actions.report import make, write
        from keras_adjoint_cli.console import print_json
        from keras_adjoint_cli.files.models import load
        from keras_adjoint_cli.output.report import as_data, show

        pictures = images or []
        encoder = encoder_of(load(file, modules, allowed, runs=True), code)
        facts = make(encoder, file, pictures, texts=policy or (), limits=limits)
        size = write(facts, output)
        if as_json:
            print_json(as_data(file, output, facts, size, code))
        else:
            show(output, facts, size)
        if opened:
            webbrowser.open(output.resolve().as_uri())
