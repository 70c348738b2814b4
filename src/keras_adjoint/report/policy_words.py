"""The policies in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from keras_adjoint.plots.diagram.words import named

ABOUT = {
    "activation": "Activations",
    "norm": "Normalisation",
    "pooling": "Maxima and global pools",
    "gates": "Gates",
    "dropout": "Dropout and noise",
    "preprocessing": "Preprocessing",
    "bias": "Biases",
}

MEANS = {
    (
        "activation",
        "same",
    ): "The mirror has the encoder's own activation in the mirrored place. The code has passed its "
    "activation already, so there it is not applied again.",
    ("activation", "linear"): "There is no activation on the way back.",
    ("activation", "deconvnet"): "What comes back passes a ReLU (Zeiler and Fergus 2014).",
    ("activation", "gradient"): "What comes back is stopped at units that were not active, as a gradient is.",
    ("activation", "guided"): "What comes back is stopped at units that were not active, and where it is negative "
    "(Springenberg et al. 2015).",
    ("norm", "own"): "The mirror has a new layer of the same kind, which is trained on its own.",
    ("norm", "inverse"): "The scale and the shift are undone.",
    ("norm", "adjoint"): "What comes back is multiplied by the scale: the adjoint at inference.",
    ("norm", "skip"): "It is left out.",
    (
        "pooling",
        "spread",
    ): "Every value is repeated over the window that it came from. Where in it the maximum was is lost.",
    ("pooling", "average"): "Every value is spread evenly over its window: the adjoint of average pooling.",
    ("pooling", "switches"): "Every maximum goes back to where it came from, which the mirror is told by the encoder.",
    ("gates", "skip"): "The way back leads through the signal alone. Nothing comes back to what computed the gate.",
    ("gates", "recall"): "What comes back is multiplied by the gate, which the mirror is told by the encoder.",
    ("dropout", "drop"): "It is left out.",
    ("dropout", "keep"): "The mirror has it, too.",
    ("preprocessing", "undo"): "Scale and shift are undone, so that the reconstruction has the range of the input.",
    ("preprocessing", "adjoint"): "What comes back is multiplied by the scale: the adjoint.",
    ("preprocessing", "skip"): "It is left out.",
    ("bias", "own"): "Every adjoint has a new bias, which starts at zero and is trained on its own.",
    ("bias", "subtract"): "The encoder's bias is subtracted before the adjoint.",
    ("bias", "repeat"): "Every adjoint has a bias that starts from the encoder's, repeated.",
    ("bias", "average"): "Every adjoint has a bias that starts from the encoder's, averaged.",
    ("bias", "learned"): "Every adjoint has a bias that is a trainable linear map of the encoder's.",
    ("bias", "none"): "Adjoints have no bias.",
}


@dataclass(frozen=True)
class Decision:
    """What one policy chose for some layers.

    Attributes:
        policy: Its name.
        choice: What it chose.
        about: What it is about, in words.
        meaning: What the choice means, in words.
        chosen: Whether the user gave the policy, rather than leaving it at its default.
        layers: The names of the layers.
    """

    policy: str
    choice: str
    about: str
    meaning: str
    chosen: bool
    layers: tuple


def decisions_of(ladder, given):
    """A `Decision` for every policy and choice that was about some layer.

    Args:
        ladder: A `Ladder`.
        given: The policies that the user gave.
    """
    found: dict[tuple, list] = {}
    for rung in ladder.rungs:
        decided = dict(rung.decided)
        if getattr(rung.main, "bias_mode", "none") != "none":
            decided["bias"] = rung.main.bias_mode
        for policy, choice in decided.items():
            told = was_given(policy, rung.call.operation, ladder.way.policies, given)
            found.setdefault((policy, named(choice), told), []).append(rung.call.operation.name)
    in_order = sorted(found.items(), key=lambda item: list(ABOUT).index(item[0][0]))
    return [decision(*what, tuple(dict.fromkeys(layers))) for what, layers in in_order]


def was_given(policy, operation, policies, given):
    """Whether the user said what a policy chose for a layer, rather than its default."""
    value = given.get(policy)
    if isinstance(value, Mapping):
        return policies.key(policy, operation) is not None or "default" in value
    return policy in given


def decision(policy, choice, chosen, layers):
    meaning = MEANS.get((policy, choice), f"The mirror has {choice} in that place.")
    return Decision(policy, choice, ABOUT[policy], meaning, chosen, layers)
