"""The code that a finding suggests: calls of this package, by the name that the script has for it, or after an import."""

from keras_adjoint.doctor.scripts.syntax import Source
from keras_adjoint.doctor.scripts.values import Layer

PACKAGE = "keras_adjoint"


def adjoint_of(script: Source, layer: Layer | None, text: str | None = None) -> str:
    """The call that makes the adjoint of a layer, or of its linear part where it ends in an activation.

    Args:
        script: The script.
        layer: The layer, as far as it is known.
        text: The script's expression for it, if not the layer's own.
    """
    part = ", linear_part=True" if layer is not None and layer.has_activation else ""
    text = layer.text if text is None and layer is not None else text
    return f"{script.alias_of(PACKAGE) or PACKAGE}.adjoint({text}{part})"


def with_import(script: Source, code: str) -> str:
    """Lines that call this package, after the import that they need and the script does not have."""
    return code if script.alias_of(PACKAGE) else f"import {PACKAGE}\n{code}"
