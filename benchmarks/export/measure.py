"""What is measured: sizes of three models in every format, differences, and every layer that an autoencoder may need."""

import keras

from benchmarks.export.formats import FORMATS, attempt, why_not
from benchmarks.export.models import KERNELS, MODELS, autoencoder, layer_by_layer

WIDE = 160


def formats():
    """One record per format."""
    return {kind.name: {"fails": why_not(kind)} for kind in FORMATS}


def networks(kind):
    """Per model the largest difference, or what does not work and whether the encoder alone does."""
    return {make.__name__: record(*reversed(autoencoder(make)), kind) for make in MODELS}


def layers(kind):
    """Per layer the same."""
    return {title: record(model, encoder, kind) for title, encoder, model in layer_by_layer()}


def record(model, encoder, kind):
    keras.utils.clear_session(free_memory=False)
    result = attempt(model, kind)
    if result.works and result.difference < 1e-5:
        return {"difference": result.difference}
    error = result.error or f"differs by {result.difference:.0e}"
    return {"error": error, "encoder": attempt(encoder, kind).works}


def sizes(kind):
    """Per kind of kernel the bytes of the file: of the encoder alone, tied (plainly and within `exporting`), and untied."""
    table = {}
    for name, make in KERNELS.items():
        encoder, tied = autoencoder(make, WIDE)
        _, untied = autoencoder(make, WIDE, tied=False)
        table[name] = {
            "kernel": 4 * (untied.count_params() - tied.count_params()),
            "encoder": attempt(encoder, kind).size,
            "plainly": attempt(tied, kind, plainly=True).size,
            "tied": attempt(tied, kind).size,
            "untied": attempt(untied, kind).size,
        }
    return table
