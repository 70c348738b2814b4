"""Which weights of stock layers are trained: those that stand for variables of an adjoint that are."""

import keras
from keras.layers import Layer

from keras_adjoint.keras_internals import own_variables
from keras_adjoint.layers.adjoint_of_adjoint import first_source
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.lipschitz import Lipschitz
from keras_adjoint.stock.steps import Step


def trains(adjoint: Tied | Lipschitz) -> bool:
    """Whether an adjoint computes with anything that is trained."""
    return bool(adjoint.trainable_weights)


def freeze_like(layer: Layer, step: Step, adjoint: Tied) -> None:
    """Freeze those weights of a stock layer that stand for variables of an adjoint, or of its source, that are frozen."""
    if not layer.trainable or not layer.trainable_variables:
        return
    switches = [(variable, _is_trained(variable.name, step, adjoint)) for variable in layer.trainable_variables]
    if not any(switch for _, switch in switches):
        layer.trainable = False  # which is in files, unlike the switches of variables
        return
    for variable, switch in switches:
        if not switch:
            variable.trainable = False


def _is_trained(name: str, step: Step, adjoint: Tied) -> bool:
    """Whether what a variable of this name stands for is trained."""
    if name == "bias" or step.reads == "channel_map":
        kept = ("bias", "bias_map") if name == "bias" else ("channel_map",)
        own = [getattr(adjoint, attribute, None) for attribute in kept]
        return any(one.trainable for one in own if isinstance(one, keras.Variable))
    source = first_source(adjoint)
    kernels = {variable.name: variable for variable in own_variables(source)}
    name = step.reads or (name if name in kernels else adjoint.kernel_name)
    if source.quantization_mode is not None or name not in kernels:
        return trains(adjoint)
    # A kernel with LoRA is frozen, and its factors are not; they become one kernel.
    parts = [one for key, one in kernels.items() if key == name or key.startswith(f"lora_{name}")]
    return any(one.trainable for one in parts)
