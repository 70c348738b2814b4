"""What an expression of a script may stand for, as far as it matters here.

Values are compared by identity: two names stand for one layer if they have the same `Layer`.
"""

import ast
import re
from dataclasses import dataclass, field, replace
from typing import Any

from keras_adjoint.doctor.models.kernels import BACKWARD, FORWARD

POSITIONAL = {
    "Conv": ("filters", "kernel_size", "strides", "padding"),
    "DepthwiseConv": ("kernel_size", "strides", "padding"),
    "SeparableConv": ("filters", "kernel_size", "strides", "padding"),
    "Dense": ("units", "activation", "use_bias"),
    "Embedding": ("input_dim", "output_dim"),
}


@dataclass(eq=False)
class Layer:
    """A layer, made in this script or not.

    Attributes:
        kind: The name of its class; `None` if it was made elsewhere.
        options: Its options, as far as they are literals.
        text: How the script calls it.
        scope: The function that it was made in.
        used: Whether it was called, built, or handed to somebody who may do that.
        shares: The layer whose variable it was given, or holds as a part of itself.
    """

    kind: str | None
    options: dict = field(default_factory=dict)
    text: str = ""
    scope: Any = None
    used: bool = False
    shares: Any = None

    @property
    def family(self):
        """The class without its rank: "Conv", "ConvTranspose", "DepthwiseConv", ..."""
        return re.sub(r"\dD", "", self.kind or "")

    @property
    def rank(self):
        """The number of spatial axes; 0 of a matrix, `None` if it is not known."""
        match = re.search(r"(\d)D", self.kind or "")
        return int(match[1]) if match else 0 if self.kind in ("Dense", "Embedding") else None

    @property
    def role(self):
        if self.family in ("Conv", "DepthwiseConv", "SeparableConv", "Dense", "Embedding"):
            return FORWARD
        return BACKWARD if self.family == "ConvTranspose" else None

    @property
    def groups(self):
        """The groups of a convolution, several for a depthwise one."""
        return 2 if self.family in ("DepthwiseConv", "SeparableConv") else self.options.get("groups", 1)

    def per_axis(self, option, default):
        """A literal option as one number per spatial axis; `None` if it is not known."""
        value = self.options.get(option, default)
        value = (value,) * (self.rank or 0) if isinstance(value, int) else value
        known = isinstance(value, (tuple, list)) and len(value) == self.rank and all(isinstance(n, int) for n in value)
        return tuple(value) if known else None


@dataclass(frozen=True, eq=False)
class Kernel:
    """A layer's kernel, perhaps rearranged: axis j is axis `axes[j]` of the layer's, backwards if `flipped[j]`.

    Attributes:
        layer: The layer.
        axes: The order of the axes; `None` while their number is not known.
        flipped: One Boolean per axis.
        node: The expression that made it.
        origin: The expression in it that stands for the layer's kernel as it is.
        is_array: Whether it is a NumPy array, rather than a variable or a tensor.
        is_opaque: Whether it was rearranged in a way that is not known.
    """

    layer: Layer
    axes: tuple | None
    flipped: tuple
    node: ast.expr
    origin: ast.expr
    is_array: bool
    is_opaque: bool = False

    @property
    def rank(self):
        return None if self.axes is None else len(self.axes) - 2

    @property
    def is_as_it_is(self):
        if self.axes is None:
            return not self.is_opaque
        return self.axes == tuple(range(len(self.axes))) and not any(self.flipped)

    def with_axes(self, count):
        """The same with a known number of axes, or `None` if it has another one."""
        if self.axes is None and not self.is_opaque:
            return replace(self, axes=tuple(range(count)), flipped=(False,) * count)
        return self if self.axes is not None and len(self.axes) == count else None

    @property
    def arrangement(self):
        """The kinds of `transpose_kernel` that it is made by; `None` if it is none of these."""
        if self.axes is None:
            return None if self.is_opaque else ()
        *spatial, inputs, filters = self.axes
        rank = len(spatial)
        kinds = {
            "flip": any(self.flipped),
            "swap_spatial": rank > 1 and spatial == list(range(rank))[::-1],
            "swap_channels": (inputs, filters) == (rank + 1, rank),
        }
        known = (
            (kinds["swap_spatial"] or spatial == list(range(rank)))
            and (kinds["swap_channels"] or (inputs, filters) == (rank, rank + 1))
            and self.flipped in ((kinds["flip"],) * rank + (False, False),)
        )
        return tuple(kind for kind, there in kinds.items() if there) if known else None


@dataclass(frozen=True, eq=False)
class Array:
    """A new array of a known shape."""

    shape: tuple
    node: ast.expr


@dataclass(frozen=True, eq=False)
class Several:
    """A list or tuple of values, such as what `get_weights` returns; `layer` is whose weights they are."""

    items: tuple
    layer: Layer | None = None


@dataclass(frozen=True, eq=False)
class Built:
    """A tensor or a model, with the layers that it was made of; `tied` if one of them is an adjoint of ours."""

    parts: tuple = ()
    tied: bool = False
    is_model: bool = False


@dataclass(frozen=True, eq=False)
class Config:
    """What `get_config` or `to_json` returns."""

    model: Built
    owner: ast.expr
