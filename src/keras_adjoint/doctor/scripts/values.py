"""What an expression of a script may stand for, and what a script does with it: calls, and assignments to attributes.

Values are compared by identity: two names stand for one layer if they have the same `Layer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from keras_adjoint.doctor.orders import BACKWARD, FORWARD, Role

if TYPE_CHECKING:
    import libcst as cst

OLD_NAMES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}


def layer_type(path: str | None) -> str | None:
    """The name of a Keras layer class, under its present name; `None` if a path is not one."""
    match = re.fullmatch(r"keras\.layers\.(?:\w+\.)?([A-Z]\w*)", path or "")
    return OLD_NAMES.get(match[1], match[1]) if match else None


@dataclass(eq=False)
class Layer:
    """A layer, made in this script or not.

    Attributes:
        kind: The name of its class; `None` if it was made elsewhere.
        options: Its options, as far as they are literals.
        text: The script's expression for it.
        scope: The function that it was made in.
        used: Whether it was called, built, or passed to code that may do that.
        shares: The layer whose variable it was given, or holds as a part of itself.
        has_activation: Whether it was made with an activation, as far as that is known.
        all_options: Whether `options` names every option that it was made with.
    """

    kind: str | None
    options: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    scope: cst.FunctionDef | None = None
    used: bool = False
    shares: Layer | None = None
    has_activation: bool = False
    all_options: bool = True

    @property
    def family(self) -> str:
        """The class without its rank: "Conv", "ConvTranspose", "DepthwiseConv", ..."""
        return re.sub(r"\dD", "", self.kind or "")

    @property
    def rank(self) -> int | None:
        """The number of spatial axes; 0 of a matrix, `None` if it is not known."""
        match = re.search(r"(\d)D", self.kind or "")
        return int(match[1]) if match else 0 if self.kind in ("Dense", "Embedding") else None

    @property
    def role(self) -> Role | None:
        if self.family in ("Conv", "DepthwiseConv", "SeparableConv", "Dense", "Embedding"):
            return FORWARD
        return BACKWARD if self.family == "ConvTranspose" else None

    @property
    def groups(self) -> Any:
        """The groups of a convolution, several for a depthwise one."""
        return 2 if self.family in ("DepthwiseConv", "SeparableConv") else self.options.get("groups", 1)

    def per_axis(self, option: str, default: int | None) -> tuple[int, ...] | None:
        """A literal option as one number per spatial axis; `None` if it is not known."""
        value = self.options.get(option, default)
        value = (value,) * (self.rank or 0) if isinstance(value, int) else value
        if not isinstance(value, (tuple, list)) or len(value) != self.rank:
            return None
        return tuple(value) if all(isinstance(number, int) for number in value) else None


@dataclass(frozen=True, eq=False)
class KernelExpression:
    """An expression for a layer's kernel, perhaps rearranged: axis j is the layer's `axes[j]`, flipped if `flipped[j]`.

    Attributes:
        layer: The layer.
        axes: The order of the axes; `None` while their number is not known.
        flipped: One Boolean per axis.
        node: The expression that made it.
        origin: The expression in it that stands for the layer's kernel, unchanged.
        is_array: Whether it is a NumPy array, rather than a variable or a tensor.
        is_opaque: Whether it was rearranged, and how is not known.
    """

    layer: Layer
    axes: tuple[int, ...] | None
    flipped: tuple[bool, ...]
    node: cst.BaseExpression
    origin: cst.BaseExpression
    is_array: bool
    is_opaque: bool = False

    @property
    def rank(self) -> int | None:
        return None if self.axes is None else len(self.axes) - 2

    @property
    def is_unchanged(self) -> bool:
        if self.axes is None:
            return not self.is_opaque
        return self.axes == tuple(range(len(self.axes))) and not any(self.flipped)

    def with_axes(self, count: int) -> KernelExpression | None:
        """The same with a known number of axes, or `None` if it has another one."""
        if self.axes is None and not self.is_opaque:
            return replace(self, axes=tuple(range(count)), flipped=(False,) * count)
        return self if self.axes is not None and len(self.axes) == count else None

    @property
    def order(self) -> tuple[str, ...] | None:
        """The kinds of `transpose_kernel` that lead to it; `None` if none do."""
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

    shape: tuple[int, ...]
    node: cst.BaseExpression


@dataclass(frozen=True, eq=False)
class Several:
    """A list or tuple of values, such as what `get_weights` returns; `layer` is whose weights they are.

    Lists that double, as in `b = [a, a]`, would hold 2ⁿ values after n lines; of more than `MOST` none is known.
    """

    items: tuple[Value, ...]
    layer: Layer | None = None
    size: int = field(init=False, default=0)  # the values in it, those in lists in it included

    MOST: ClassVar[int] = 10_000

    def __post_init__(self) -> None:
        size = sum(item.size if isinstance(item, Several) else 1 for item in self.items)
        if size > self.MOST:
            object.__setattr__(self, "items", (None,) * len(self.items))
        object.__setattr__(self, "size", min(size, self.MOST))


@dataclass(frozen=True, eq=False)
class Built:
    """A tensor or a model.

    Attributes:
        made_of: The layers, tensors and models that it was made of.
        tied: Whether one of them is an adjoint of this package.
        is_model: Whether it is a model.
    """

    made_of: tuple[Layer | Built, ...] = ()
    tied: bool = False
    is_model: bool = False

    @property
    def parts(self) -> tuple[Layer, ...]:
        """All layers in it, each once."""
        found: dict[Layer | Built, None] = {}
        waiting: list[Layer | Built] = [self]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found[one] = None
                waiting.extend(reversed(one.made_of) if isinstance(one, Built) else ())
        return tuple(one for one in found if isinstance(one, Layer))


@dataclass(frozen=True, eq=False)
class Config:
    """What `get_config` or `to_json` returns."""

    model: Built
    owner: cst.BaseExpression


@dataclass(frozen=True, eq=False)
class Closure:
    """A lambda that reads a name, or an attribute of a layer, which stands for a kernel, or for what was computed from one.

    Attributes:
        kernel: What it stands for.
        name: The name, or the attribute.
    """

    kernel: KernelExpression
    name: str


Value: TypeAlias = "Layer | Closure | KernelExpression | Array | Several | Built | Config | None"
Argument: TypeAlias = "tuple[cst.BaseExpression, Value]"


def kernels_among(values: tuple[Value, ...]) -> tuple[KernelExpression, ...]:
    """The kernels among some values and the items of these."""
    found: list[KernelExpression] = []
    for value in values:
        if isinstance(value, KernelExpression):
            found.append(value)
        elif isinstance(value, Several):
            found.extend(kernels_among(value.items))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class CallEvent:
    """A call.

    Attributes:
        node: The call.
        path: The dotted path of what is called, if it begins with an import.
        method: The name after the last dot, if there is one.
        receiver: The value in front of that dot.
        arguments: (expression, value) of the positional arguments.
        keywords: (expression, value) of the keyword arguments by name.
        origins: The names that the kernels among the arguments were made from, where they still stand for these.
        result: The value of the call.
        unbuilt: Whether the receiver is a layer that was made in the same function and not used until now.
    """

    node: cst.Call
    path: str | None
    method: str | None
    receiver: Value
    arguments: list[Argument]
    keywords: dict[str, Argument]
    origins: frozenset[cst.BaseExpression]
    result: Value
    unbuilt: bool

    @property
    def receiver_node(self) -> cst.BaseExpression | None:
        """The expression in front of the last dot."""
        receiver: cst.BaseExpression | None = getattr(self.node.func, "value", None) if self.method else None
        return receiver


@dataclass(frozen=True, eq=False)
class AssignmentEvent:
    """An assignment to an attribute.

    Attributes:
        target: The attribute.
        owner: The value in front of its dot.
        node: The expression that is assigned.
        value: What that stands for.
        in_layer: The name of the method, if this is in a class of a layer; else "".
    """

    target: cst.Attribute
    owner: Value
    node: cst.BaseExpression | None
    value: Value
    in_layer: str = ""


@dataclass(frozen=True, eq=False)
class TieEvent:
    """The definition of a class of layers that hold another layer and read its kernel.

    Attributes:
        definition: The class.
        held: The attribute that is the other layer.
    """

    definition: cst.ClassDef
    held: str


Event: TypeAlias = CallEvent | AssignmentEvent | TieEvent
