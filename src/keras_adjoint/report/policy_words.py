"""The policies in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_adjoint.models.decisions import Decision, Decisions
from keras_adjoint.models.text import choice_text

ABOUT = {
    "activation": "Activations",
    "norm": "Normalisation",
    "pooling": "Maxima and global pools",
    "gates": "Gates",
    "dropout": "Dropout and noise",
    "preprocessing": "Preprocessing",
    "bias": "Biases",
}

MEANS: dict[str, dict[str, str]] = {
    "activation": {
        "same": "The mirror has the encoder's activation in the mirrored place. The activation of the code is not repeated: "
        "the code has passed it already.",
        "linear": "The mirror has no activation there.",
        "deconvnet": "Values pass a ReLU in the mirror (Zeiler and Fergus 2014).",
        "gradient": "Values are multiplied by the derivative at the input that the encoder records: the gradient.",
        "guided": "Values are set to zero at units that were not active, and where they are negative (Springenberg et al. "
        "2015).",
    },
    "norm": {
        "own": "The mirror has a new layer of the same kind, which is trained on its own.",
        "inverse": "The scale and the shift are undone.",
        "adjoint": "Values pass the adjoint at inference, at the statistics of the input that the encoder records.",
        "scale": "Values are multiplied by the scale alone.",
        "skip": "It is left out.",
    },
    "pooling": {
        "spread": "Every value is repeated over the window that it came from. The position of the maximum is lost.",
        "average": "Every value is spread evenly over its window: the adjoint of average pooling.",
        "switches": "Every value is put where the maximum was, which the encoder records.",
    },
    "gates": {
        "skip": "The mirror has no gate. The layers that compute it have no counterpart.",
        "recorded": "Values are multiplied by the gate, which the encoder records.",
        "gradient": "Values go back through every factor, multiplied by the others, which the encoder records.",
    },
    "dropout": {"drop": "It is left out.", "keep": "The mirror has it as well."},
    "preprocessing": {
        "undo": "Scale and shift are undone, so that the reconstruction has the range of the input.",
        "adjoint": "Values are multiplied by the scale: the adjoint.",
        "skip": "It is left out.",
    },
    "bias": {
        "own": "Every adjoint has a new bias, which starts at zero and is trained on its own.",
        "subtract": "The encoder's bias is subtracted before the adjoint.",
        "repeat": "Every adjoint has a bias that starts from the encoder's, repeated.",
        "average": "Every adjoint has a bias that starts from the encoder's, averaged.",
        "learned": "Every adjoint has a bias that is a trainable linear map of the encoder's.",
        "none": "Adjoints have no bias.",
    },
}


@dataclass(frozen=True)
class PolicyWords:
    """What one policy chose for some layers.

    Attributes:
        policy: Its name.
        choice: Its choice.
        about: The layers that it is about, in words.
        meaning: The effect of the choice, in words.
        chosen: Whether the user chose it, rather than the default.
        layers: The names of the layers.
    """

    policy: str
    choice: str
    about: str
    meaning: str
    chosen: bool
    layers: tuple[str, ...]


def policies_in_words(decisions: Decisions, given: Mapping[str, Any]) -> list[PolicyWords]:
    """A `PolicyWords` for every policy and choice that was about some layer.

    Args:
        decisions: The `Decisions` about an encoder.
        given: The policies that the user gave.
    """
    found: dict[tuple[str, str, bool], dict[str, None]] = {}
    for decision in decisions:
        for policy, choice in decision.policies.items():
            if (policy, choice) != ("bias", "none"):
                key = policy, choice_text(choice), was_given(policy, decision, given)
                found.setdefault(key, {})[decision.name] = None
    in_order = sorted(found.items(), key=lambda item: list(ABOUT).index(item[0][0]))
    return [
        PolicyWords(policy, choice, ABOUT[policy], meaning(policy, choice), chosen, tuple(layers))
        for (policy, choice, chosen), layers in in_order
    ]


def was_given(policy: str, decision: Decision, given: Mapping[str, Any]) -> bool:
    """Whether the user, rather than the default, chose a policy for a layer."""
    value = given.get(policy)
    if isinstance(value, Mapping):
        return decision.settings[policy] is not None or "default" in value
    return policy in given


def meaning(policy: str, choice: str) -> str:
    return MEANS[policy].get(choice, f"The mirror has {choice} in that place.")
