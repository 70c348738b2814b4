"""Kernels in operations: those of grouped convolutions in transposed ones, and those that a `Lambda` closes over."""

import ast

from keras_adjoint.doctor.finding import ERROR, WARNING, Finding
from keras_adjoint.doctor.models.kernels import BACKWARD
from keras_adjoint.doctor.scripts.evaluation import KERNELS, WEIGHTS
from keras_adjoint.doctor.scripts.events import Called
from keras_adjoint.doctor.scripts.handover import handovers
from keras_adjoint.doctor.scripts.values import Kernel

GROUPED, CLOSED = "groups lost", "kernel in a Lambda"
TRANSPOSED = ("conv_transpose", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose")


def find_grouped(script):
    """A finding for every transposed convolution that gets the kernel of a grouped one."""
    for node, kernel in transposed_kernels(script):
        groups = kernel.layer.groups
        if isinstance(groups, int) and groups > 1:
            by_channel = kernel.layer.family != "Conv"
            has = "filters every channel on its own" if by_channel else f"has {groups} groups"
            yield Finding(
                place=script.place(node),
                illness=GROUPED,
                severity=ERROR,
                what=f"a transposed convolution gets the kernel of `{kernel.layer.text}`, which {has}",
                effect=(
                    "transposed convolutions have no groups: without an error, this returns the sum over the groups, with "
                    "too few channels"
                ),
                fix="the adjoint has groups; its output has all channels, so what follows may have to change (by hand)",
                code=f"keras_adjoint.adjoint({kernel.layer.text})(y)",
            )


def transposed_kernels(script):
    """(expression, kernel) for everything that is transposed without groups."""
    for event in script.events:
        if isinstance(event, Called) and (event.path or "").rpartition(".")[2] in TRANSPOSED:
            for _, value in (*event.arguments, *event.keywords.values()):
                if isinstance(value, Kernel):
                    yield event.node, value
    for handover in handovers(script.events):
        if isinstance(handover.value, Kernel) and handover.target is not None and handover.target.role == BACKWARD:
            yield handover.node, handover.value


def find_closed(script):
    """A finding for every `Lambda` whose function reads the kernel of a layer."""
    for event in script.events:
        if not isinstance(event, Called) or event.path != "keras.layers.Lambda" or not event.arguments:
            continue
        function = event.arguments[0][0]
        read = next((node for node in ast.walk(function) if reads_kernel(node)), None) if is_lambda(function) else None
        if read is not None:
            owner = ast.unparse(read.value)
            yield Finding(
                place=script.place(event.node),
                illness=CLOSED,
                severity=WARNING,
                what=f"a `Lambda` reads the kernel of `{owner}`",
                effect=(
                    "Keras does not know of the variable in there: a model that has it nowhere else neither trains nor saves "
                    "it, and the file refuses to load in safe mode"
                ),
                fix=f"use `keras_adjoint.adjoint({owner})`, which holds the layer (by hand)",
                code=f"keras_adjoint.adjoint({owner})",
            )


def is_lambda(node):
    return isinstance(node, ast.Lambda)


def reads_kernel(node):
    return isinstance(node, ast.Attribute) and node.attr in (*KERNELS, *WEIGHTS, "get_weights")
