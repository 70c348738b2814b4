"""`keras-adjoint report`: gather the facts, and write the page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.models.graph import layers_of, trace
from keras_adjoint.report.facts import Facts, facts_about
from keras_adjoint.report.page import page_about
from keras_adjoint.testing.model import LayerCheck, check_layer
from keras_adjoint_cli.actions.encoder import advice
from keras_adjoint_cli.errors import unusable
from keras_adjoint_cli.files.destination import written
from keras_adjoint_cli.policy_options import choices_from, policies_from, read_settings
from keras_adjoint_cli.printable import printable
from keras_adjoint_cli.progress import progress


def make(
    model: keras.Model, file: Path, images: Sequence[Path], *, texts: Sequence[str], limits: tuple[float, float] | None
) -> Facts:
    """The `Facts` about a model, with policies as they were written on the command line."""
    operations = operations_of(model)
    settings = read_settings(texts, operations)
    policies_from(settings, operations)  # reports wrong ones before the work begins
    layers = list(layers_of(model))
    with progress("Testing adjoints", len(layers)) as advance, unusable(ValueError):
        examined = [(name, layer, finding(name, layer, advance)) for name, layer in layers]
    with progress("Mirroring and reconstructing"), unusable(ValueError):
        return facts_about(
            model,
            examined,
            file=file.name,
            images=images,
            limits=limits,
            policies=choices_from(settings),
            hint=advice(model),
        )


def operations_of(model: keras.Model) -> list[Any]:
    """Everything that a policy can be about."""
    layers = layers_inside(model)
    try:
        return [*(call.operation for call in trace(model).calls), *layers]
    except NoRuleError:  # it has no graph; the page says so
        return layers


def finding(name: str, layer: Layer, advance: Callable[[], None]) -> LayerCheck:
    advance()
    # One random pair already tells a wrong operator from rounding; of a large network each takes seconds.
    return check_layer(name, layer, trials=1)


def write(facts: Facts, file: Path) -> int:
    """Write the page in full or not at all, and return its size in bytes."""
    with written(file) as beside:
        beside.write_text(printable(page_about(facts)), encoding="utf-8")
        return beside.stat().st_size
