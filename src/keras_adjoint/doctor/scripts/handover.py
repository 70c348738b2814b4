"""Every place where a script gives a layer a kernel, and text that would give it the right one."""

import ast
from dataclasses import dataclass
from typing import Any

from keras_adjoint.doctor.models.arrangements import AS_IT_IS, TURNED
from keras_adjoint.doctor.scripts.events import Called
from keras_adjoint.doctor.scripts.values import Array, Kernel, Layer, Several


@dataclass(frozen=True, eq=False)
class Handover:
    """A kernel on its way into a layer.

    Attributes:
        event: The call.
        target: The layer; `None` if nothing is known about it.
        target_text: How the script calls it.
        node: The expression of what it is given.
        value: What that stands for, a `Kernel` or an `Array`.
    """

    event: Called
    target: Layer | None
    target_text: str
    node: ast.expr
    value: Any


def handovers(events):
    """Every `Handover` in a script: `set_weights`, `assign`, `weights=`, `kernel_initializer=` and `set_value`."""
    for event in events:
        if isinstance(event, Called):
            for target, text, (node, value) in given(event):
                if isinstance(value, Several):
                    value = value.items[0] if value.items else None
                    inside = isinstance(node, (ast.List, ast.Tuple)) and node.elts
                    node = node.elts[0] if inside else getattr(value, "node", node)
                if isinstance(value, (Kernel, Array)):
                    yield Handover(event, target, text, node, value)


def given(event):
    """(layer, its text, what it is given) for each way of giving it."""
    receiver, name = event.receiver, (event.path or "").rpartition(".")[2]
    if event.method == "set_weights" and event.path is None and event.arguments:
        target = receiver if isinstance(receiver, Layer) else None
        yield target, ast.unparse(event.receiver_node), event.arguments[0]
    elif event.method == "assign" and isinstance(receiver, Kernel) and event.arguments:
        yield receiver.layer, receiver.layer.text, event.arguments[0]
    elif name == "set_value" and len(event.arguments) > 1 and isinstance(event.arguments[0][1], Kernel):
        layer = event.arguments[0][1].layer
        yield layer, layer.text, event.arguments[1]
    if isinstance(event.result, Layer) and event.result.kind:
        for option in ("weights", "kernel_initializer"):
            if option in event.keywords:
                yield event.result, f"the new {event.result.kind}", event.keywords[option]


def corrected(script, handover, right):
    """The `Edit` that hands over the right arrangement; `None` where it cannot be written safely.

    The layer's kernel as it is must be within reach: inside of the expression, or by a name that still stands for it.
    """
    kernel, node = handover.value, handover.node
    here = handover.event.names.get(getattr(kernel.origin, "id", None))
    within = any(part is kernel.origin for part in ast.walk(node))
    still = isinstance(here, Kernel) and here.layer is kernel.layer and here.is_as_it_is
    if right is None or not (within or still) or (right == TURNED and not kernel.is_array):
        return None
    return script.replace(node, written(script.source(kernel.origin), right, kernel.rank))


def written(kernel, arrangement, rank):
    """NumPy's way to write an arrangement of a kernel."""
    if arrangement == AS_IT_IS:
        return kernel
    order = (*range(rank), rank + 1, rank)
    return f"{kernel}[{', '.join(['::-1'] * rank)}].transpose({', '.join(map(str, order))})"
