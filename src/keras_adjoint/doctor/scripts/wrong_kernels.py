"""Kernels that are rearranged into something else than the adjoint's before another layer gets them."""

import ast

from keras_adjoint.doctor.finding import ERROR, Finding
from keras_adjoint.doctor.models.arrangements import AS_IT_IS, TURNED, in_words
from keras_adjoint.doctor.models.kernels import BACKWARD, FORWARD
from keras_adjoint.doctor.scripts.handover import corrected, handovers, written
from keras_adjoint.doctor.scripts.values import Kernel

NAME = "wrong transpose"
BY_CHANNEL = ("DepthwiseConv", "SeparableConv")
AS_IN_OHWI = (0, 2, 1, 3)  # what swaps H and W of a kernel whose filters come first


def find(script):
    """A finding for every kernel that a layer gets in a wrong arrangement."""
    for handover in handovers(script.events):
        kernel = handover.value
        if not isinstance(kernel, Kernel) or not kernel.rank or kernel.layer is handover.target:
            continue  # a layer that gets its own kernel back was converted on purpose
        right = right_arrangement(kernel.layer, handover.target)
        if kernel.axes == AS_IN_OHWI and not any(kernel.flipped):
            yield finding(
                script,
                handover,
                right,
                "axes 1 and 2 of a Keras kernel are swapped, which are W and the input channels",
                "Keras' kernels are (H, W, in, filters), not (filters, H, W, in), so that this has the wrong shape or "
                "mixes a spatial axis with the channels",
            )
        elif is_wrong(kernel, handover.target):
            yield finding(
                script,
                handover,
                right,
                f"the kernel of `{kernel.layer.text}` is handed over {in_words(kernel.arrangement)}",
                effect(kernel, handover.target),
            )


def right_arrangement(source, target):
    """What makes the source's kernel that of the adjoint; `None` if the layer that gets it is not known."""
    if target is None or target.role is None:
        return None
    return TURNED if (source.role or FORWARD) == target.role else AS_IT_IS


def is_wrong(kernel, target):
    """Whether a kernel is rearranged in a way that is neither a copy nor the adjoint, as far as that is certain."""
    source, arrangement = kernel.layer, kernel.arrangement
    roles = source.role, target.role if target is not None else None
    if arrangement is None or set(source.per_axis("kernel_size", 0) or (0,)) == {1}:
        return False
    if "swap_spatial" in arrangement:
        return True
    if source.family in BY_CHANNEL or (target is not None and target.family in BY_CHANNEL):
        return False
    if arrangement == ("flip",):
        return roles[1] == BACKWARD
    if arrangement == ("swap_channels",):
        return roles in ((FORWARD, FORWARD), (None, FORWARD), (FORWARD, BACKWARD))
    return arrangement == TURNED and roles == (FORWARD, BACKWARD)


def effect(kernel, target):
    if "swap_spatial" in kernel.arrangement:
        return "H and W swapped is the kernel of transposed pictures, not of the transposed operator: the output is another one"
    if target.role == BACKWARD:
        return (
            "a transposed convolution turns the kernel itself; turned before, it is another operator than the adjoint"
        )
    return (
        "a plain convolution needs the kernel flipped as well; with the channels swapped alone, it is another operator"
    )


def finding(script, handover, right, what, effect):
    kernel = handover.value
    edit = corrected(script, handover, right)
    origin, tied = ast.unparse(kernel.origin), f"keras_adjoint.adjoint({kernel.layer.text})"
    if right is None:
        fix = (
            f"a `Conv{kernel.rank}DTranspose` takes `{origin}` as it is, a plain convolution "
            f"`{written(origin, TURNED, kernel.rank)}`; better, `{tied}` stays tied"
        )
    else:
        fix = f"hand over `{written(origin, right, kernel.rank)}`; better, `{tied}` stays tied"
    return Finding(
        place=script.place(handover.node),
        illness=NAME,
        severity=ERROR,
        what=what,
        effect=effect,
        fix=fix if edit else f"{fix} (by hand)",
        code=script.lines_after(edit) if edit else f"{handover.target_text} = {tied}",
        remedy=edit and (edit,),
    )
