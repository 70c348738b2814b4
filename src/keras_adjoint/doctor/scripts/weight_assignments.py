"""Rules about weights that a script assigns to a layer: kernels in a wrong order, layers not built, arrays that do not fit."""

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from keras_adjoint.doctor.finding import ERROR, Finding
from keras_adjoint.doctor.fitting import Fit, fit_of, transposed
from keras_adjoint.doctor.orders import ADJOINT_ORDER, BACKWARD, FORWARD, UNCHANGED, Order, in_words
from keras_adjoint.doctor.rules import FILTERS_FIRST, GROUPS_LOST, LAYER_NOT_BUILT, WRONG_TRANSPOSE
from keras_adjoint.doctor.scripts.flow import Script
from keras_adjoint.doctor.scripts.syntax import Edit, ScriptChange, descendants, text_of
from keras_adjoint.doctor.scripts.values import Argument, Array, CallEvent, Event, KernelExpression, Layer, Several
from keras_adjoint.doctor.suggestion import adjoint_of, with_import

BY_CHANNEL = ("DepthwiseConv", "SeparableConv")
H_AND_W_OF_OHWI = (0, 2, 1, 3)  # what swaps H and W of a kernel whose filters come first
TRANSPOSED = ("conv_transpose", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose")


@dataclass(frozen=True, eq=False)
class WeightAssignment:
    """A kernel that a script assigns to a layer.

    Attributes:
        event: The call.
        target: The layer; `None` if nothing is known about it.
        target_text: The script's expression for it.
        node: The expression of what it is given.
        value: What that stands for.
    """

    event: CallEvent
    target: Layer | None
    target_text: str
    node: cst.BaseExpression
    value: KernelExpression | Array


def weight_assignments(events: list[Event]) -> Iterator[WeightAssignment]:
    """Every one in a script: `set_weights`, `assign`, `weights=`, `kernel_initializer=` and `set_value`."""
    for event in events:
        if isinstance(event, CallEvent):
            for target, text, (node, value) in assigned(event):
                if isinstance(value, Several):
                    value = value.items[0] if value.items else None
                    if isinstance(node, (cst.List, cst.Tuple)) and node.elements:
                        node = node.elements[0].value
                    elif isinstance(value, (KernelExpression, Array)):
                        node = value.node
                if isinstance(value, (KernelExpression, Array)):
                    yield WeightAssignment(event, target, text, node, value)


def assigned(event: CallEvent) -> Iterator[tuple[Layer | None, str, Argument]]:
    """(layer, its text, what it is given) for each kind of assignment."""
    receiver, name = event.receiver, (event.path or "").rpartition(".")[2]
    first, second, *_ = [*event.arguments, None, None]
    if event.method == "set_weights" and event.path is None and event.receiver_node is not None and first:
        yield receiver if isinstance(receiver, Layer) else None, text_of(event.receiver_node), first
    elif event.method == "assign" and isinstance(receiver, KernelExpression) and first:
        yield receiver.layer, receiver.layer.text, first
    elif name == "set_value" and first and second and isinstance(first[1], KernelExpression):
        yield first[1].layer, first[1].layer.text, second
    if isinstance(event.result, Layer) and event.result.kind:
        for option in ("weights", "kernel_initializer"):
            if option in event.keywords:
                yield event.result, f"the new {event.result.kind}", event.keywords[option]


# --- wrong transpose


def find_wrong_transposes(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every kernel that a layer is given in a wrong order."""
    for assignment in weight_assignments(script.events):
        kernel, target = assignment.value, assignment.target
        if not isinstance(kernel, KernelExpression) or not kernel.rank or kernel.layer is target:
            continue  # a layer that gets its own kernel back was converted on purpose
        if kernel.axes == H_AND_W_OF_OHWI and not any(kernel.flipped):
            yield wrong_transpose(
                script,
                assignment,
                kernel,
                "axes 1 and 2 of a Keras kernel are swapped, which are W and the input channels",
                "Keras' kernels are (H, W, in, filters), not (filters, H, W, in), so that this has the wrong shape or "
                "mixes a spatial axis with the channels",
            )
        elif kernel.order is not None and is_wrong(kernel, kernel.order, target):
            yield wrong_transpose(
                script,
                assignment,
                kernel,
                f"the kernel of `{kernel.layer.text}` is assigned {in_words(kernel.order)}",
                effect(kernel.order, target),
            )


def right_order(source: Layer, target: Layer | None) -> Order | None:
    """What makes the source's kernel that of the adjoint; `None` if the layer that gets it is not known."""
    if target is None or target.role is None:
        return None
    return ADJOINT_ORDER if (source.role or FORWARD) == target.role else UNCHANGED


def is_wrong(kernel: KernelExpression, order: Order, target: Layer | None) -> bool:
    """Whether a kernel is in an order that is neither a copy's nor the adjoint's, as far as that is certain."""
    source = kernel.layer
    roles = source.role, target.role if target is not None else None
    if set(source.per_axis("kernel_size", 0) or (0,)) == {1}:
        return False
    if "swap_spatial" in order:
        return True
    if source.family in BY_CHANNEL or (target is not None and target.family in BY_CHANNEL):
        return False
    if order == ("flip",):
        return roles[1] == BACKWARD
    if order == ("swap_channels",):
        return roles in ((FORWARD, FORWARD), (None, FORWARD), (FORWARD, BACKWARD))
    return order == ADJOINT_ORDER and roles == (FORWARD, BACKWARD)


def effect(order: Order, target: Layer | None) -> str:
    if "swap_spatial" in order:
        return (
            "with H and W swapped it is the operator on transposed pictures, not the transposed operator: the output "
            "is another one"
        )
    if target is not None and target.role == BACKWARD:
        return (
            "a transposed convolution flips the kernel itself; flipped before, it is another operator than the adjoint"
        )
    return (
        "it is another operator than the adjoint; where a plain convolution can be that, its kernel is flipped as well"
    )


def wrong_transpose(
    script: Script, assignment: WeightAssignment, kernel: KernelExpression, what: str, effect: str
) -> Finding[ScriptChange]:
    source, target = kernel.layer, assignment.target
    right = right_order(source, target)
    fit = fit_of(source, target, right) if target is not None and right is not None else Fit(known=False)
    edit = correction(script, assignment, kernel, right) if fit.possible and fit.known else None
    rank = kernel.rank or 0
    origin, tied = text_of(kernel.origin), adjoint_of(script, source)
    if right is None:
        plain = template(ADJOINT_ORDER, rank).format(kernel=origin)
        fix = (
            f"a `Conv{rank}DTranspose` of the same strides and padding takes `{origin}` unchanged, and a plain convolution, "
            f"if all strides are 1, `{plain}`"
        )
    elif fit.possible:
        fix = f"assign `{template(right, rank).format(kernel=origin)}`" + (f"; {fit.condition}" * bool(fit.condition))
    else:
        fix = f"`{assignment.target_text}` cannot be the adjoint with any order of this kernel, as {fit.obstacle}"
        fix += alternative(source, origin)
    fix += f"; better, `{tied}` stays tied"
    return Finding(
        place=script.place(assignment.node),
        rule=WRONG_TRANSPOSE.name,
        severity=ERROR,
        what=what,
        effect=effect,
        fix=fix if edit else f"{fix} (by hand)",
        code=script.lines_after(edit) if edit else with_import(script, f"{assignment.target_text} = {tied}"),
        change=edit,
    )


def alternative(source: Layer, origin: str) -> str:
    """The stock layer that could be the adjoint, in words; "" if there is none."""
    if source.family != "Conv":
        return ""
    other = transposed(source)
    fit = fit_of(source, other, UNCHANGED)
    if not fit.possible or not fit.known:
        return ""
    on_sizes = f" ({fit.condition})" if fit.condition else ""
    return f"; a `{other.kind}` with the options of `{source.text}` takes `{origin}` unchanged{on_sizes}"


def correction(
    script: Script, assignment: WeightAssignment, kernel: KernelExpression, right: Order | None
) -> Edit | None:
    """The `Edit` that assigns the right order; `None` where it cannot be written safely.

    The unchanged kernel must be available: inside of the expression, or by a name that still stands for it.
    """
    within = any(part is kernel.origin for part in descendants(assignment.node))
    available = within or kernel.origin in assignment.event.origins
    if right is None or not available or (right == ADJOINT_ORDER and not kernel.is_array):
        return None
    return script.edit(assignment.node, template(right, kernel.rank or 0), kernel=kernel.origin)


def template(order: Order, rank: int) -> str:
    """NumPy code for an order of `{kernel}`."""
    if order == UNCHANGED:
        return "{kernel}"
    axes = (*range(rank), rank + 1, rank)
    return f"{{kernel}}[{', '.join(['::-1'] * rank)}].transpose({', '.join(map(str, axes))})"


# --- layer not built, filters first, groups lost


def find_unbuilt(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every `set_weights` of a layer that was made and not used before."""
    for event in script.events:
        if not isinstance(event, CallEvent) or event.method != "set_weights" or event.receiver_node is None:
            continue
        if event.unbuilt and isinstance(event.receiver, Layer):
            name = text_of(event.receiver_node)
            sizes = "size, " * (event.receiver.rank or 0)
            yield Finding(
                place=script.place(event.node),
                rule=LAYER_NOT_BUILT.name,
                severity=ERROR,
                what=f"`{name}` gets its weights before it was built or called",
                effect="a layer makes its weights when it is built; before that, `set_weights` raises a ValueError",
                fix="build it, or call it on an input, before (by hand: this line does not know the shape)",
                code=f"{name}.build((None, {sizes}channels))\n{script.code(event.node)}",
            )


def find_filters_first(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every new array of shape (filters, *taps, in) for a layer of these filters and taps."""
    for assignment in weight_assignments(script.events):
        layer, array = assignment.target, assignment.value
        if not isinstance(array, Array) or layer is None or not layer.rank or layer.role is None:
            continue
        filters, taps, rank = layer.options.get("filters"), layer.per_axis("kernel_size", None), layer.rank
        if not isinstance(filters, int) or taps is None or len(array.shape) != rank + 2:
            continue
        axis = rank if layer.role == BACKWARD else rank + 1
        fits = array.shape[:rank] == taps and array.shape[axis] == filters
        if fits or array.shape[0] != filters or array.shape[1:-1] != taps:
            continue
        order = (*range(1, rank + 1), *((0, rank + 1) if layer.role == BACKWARD else (rank + 1, 0)))
        letters = "".join("DHW"[3 - rank :])
        wanted = f"({', '.join(letters)}, {'filters, in' if layer.role == BACKWARD else 'in, filters'})"
        edit = script.edit(assignment.node, f"({{array}}).transpose{order}", array=assignment.node)
        yield Finding(
            place=script.place(assignment.node),
            rule=FILTERS_FIRST.name,
            severity=ERROR,
            what=f"an array of shape {array.shape} is (filters, {', '.join(letters)}, in)",
            effect=f"the kernel of a `{layer.kind}` has the shape {wanted}, so that `set_weights` raises a ValueError",
            fix='put the axes in order, as `keras_adjoint.convert_layout(kernel, "OHWI", "HWIO")` does by name',
            code=script.lines_after(edit),
            change=edit,
        )


def find_lost_groups(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every transposed convolution that is given the kernel of a grouped one."""
    for node, kernel in transposed_kernels(script.events):
        groups = kernel.layer.groups
        if isinstance(groups, int) and groups > 1:
            has = f"has {groups} groups" if kernel.layer.family == "Conv" else "filters every channel by itself"
            yield Finding(
                place=script.place(node),
                rule=GROUPS_LOST.name,
                severity=ERROR,
                what=f"a transposed convolution gets the kernel of `{kernel.layer.text}`, which {has}",
                effect=(
                    "transposed convolutions have no groups: without an error, this returns the sum over the groups, with "
                    "too few channels"
                ),
                fix="the adjoint has groups; its output has all channels, so what follows may have to change (by hand)",
                code=with_import(script, f"{adjoint_of(script, kernel.layer)}(y)"),
            )


def transposed_kernels(events: list[Event]) -> Iterator[tuple[cst.BaseExpression, KernelExpression]]:
    """(expression, kernel) for everything that is transposed without groups."""
    for event in events:
        if isinstance(event, CallEvent) and (event.path or "").rpartition(".")[2] in TRANSPOSED:
            for _, value in (*event.arguments, *event.keywords.values()):
                if isinstance(value, KernelExpression):
                    yield event.node, value
    for assignment in weight_assignments(events):
        is_transposed = assignment.target is not None and assignment.target.role == BACKWARD
        if is_transposed and isinstance(assignment.value, KernelExpression):
            yield assignment.node, assignment.value
