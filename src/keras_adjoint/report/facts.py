"""Everything that the page says, gathered from a model."""

import math
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.decisions import BROKEN, EXACT, ladder_of
from keras_adjoint.plots.diagram.drawing import draw
from keras_adjoint.plots.diagram.lettering import NARROW, WIDE
from keras_adjoint.plots.diagram.words import words_of
from keras_adjoint.report.layers import section_of
from keras_adjoint.report.policy_words import decisions_of
from keras_adjoint.report.reconstructions import reconstructions_of
from keras_adjoint.report.samples import samples_for, wanted_by

KERNELS = ("kernel", "embeddings")  # how the names of kernels end


@dataclass(frozen=True)
class Line:
    """A line of the table of all layers: a layer, what the mirror does about it, and the outcome of its adjoint test."""

    name: str
    type: str
    sizes: str
    how: str
    finding: Any
    anchor: str


@dataclass(frozen=True)
class Facts:
    """What the page says.

    Attributes:
        model: The model's name.
        file: The name of its file.
        backend: What computed the figures.
        figures: (number, what it counts) pairs.
        drawings: The ladders as a `Drawing` for wide screens and one for narrow ones; empty if there are none.
        refusal: Why there are no ladders, or "".
        broken: (name, type, why) of each layer that there is no way back over.
        decisions: What the policies decided.
        reconstructions: What comes back for samples.
        no_reconstructions: Why there are none, or "".
        sections: A `Section` for each layer with kernels.
        lines: A `Line` for each layer.
        anchors: Where each layer that has a section is described, by the layer's `id`.
    """

    model: str
    file: str
    backend: str
    figures: list
    drawings: list = field(default_factory=list)
    refusal: str = ""
    broken: list = field(default_factory=list)
    decisions: list = field(default_factory=list)
    reconstructions: list = field(default_factory=list)
    no_reconstructions: str = ""
    sections: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    anchors: dict = field(default_factory=dict)


def facts_about(model, examined, *, file="", images=(), limits=None, policies=None):
    """The `Facts` about a model.

    Args:
        model: A Keras model.
        examined: (name, layer, outcome of its adjoint test) of every layer.
        file: The name of its file.
        images: Paths of pictures to reconstruct.
        limits: The smallest and the largest value of the model's input.
        policies: Those of `keras_adjoint.autoencoder`.

    Raises:
        ValueError: If a policy does not exist, or a picture cannot be used.
    """
    policies, examined = policies or {}, list(examined)
    try:
        ladder, refusal = ladder_of(model, **policies), ""
    except NoRuleError as error:
        ladder, refusal = None, str(error)
    rungs = ladder.rungs if ladder else []
    words = {id(rung.call.operation): words_of(rung) for rung in reversed(rungs)}
    whole, came_back, nothing = reconstruct(ladder, images, limits)
    numbered = enumerate(examined, 1)
    sections = {
        id(layer): section_of(number, name, layer, finding, words.get(id(layer)))
        for number, (name, layer, finding) in numbered
    }
    anchors = {layer: section.anchor for layer, section in sections.items() if section}
    return Facts(
        model=model.name,
        file=file,
        backend=f"Keras {keras.__version__} on {keras.backend.backend()}",
        figures=[*figures_of_mirror(rungs, whole, model), tests_passed(examined)],
        drawings=[draw(ladder, form) for form in (WIDE, NARROW)] if ladder else [],
        refusal=refusal,
        broken=[(rung.call.operation.name, type(rung.call.operation).__name__, rung.reason) for rung in broken(rungs)],
        decisions=decisions_of(ladder, policies) if ladder else [],
        reconstructions=came_back,
        no_reconstructions=nothing,
        sections=[section for section in sections.values() if section],
        lines=list(lines_of(rungs, examined, words, anchors)),
        anchors=anchors,
    )


def broken(rungs):
    return [rung for rung in rungs if rung.how == BROKEN]


def reconstruct(ladder, images, limits):
    """(the autoencoder or `None`, what comes back for samples, why nothing does or "")."""
    if ladder is None:
        return None, [], "the model has no graph of layers that could be mirrored"
    wanted = wanted_by(ladder.graph, limits)
    if isinstance(wanted, str) and images:
        raise ValueError(f"The pictures cannot be shown to this model: {wanted}. Received: {images[0]}")
    samples = [] if isinstance(wanted, str) else samples_for(wanted, images)  # complains about pictures first
    if broken(ladder.rungs):
        names = ", ".join(f"`{rung.call.operation.name}`" for rung in broken(ladder.rungs))
        return None, [], f"there is no way back over {names}"
    try:
        whole = ladder.autoencoder()
    except Exception as error:
        return None, [], f"the mirror cannot be built: {error}"
    if isinstance(wanted, str):
        return whole, [], wanted
    try:
        return whole, reconstructions_of(whole, samples, wanted.limits), ""
    except Exception as error:
        return whole, [], f"the model could not be run on {samples[0].name}: {str(error).partition(chr(10))[0]}"


# --- figures


def figures_of_mirror(rungs, whole, model):
    """How much of a model is undone exactly, and what that costs."""
    if not rungs:
        return
    exact = sum(rung.how == EXACT for rung in rungs)
    yield f"{exact} of {len(rungs)}", "layers are undone by their exact adjoints"
    shared = {id(kernel): kernel for rung in rungs for kernel in kernels_read(rung)}
    yield short(sum(math.prod(kernel.shape) for kernel in shared.values())), "kernel parameters are shared, not copied"
    if whole is not None:
        yield short(whole.count_params() - model.count_params()), "parameters belong to the mirror alone"


def kernels_read(rung):
    tied = [layer for layer in rung.mirror if isinstance(layer, Tied) and layer.tied]
    return [variable for layer in tied for variable in layer.source.weights if variable.name.endswith(KERNELS)]


def tests_passed(examined):
    """How many adjoint tests passed, of those that were run."""
    tested = [finding for _, _, finding in examined if finding.residual is not None or finding.failed]
    return f"{sum(not finding.failed for finding in tested)} of {len(tested)}", "adjoint tests passed"


def short(count):
    """A number with no more than three digits that matter, as in 14.7 M."""
    rounded = int(float(f"{count:.3g}"))
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if rounded >= size:
            return f"{rounded / size:g} {letter}"
    return f"{count}"


def lines_of(rungs, examined, words, anchors):
    """The table: every layer and operation that is called, in that order, and then every other layer."""
    known = {id(layer): (name, finding) for name, layer, finding in examined}
    seen = set()
    for rung in rungs:
        operation = rung.call.operation
        if id(operation) not in seen:
            seen.add(id(operation))
            word = words[id(operation)]
            name, finding = known.get(id(operation), (word.name, None))
            mirror = f"{word.mirror}, {word.how}" if word.mirror else word.how
            yield Line(name, word.type, f"{word.into} → {word.out}", mirror, finding, anchors.get(id(operation), ""))
    for name, layer, finding in examined:
        if id(layer) not in seen:
            yield Line(name, type(layer).__name__, "", "", finding, anchors.get(id(layer), ""))
