"""`keras-adjoint demo`."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.options import AsJson, Debug, Timeout
from keras_adjoint_cli.session import session, start_keras

EXAMPLES = ("demo", "demo --out pictures --steps 3000", "demo --json")

Out = Annotated[
    Path,
    typer.Option(
        help="The folder for demo.png and autoencoder.keras. It is made if it does not exist.", file_okay=False
    ),
]


def demo(
    out: Out = Path("out"),
    steps: Annotated[int, typer.Option(help="How many steps each autoencoder is trained.", min=2)] = 1000,
    seed: Annotated[
        int, typer.Option(help="The seed of the initial kernels, of the patches and of their order.", min=0)
    ] = 0,
    as_json: AsJson = False,
    timeout: Timeout = None,
    debug: Debug = False,
) -> None:
    """Train a tied autoencoder on photographs beside an untied one, in about a minute.

    Compares their sizes, times and reconstructions, measures the adjoint of every layer and other attempts to reuse its
    kernel, writes a picture and the model, and shows that the model is tied after loading.

    Exit status: 0 if the picture and the model were written; 2 if a package that it needs is missing.
    """
    with session(debug=debug, timeout=timeout):
        for module, package in (("skimage", "scikit-image"), ("matplotlib", "matplotlib")):
            if importlib.util.find_spec(module) is None:
                raise Unusable(f'The demo needs {package}: pip install "keras-adjoint[demo]"')
        start_keras()
        from keras_adjoint.demo.job import as_data, run
        from keras_adjoint.plots.figures import own_settings
        from keras_adjoint_cli.console import make_console, print_json

        with own_settings():
            results = run(out, steps=steps, seed=seed, console=make_console(stderr=as_json))
        if as_json:
            print_json(as_data(results))
