"""The contents of the page, gathered from a model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.code import Cut
from keras_adjoint.models.decisions import Decision, Decisions, Kind, decide
from keras_adjoint.models.facts import totals
from keras_adjoint.plots.diagram.labels import Labels, labels_of
from keras_adjoint.plots.diagram.layout import draw
from keras_adjoint.plots.diagram.shapes import Drawing
from keras_adjoint.plots.diagram.text import NARROW, WIDE
from keras_adjoint.report.inverses import Inverses
from keras_adjoint.report.layers import Section, section_of
from keras_adjoint.report.norms import Norms
from keras_adjoint.report.pictures import Reconstruction, reconstructions_of
from keras_adjoint.report.policy_words import PolicyWords, policies_in_words
from keras_adjoint.report.samples import input_format_of, samples_for
from keras_adjoint.testing.model import LayerCheck

Checked: TypeAlias = tuple[str, keras.layers.Layer, LayerCheck]  # a layer's name, the layer, the outcome of its test


@dataclass(frozen=True)
class Line:
    """A line of the table of all layers: a layer, what the mirror does about it, and the outcome of its adjoint test."""

    name: str
    type: str
    sizes: str
    how: str
    check: LayerCheck | None
    anchor: str


@dataclass(frozen=True)
class Figures:
    """The figures at the top of the page; `None` where there is no mirror.

    Attributes:
        calls: Calls of layers and operations.
        exact_calls: Those of them whose linear part is mirrored by its exact adjoint.
        tied_parameters: Parameters that the mirror shares with the model.
        own_parameters: Parameters that it adds; `None` as well if it cannot be built.
        adjoint_tests: Adjoint tests that were run.
        adjoint_tests_passed: Those of them that passed.
    """

    calls: int | None
    exact_calls: int | None
    tied_parameters: int | None
    own_parameters: int | None
    adjoint_tests: int
    adjoint_tests_passed: int

    def in_words(self) -> Iterator[tuple[str, str]]:
        """(number, what it counts) of each figure that there is."""
        if self.exact_calls is not None:
            yield f"{self.exact_calls} of {self.calls}", "layers whose linear part is mirrored by its exact adjoint"
        if self.tied_parameters is not None:
            yield short(self.tied_parameters), "parameters shared, not copied"
        if self.own_parameters is not None:
            yield short(self.own_parameters), "parameters of the mirror's own"
        yield f"{self.adjoint_tests_passed} of {self.adjoint_tests}", "adjoint tests passed"


@dataclass(frozen=True)
class Facts:
    """What the page says.

    Attributes:
        model: The model's name.
        file: The name of its file.
        backend: The versions of Keras and the backend that computed the figures.
        figures: The `Figures`.
        drawings: The diagram for wide screens and for narrow ones; empty if there is none.
        refusal: Why there is no diagram, or "".
        gaps: (name, type, why) of each layer that has neither an adjoint nor a policy.
        policies: What the policies chose.
        reconstructions: The `Reconstruction` of each sample.
        no_reconstructions: Why there are none, or "".
        sections: A `Section` for each layer with kernels.
        lines: A `Line` for each layer.
        anchors: The anchor of each layer's section, by the layer's `id`.
        hint: What to say of a model that seems to be an autoencoder, or "".
        cut: Its code.
    """

    model: str
    file: str
    backend: str
    figures: Figures
    drawings: list[Drawing] = field(default_factory=list)
    refusal: str = ""
    gaps: list[tuple[str, str, str]] = field(default_factory=list)
    policies: list[PolicyWords] = field(default_factory=list)
    reconstructions: list[Reconstruction] = field(default_factory=list)
    no_reconstructions: str = ""
    sections: list[Section] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    anchors: dict[int, str] = field(default_factory=dict)
    hint: str = ""
    cut: Cut | None = None


def facts_about(
    model: keras.Model,
    checked: Iterable[Checked],
    *,
    file: str = "",
    images: Sequence[Path] = (),
    limits: tuple[float, float] | None = None,
    policies: Mapping[str, Any] | None = None,
    hint: tuple[str, Cut | None] = ("", None),
) -> Facts:
    """The `Facts` about a model.

    Args:
        model: A Keras model.
        checked: (name, layer, outcome of its adjoint test) of every layer.
        file: The name of its file.
        images: Paths of pictures to reconstruct.
        limits: The smallest and the largest value of the model's input.
        policies: Those of `keras_adjoint.autoencoder`.
        hint: What to say of a model that seems to be an autoencoder, and its code.

    Raises:
        ValueError: If a policy does not exist, or a picture cannot be used.
    """
    policies, checked = policies or {}, list(checked)
    try:
        decisions, refusal = decide(model, policies), ""
    except NoRuleError as error:
        decisions, refusal = None, str(error)
    labels = {layer: labels_of(decision) for layer, decision in decisions.by_layer().items()} if decisions else {}
    whole, reconstructions, no_reconstructions = reconstruct(decisions, images, limits)
    norms, inverses = Norms(), inverses_for(decisions, images, limits)
    sections = {
        id(layer): section_of(number, name, layer, check, labels.get(id(layer)), norms, inverses)
        for number, (name, layer, check) in enumerate(checked, 1)
    }
    anchors = {layer: section.anchor for layer, section in sections.items() if section}
    return Facts(
        model=model.name,
        file=file,
        backend=f"Keras {keras.__version__} on {keras.backend.backend()}",
        figures=figures_of(model, decisions, checked, built=whole is not None),
        drawings=[draw(decisions, fmt) for fmt in (WIDE, NARROW)] if decisions is not None else [],
        refusal=refusal,
        gaps=[(gap.name, gap.type, gap.reason.partition("\n")[0]) for gap in decisions.gaps] if decisions else [],
        policies=policies_in_words(decisions, policies) if decisions else [],
        reconstructions=reconstructions,
        no_reconstructions=no_reconstructions,
        sections=[section for section in sections.values() if section],
        lines=list(lines_of(decisions or (), checked, labels, anchors)),
        anchors=anchors,
        hint=hint[0],
        cut=hint[1],
    )


def reconstruct(
    decisions: Decisions | None, images: Sequence[Path], limits: tuple[float, float] | None
) -> tuple[keras.Model | None, list[Reconstruction], str]:
    """(the autoencoder or `None`, reconstructions of samples, why there are none or "")."""
    if decisions is None:
        return None, [], "the model has no graph of layers that could be mirrored"
    wanted = input_format_of(decisions.graph, limits)
    if isinstance(wanted, str) and images:
        raise ValueError(f"This model cannot take the pictures: {wanted}. Received: {images[0]}")
    samples = [] if isinstance(wanted, str) else samples_for(wanted, images)  # errors about pictures come first
    if decisions.gaps:
        names = ", ".join(f"`{gap.name}`" for gap in decisions.gaps)
        return None, [], f"the mirror has neither an adjoint nor a policy for {names}"
    try:
        whole = decisions.autoencoder()
    except Exception as error:
        return None, [], f"the mirror cannot be built: {error}"
    if isinstance(wanted, str):
        return whole, [], wanted
    try:
        return whole, reconstructions_of(whole, samples, wanted.limits), ""
    except Exception as error:
        return whole, [], f"the model could not be run on {samples[0].name}: {str(error).partition(chr(10))[0]}"


def inverses_for(
    decisions: Decisions | None, images: Sequence[Path], limits: tuple[float, float] | None
) -> Inverses | None:
    """What computes adjoints and pseudo-inverses for the first sample; `None` if there can be none."""
    wanted = input_format_of(decisions.graph, limits) if decisions is not None else ""
    if decisions is None or isinstance(wanted, str):
        return None
    return Inverses(decisions.graph, samples_for(wanted, images[:1])[0].values)


# --- figures


def figures_of(model: keras.Model, decisions: Decisions | None, checked: Sequence[Checked], *, built: bool) -> Figures:
    """The `Figures` of a model, about which there are decisions if it has a mirror, which may have been built."""
    tested = [check for _, _, check in checked if check.residual is not None or check.failed]
    counts = totals(model, decisions) if decisions else None
    return Figures(
        calls=len(decisions) if decisions else None,
        exact_calls=sum(decision.kind in (Kind.EXACT, Kind.LINEAR_PART) for decision in decisions)
        if decisions
        else None,
        tied_parameters=counts.tied_parameters if counts else None,
        own_parameters=counts.own_parameters if counts and built else None,
        adjoint_tests=len(tested),
        adjoint_tests_passed=sum(not check.failed for check in tested),
    )


def short(count: int) -> str:
    """A number with at most three significant digits, as in 14.7 M."""
    rounded = int(float(f"{count:.3g}"))
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if rounded >= size:
            return f"{rounded / size:g} {letter}"
    return f"{count}"


def lines_of(
    decisions: Iterable[Decision],
    checked: Sequence[Checked],
    labels: Mapping[int, Labels],
    anchors: Mapping[int, str],
) -> Iterator[Line]:
    """The table: every layer and operation that is called, in that order, and then every other layer."""
    known = {id(layer): (name, check) for name, layer, check in checked}
    seen: set[int] = set()
    for decision in decisions:
        key = id(decision.call.operation)
        if key not in seen:
            seen.add(key)
            label = labels[key]
            name, check = known.get(key, (label.name, None))
            yield Line(name, label.type, f"{label.into} → {label.out}", label.counterpart, check, anchors.get(key, ""))
    for name, layer, check in checked:
        if id(layer) not in seen:
            yield Line(name, type(layer).__name__, "", "", check, anchors.get(id(layer), ""))
