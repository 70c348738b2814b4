"""What the page says about each layer that has kernels: its pictures, its figures, its spectrum."""

from dataclasses import dataclass

import keras

from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.text import size_text
from keras_adjoint.plots.layer_kernels import kernels_of
from keras_adjoint.plots.tiles import mosaic
from keras_adjoint.plots.words import extent
from keras_adjoint.report.pictures import Picture, kernel_picture
from keras_adjoint.report.spectrum import Spectrum, spectrum_of

L = keras.layers
TABLE, LIST, MATRIX = "table", "list", "matrix"
FEW = {  # how many tiles are shown
    TABLE: {"filters": 8, "channels": 8},
    LIST: {"filters": 24, "channels": 8},
    MATRIX: {"filters": 64, "channels": 64},
}
SIDE, ACROSS, WIDE_ACROSS = 27, 8, 3  # pixels of a tile, and how many filters stand in a row

# The kinds of `transpose_kernel`, what each does, and whether it gives the adjoint of a convolution.
KINDS = {
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
class Panel:
    """A picture of a kernel, and everything that it is a picture of.

    Attributes:
        picture: The `Picture`.
        kinds: (name of a kind or "", what it does) of each kind that gives these same numbers.
        adjoint: Whether one of them gives the adjoint.
        extent: How much of the kernel is shown.
    """

    picture: Picture
    kinds: list
    adjoint: bool
    extent: str


@dataclass(frozen=True)
class Section:
    """What there is to say about one layer with kernels.

    Attributes:
        anchor: What links to it use.
        name: The layer's name, with those of the models around it.
        type: Its type.
        facts: (what, how much) in words.
        finding: The outcome of its adjoint test.
        kernels: (name, shape, list of `Panel`) of each kernel.
        spectrum: A `Spectrum`.
    """

    anchor: str
    name: str
    type: str
    facts: list
    finding: object
    kernels: list
    spectrum: Spectrum


def section_of(number, name, layer, finding, words=None):
    """The `Section` of a layer; `None` if it has no kernels to show.

    Args:
        number: Of the layer in the model.
        name: Its name.
        layer: The layer.
        finding: The outcome of its adjoint test.
        words: The `Words` of its rung, if it has one.
    """
    matrix = isinstance(layer, (L.Dense, L.EinsumDense, L.Embedding))
    try:
        shown = kernels_of(layer, **(FEW[MATRIX] if matrix else FEW[TABLE]))
        if any(kernel.colours is not None or kernel.inputs == 1 for kernel in shown):
            shown = kernels_of(layer, **FEW[LIST])
    except Exception:  # quantised beyond recovery, or not built
        return None
    if not shown:
        return None
    kernels = [(kernel.name, size_text(kernel.shape), panels_of(layer, kernel, name)) for kernel in shown]
    return Section(
        f"layer-{number}", name, type(layer).__name__, facts_of(layer, words), finding, kernels, spectrum_of(layer)
    )


def panels_of(layer, kernel, name):
    """A `Panel` for each different array among a kernel and its transposes."""
    if isinstance(layer, CONVOLUTIONS):
        kinds = KINDS
    elif isinstance(layer, Tied) or not isinstance(layer, L.Dense):
        kinds = {None: ("as it is", False)}
    else:
        kinds = {None: ("as it is", False), "swap_channels": ("transposed, as the adjoint multiplies by it", True)}
    panels: dict[tuple, tuple] = {}
    for kind in kinds:
        turned = kernel.transposed(kind)
        panels.setdefault((turned.values.shape, turned.values.tobytes()), (turned, []))[1].append(kind)
    return [panel(turned, same, kinds, f"{kernel.name} of {name}") for turned, same in panels.values()]


def panel(kernel, same, kinds, whose):
    does = [kinds[kind][0] for kind in same]
    alt = f"The {whose}, {'; the same as '.join(does)}: {extent(kernel)}"
    across = WIDE_ACROSS if len(kernel.taps) in (1, 3) else ACROSS
    picture = kernel_picture(mosaic(kernel.values, colours=kernel.colours, across=across, side=SIDE), alt)
    names = [("" if kind is None or len(kinds) < len(KINDS) else kind, kinds[kind][0]) for kind in same]
    return Panel(picture, names, any(kinds[kind][1] for kind in same), extent(kernel))


def facts_of(layer, words):
    """What a layer is made with, its sizes, and how the mirror undoes it, as pairs of words."""
    if words is not None:
        yield "sizes", f"{words.into} → {words.out}"
    source = layer.source if isinstance(layer, Tied) else layer
    moves = [
        f"{noun} {size_text(value)}"
        for noun, attribute, usual in (("stride", "strides", 1), ("dilation", "dilation_rate", 1))
        for value in [getattr(source, attribute, ())]
        if isinstance(value, tuple) and value and set(value) != {usual}
    ]
    moves += [f"padding {layer.padding}"] if isinstance(getattr(layer, "padding", None), str) else []
    moves += [f"{layer.groups} groups"] if getattr(layer, "groups", 1) > 1 and isinstance(layer, L.Layer) else []
    if moves:
        yield "moves", ", ".join(moves)
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if activation != "linear":
        yield "activation", activation
    yield "parameters", f"{layer.count_params():,}"
    if words is not None:
        yield "in the mirror", f"{words.mirror}, {words.how}" if words.mirror else words.how
