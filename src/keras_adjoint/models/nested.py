"""What a nested model takes for each of its inputs, when it is called in any of the ways that Keras allows."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import Functional


def tensors_for_inputs(model: Functional, passed: Any, place: str) -> list[keras.KerasTensor]:
    """The tensors that a model reads as its inputs, in the order of `model.inputs`.

    As in Keras, a dictionary goes to a list of inputs by the inputs' names, and to a dictionary of inputs by its keys;
    everything else goes by position.

    Args:
        model: A Functional model.
        passed: What it is called with.
        place: Where, for messages.
    """
    structure = model.input
    if isinstance(passed, Mapping) and not isinstance(structure, Mapping):
        tensors = [passed[x.name] for x in tree.flatten(structure) if x.name in passed]
    elif isinstance(passed, Mapping):
        tensors = tree.flatten({key: passed[key] for key in structure if key in passed})
    else:
        tensors = tree.flatten(passed)
    if len(tensors) != len(model.inputs) or not all(isinstance(x, keras.KerasTensor) for x in tensors):
        raise NoRuleError(
            f"`{place}` is called with other tensors than its {len(model.inputs)} inputs, so its layers cannot be walked. "
            f"Call it with one tensor for each input. Received: {tree.map_structure(_shape_of, passed)}"
        )
    return [_of_rank(x, like) for x, like in zip(tensors, model.inputs, strict=True)]


def _of_rank(x: keras.KerasTensor, like: keras.KerasTensor) -> keras.KerasTensor:
    """Keras adds or drops a last axis of size 1 where an input needs it."""
    missing = len(like.shape) - len(x.shape)
    if missing == 1 and like.shape[-1] == 1:
        return ops.expand_dims(x, -1)
    if missing == -1 and x.shape[-1] == 1:
        return ops.squeeze(x, -1)
    return x


def _shape_of(x: Any) -> Any:
    return tuple(x.shape) if hasattr(x, "shape") else x
