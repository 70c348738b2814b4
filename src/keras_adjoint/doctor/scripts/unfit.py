"""`set_weights` that raises: on a layer without weights, or with a kernel of the layout that an article gave."""

import ast

from keras_adjoint.doctor.finding import ERROR, Finding
from keras_adjoint.doctor.models.kernels import BACKWARD
from keras_adjoint.doctor.scripts.handover import handovers
from keras_adjoint.doctor.scripts.values import Array

UNBUILT = "layer not built"
LAYOUT = "filters first"


def find_unbuilt(script):
    """A finding for every `set_weights` of a layer that was made and not used before."""
    for event in script.events:
        if getattr(event, "unbuilt", False) and event.method == "set_weights":
            layer = event.receiver
            name = ast.unparse(event.receiver_node)
            sizes = "size, " * (layer.rank or 0)
            yield Finding(
                place=script.place(event.node),
                illness=UNBUILT,
                severity=ERROR,
                what=f"`{name}` gets its weights before it was built or called",
                effect="a layer makes its weights when it is built; before that, `set_weights` raises a ValueError",
                fix="build it, or call it on an input, before (by hand: this line does not know the shape)",
                code=f"{name}.build((None, {sizes}channels))\n{script.source(event.node)}",
            )


def find_layout(script):
    """A finding for every new array of shape (filters, *taps, in) that a layer of these filters and taps gets."""
    for handover in handovers(script.events):
        layer, array = handover.target, handover.value
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
        edit = script.replace(handover.node, f"({script.source(handover.node)}).transpose{order}")
        yield Finding(
            place=script.place(handover.node),
            illness=LAYOUT,
            severity=ERROR,
            what=f"an array of shape {array.shape} is (filters, {', '.join(letters)}, in)",
            effect=f"the kernel of a `{layer.kind}` has the shape {wanted}, so that `set_weights` raises a ValueError",
            fix='put the axes in order, as `keras_adjoint.convert_layout(kernel, "OHWI", "HWIO")` does by name',
            code=script.lines_after(edit),
            remedy=(edit,),
        )
