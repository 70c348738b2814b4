"""Adjoint layers whose source is a copy, although they were made to read a layer of the model.

`clone_model` and `from_config` copy layer by layer, and every adjoint layer gets a source of its own, with the name and
the options of the layer that it was tied to. Once the model is trained, the two kernels differ.
"""

import keras
import numpy as np

from keras_adjoint.doctor.finding import WARNING, Finding
from keras_adjoint.doctor.repair.remedies import ByHand, retied_in_place
from keras_adjoint.keras_internals import own_variables
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.tied import Tied

NAME = "tie lost"


def find(patient):
    """A finding for every adjoint layer that is said to be tied, and is not, although its source is in the model."""
    owned = {
        id(weight) for _, layer in patient.layers if not isinstance(layer, Tied) for weight in own_variables(layer)
    }
    for place, layer in patient.layers:
        if not isinstance(layer, Tied) or not layer.tied or not layer.source.weights:
            continue
        if any(id(weight) in owned for weight in layer.source.weights):
            continue
        originals = [(where, other) for where, other in patient.layers if is_original(other, layer.source)]
        if len(originals) == 1:
            yield finding(patient, place, layer, *originals[0])


def is_original(layer, source):
    """Whether a layer is what a source was copied from, going by all that a copy keeps."""
    return (
        type(layer) is type(source)
        and layer.name == source.name
        and [weight.shape for weight in layer.weights] == [weight.shape for weight in source.weights]
    )


def finding(patient, place, layer, where, original):
    size = sum(int(np.prod(weight.shape)) for weight in layer.source.weights)
    distance = largest_distance(original, layer.source, with_bias=getattr(layer, "bias_mode", "none") in READS_SOURCE)
    apart = f"by now they differ by up to {distance:.0%} of their size" if distance else "they are still the same"
    try:
        if distance:
            raise ByHand("nobody but you knows which of the two kernels is to stay")
        remedy, by_hand = retied_in_place(patient, layer, place, original, where), ""
    except ByHand as reason:
        remedy, by_hand = None, f" (by hand: {reason})"
    return Finding(
        place=place,
        illness=NAME,
        severity=WARNING,
        what=f"it is the adjoint of a copy of `{where}`, not of that layer, as `clone_model` and `from_config` leave it",
        effect=f"{size} parameters are stored twice and trained apart; {apart}",
        fix=f"copy models by `keras_adjoint.clone_tied`, and here tie it again to `{where}`{by_hand}",
        figures={"parameters": size, "relative_distance": distance},
        remedy=remedy,
    )


def largest_distance(layer, other, *, with_bias):
    """The largest ‖a − b‖ / ‖a‖ of the weights of two layers; biases count only where the adjoint reads them."""
    pairs = [
        tuple(keras.ops.convert_to_numpy(weight).astype("float64") for weight in pair)
        for pair in zip(layer.weights, other.weights, strict=True)
        if with_bias or pair[0].name != "bias"
    ]
    return max(float(np.linalg.norm(a - b) / (np.linalg.norm(a) or 1.0)) for a, b in pairs)
