"""The sections of the page about layers with kernels: pictures, figures and singular values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras

from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.text import size_text
from keras_adjoint.plots.diagram.labels import Labels
from keras_adjoint.plots.kernel_arrays import KernelArray, kernels_of
from keras_adjoint.plots.tiles import extent, mosaic
from keras_adjoint.report.inverses import Inverse, Inverses
from keras_adjoint.report.norms import Norms
from keras_adjoint.report.pictures import Picture, kernel_picture
from keras_adjoint.report.spectrum import Spectrum, spectrum_of
from keras_adjoint.testing.model import LayerCheck

L = keras.layers
TABLE, LIST, MATRIX = "table", "list", "matrix"
SHOWN = {  # the largest number of tiles
    TABLE: {"filters": 8, "channels": 8},
    LIST: {"filters": 24, "channels": 8},
    MATRIX: {"filters": 64, "channels": 64},
}
SIDE, ACROSS, WIDE_ACROSS = 27, 8, 3  # pixels of a tile, and the number of filters in a row

Kinds: TypeAlias = Mapping[str | None, tuple[str, bool]]

# The kinds of `transpose_kernel`, what each does, and whether it gives the adjoint of a convolution.
ALL_KINDS: Kinds = {
    None: ("as it is", False),
    "conv_transpose": ("for a transposed convolution", True),
    "conv": ("flipped and channels swapped, for a plain convolution", True),
    "flip": ("flipped alone", False),
    "swap_spatial": ("spatial axes in reverse, H and W swapped", False),
    "swap_channels": ("channels swapped alone", False),
}
CONVOLUTIONS = (
    *(L.Conv1D, L.Conv2D, L.Conv3D),
    *(L.DepthwiseConv1D, L.DepthwiseConv2D),
    *(L.SeparableConv1D, L.SeparableConv2D),
)


@dataclass(frozen=True)
class KernelPanel:
    """A picture of a kernel, and of all its transposes that are equal to it.

    Attributes:
        picture: The `Picture`.
        kinds: (name or "", what it does) of each kind that gives these numbers.
        adjoint: Whether one of them gives the adjoint.
        extent: How much of the kernel is shown.
    """

    picture: Picture
    kinds: list[tuple[str, str]]
    adjoint: bool
    extent: str


@dataclass(frozen=True)
class Section:
    """A section about one layer with kernels.

    Attributes:
        anchor: The target of links to it.
        name: The layer's name, with those of the models around it.
        type: Its type.
        facts: (what, how much) in words.
        check: The outcome of its adjoint test.
        kernels: (name, shape, panels) of each kernel.
        spectrum: A `Spectrum`.
        inverse: What it takes for a sample, beside the adjoint and the pseudo-inverse of what it gives.
    """

    anchor: str
    name: str
    type: str
    facts: list[tuple[str, str]]
    check: LayerCheck
    kernels: list[tuple[str, str, list[KernelPanel]]]
    spectrum: Spectrum
    inverse: Inverse | None = None


def section_of(
    number: int,
    name: str,
    layer: keras.layers.Layer,
    check: LayerCheck,
    labels: Labels | None = None,
    norms: Norms | None = None,
    inverses: Inverses | None = None,
) -> Section | None:
    """The `Section` of a layer; `None` if it has no kernels to show.

    Args:
        number: Its number in the model.
        name: Its name.
        layer: The layer.
        check: The outcome of its adjoint test.
        labels: Its labels in the diagram, if it is there.
        norms: What computes its norm, if that is wanted.
        inverses: What computes its `Inverse`, if that is wanted.
    """
    matrix = isinstance(layer, (L.Dense, L.EinsumDense, L.Embedding))
    try:
        shown = kernels_of(layer, **(SHOWN[MATRIX] if matrix else SHOWN[TABLE]))
        if any(kernel.colours is not None or kernel.inputs == 1 for kernel in shown):
            shown = kernels_of(layer, **SHOWN[LIST])
    except Exception:  # quantised beyond recovery, or not built
        return None
    if not shown:
        return None
    kernels = [(kernel.name, size_text(kernel.shape), panels_of(layer, kernel, name)) for kernel in shown]
    facts = [*facts_of(layer, labels), *(norms.of(layer) if norms and not check.failed else ())]
    inverse = inverses.of(layer) if inverses and not check.failed else None
    return Section(f"layer-{number}", name, type(layer).__name__, facts, check, kernels, spectrum_of(layer), inverse)


def panels_of(layer: keras.layers.Layer, kernel: KernelArray, name: str) -> list[KernelPanel]:
    """A panel for each different array among a kernel and its transposes."""
    kinds: Kinds = {None: ("as it is", False)}
    if isinstance(layer, CONVOLUTIONS):
        kinds = ALL_KINDS
    elif isinstance(layer, L.Dense) and not isinstance(layer, Tied):
        kinds = {**kinds, "swap_channels": ("transposed, as the adjoint multiplies by it", True)}
    panels: dict[tuple[tuple[int, ...], bytes], tuple[KernelArray, list[str | None]]] = {}
    for kind in kinds:
        found = kernel.transposed(kind)
        panels.setdefault((found.values.shape, found.values.tobytes()), (found, []))[1].append(kind)
    return [panel(found, equal, kinds, f"{kernel.name} of {name}") for found, equal in panels.values()]


def panel(kernel: KernelArray, equal: Sequence[str | None], kinds: Kinds, name: str) -> KernelPanel:
    """The panel of a kernel that is the same for several kinds."""
    does = [kinds[kind][0] for kind in equal]
    alt = f"The {name}, {'; the same as '.join(does)}: {extent(kernel)}"
    across = WIDE_ACROSS if len(kernel.taps) in (1, 3) else ACROSS
    picture = kernel_picture(mosaic(kernel.values, colours=kernel.colours, across=across, side=SIDE), alt)
    names = [(kind if kind is not None and kinds is ALL_KINDS else "", kinds[kind][0]) for kind in equal]
    return KernelPanel(picture, names, any(kinds[kind][1] for kind in equal), extent(kernel))


def facts_of(layer: keras.layers.Layer, labels: Labels | None) -> Iterator[tuple[str, str]]:
    """The sizes of a layer, its settings, and its counterpart in the mirror, in words."""
    if labels is not None:
        yield "sizes", f"{labels.into} → {labels.out}"
    source = layer.source if isinstance(layer, Tied) else layer
    settings = [
        f"{noun} {size_text(value)}"
        for noun, attribute, default in (("stride", "strides", 1), ("dilation", "dilation_rate", 1))
        for value in [getattr(source, attribute, ())]
        if isinstance(value, tuple) and value and set(value) != {default}
    ]
    settings += [f"padding {layer.padding}"] if isinstance(getattr(layer, "padding", None), str) else []
    settings += [f"{layer.groups} groups"] if getattr(layer, "groups", 1) > 1 and isinstance(layer, L.Layer) else []
    if settings:
        yield "settings", ", ".join(settings)
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if activation != "linear":
        yield "activation", activation
    yield "parameters", f"{layer.count_params():,}"
    if labels is not None:
        yield "in the mirror", labels.counterpart
