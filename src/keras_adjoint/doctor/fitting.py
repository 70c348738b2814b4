"""Whether a layer of a script can be the adjoint of another one with the right kernel: what their options say about it.

A strided convolution has no adjoint among the plain ones, and a transposed one must have the same strides, dilation and a
padding that leads back to the size of the input. Both are seen on each axis by itself, at every remainder of its size.
"""

from dataclasses import dataclass
from typing import TypeAlias

from keras_adjoint.doctor.orders import ADJOINT_ORDER, BACKWARD, Order
from keras_adjoint.doctor.scripts.values import Layer
from keras_adjoint.ops.geometry import Axis, TransposedWindow, Window

AnyWindow: TypeAlias = Window | TransposedWindow

OPTIONS = ("kernel_size", "strides", "dilation_rate", "padding", "groups")  # what decides whether two layers fit


@dataclass(frozen=True)
class Fit:
    """Whether one layer can be the adjoint of another.

    Attributes:
        obstacle: Why it cannot; "" if it can.
        condition: On what it depends, as far as the script does not say it; "" if on nothing.
        known: Whether all options are known, so that the condition is about the sizes of inputs alone.
    """

    obstacle: str = ""
    condition: str = ""
    known: bool = True

    @property
    def possible(self) -> bool:
        return not self.obstacle


def fit_of(source: Layer, target: Layer, order: Order) -> Fit:
    """Whether `target` is the adjoint of `source` once it has its kernel in an order."""
    for layer in (source, target):
        if layer.kind is not None and layer.family not in ("Conv", "ConvTranspose"):
            return Fit(f"a `{layer.kind}` is no plain convolution, and its adjoint has another kernel")
        if isinstance(layer.groups, int) and layer.groups > 1:
            return Fit(f"`{layer.text}` has {layer.groups} groups, and its adjoint takes the kernel in another order")
    if order == ADJOINT_ORDER:
        for layer in (source, target):
            strides = layer.per_axis("strides", 1) if layer.kind else None
            if strides and set(strides) != {1}:
                return Fit(
                    f"`{layer.text}` has strides of {in_short(strides)}, and a kernel that is flipped and has its channels "
                    "swapped gives the adjoint only between layers of strides 1"
                )
    unknown = [layer for layer in (source, target) if windows(layer) is None]
    if unknown:
        names = " and ".join(f"`{layer.text}`" for layer in unknown)
        wants = "strides of 1 in both" if order == ADJOINT_ORDER else "the same strides in both"
        condition = (
            f"it depends on options of {names} that are not read here: it is the adjoint with {wants}, the same kernel "
            "size and dilation, no groups, and a padding that leads back to the size of the input"
        )
        return Fit("", condition, known=False)
    if source.options.get("data_format") != target.options.get("data_format"):
        return Fit(f"`{source.text}` and `{target.text}` have their channels on different axes")
    return fit_of_axes(source, target, order)


def fit_of_axes(source: Layer, target: Layer, order: Order) -> Fit:
    """Whether the windows of two layers whose options are known fit, one axis after the other."""
    fitting = []
    pairs = list(zip(windows(source) or (), windows(target) or (), strict=True))
    for name, where in (("taps", "kernel_size"), ("stride", "strides"), ("dilation", "dilation_rate")):
        given = [tuple(getattr(pair[index], name) for pair in pairs) for index in (0, 1)]
        if given[0] != given[1]:
            ours, theirs = map(in_short, given)
            return Fit(f"`{source.text}` has `{where}` {ours} and `{target.text}` {theirs}")
    for window, other in pairs:
        fitting.append(fitting_sizes(window, other, order))
        if not fitting[-1]:
            return Fit(
                f"with `padding` {window.padding!r} in `{source.text}` and {other.padding!r} in `{target.text}`, the sizes or "
                "the places of the zeros do not fit"
            )
    strides = [1 if isinstance(ours, TransposedWindow) else ours.stride for ours, _ in pairs]
    partial = {
        axis: ", ".join(str(size + step * stride) for step in range(3) for size in sizes)
        for axis, (sizes, stride) in enumerate(zip(fitting, strides, strict=True), 1)
        if len(sizes) < stride
    }
    if not partial:
        return Fit()
    alike = len(partial) == len(pairs) and len(set(partial.values())) == 1
    on_axes = [f"{sizes}, … on axis {axis}" for axis, sizes in partial.items()]
    return Fit("", f"it is the adjoint for inputs of the size {f'{partial[1]}, …' if alike else ' and '.join(on_axes)}")


def fitting_sizes(source: AnyWindow, target: AnyWindow, order: Order) -> list[int]:
    """The sizes, one per remainder, at which a layer undoes the change of size of another, position by position.

    A transposed convolution is read as the convolution that it transposes; it gives each of its inputs one size of output.
    """
    found = []
    for size in range(source.dilated_taps, source.dilated_taps + source.stride):
        large = source.outputs(size) if isinstance(source, TransposedWindow) else size
        axis = source.at(large)
        wanted = flipped(axis) if order == ADJOINT_ORDER else axis
        if isinstance(target, TransposedWindow) and target.outputs(target.inputs(wanted.size)) != wanted.size:
            continue
        if target.at(wanted.size) == wanted:
            found.append(size)
    return found


def flipped(axis: Axis) -> Axis:
    """The axis of the convolution with a flipped kernel that is the adjoint, of a convolution of stride 1."""
    return Axis(axis.outputs, axis.size, axis.taps, 1, axis.dilation, axis.dilated_taps - 1 - axis.pad_before)


def windows(layer: Layer) -> list[AnyWindow] | None:
    """How the kernel moves along each axis; `None` if an option that decides it is not known."""
    taps, strides = layer.per_axis("kernel_size", None), layer.per_axis("strides", 1)
    dilation, padding = layer.per_axis("dilation_rate", 1), layer.options.get("padding", "valid")
    extra = layer.per_axis("output_padding", None) if "output_padding" in layer.options else (None,) * (layer.rank or 0)
    known = layer.all_options and isinstance(padding, str) and layer.groups == 1
    if not known or taps is None or strides is None or dilation is None or extra is None:
        return None
    per_axis = zip(taps, strides, dilation, extra, strict=True)
    if layer.role == BACKWARD:
        return [TransposedWindow(k, s, d, padding.lower(), more) for k, s, d, more in per_axis]
    return [Window(k, s, d, padding.lower()) for k, s, d, _ in per_axis]


def transposed(source: Layer) -> Layer:
    """The transposed convolution with the options of a convolution."""
    kind = f"Conv{source.rank}DTranspose"
    options = {name: value for name, value in source.options.items() if name in (*OPTIONS, "data_format")}
    return Layer(kind, options, text=kind, all_options=source.all_options)


def in_short(numbers: tuple[int, ...]) -> str:
    """2 of (2, 2)."""
    return str(numbers[0]) if len(set(numbers)) == 1 else str(numbers)
