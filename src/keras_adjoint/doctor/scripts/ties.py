"""Rules about ties that do not hold: copied models, variables that are shared by hand, kernels that Keras cannot see."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import libcst as cst

from keras_adjoint.doctor.finding import ERROR, WARNING, Finding
from keras_adjoint.doctor.rules import (
    FROZEN_SOURCE,
    KERNEL_IN_LAMBDA,
    MISSING_IMPORT,
    SHARED_VARIABLE,
    TIE_LOST,
    TIE_NOT_SAVED,
)
from keras_adjoint.doctor.scripts.evaluation import KERNEL_ATTRIBUTES, reads_kernel
from keras_adjoint.doctor.scripts.flow import Script
from keras_adjoint.doctor.scripts.syntax import ScriptChange, descendants, literal, text_of
from keras_adjoint.doctor.scripts.values import (
    AssignmentEvent,
    Built,
    CallEvent,
    Closure,
    Config,
    KernelExpression,
    Layer,
    TieEvent,
    Value,
)
from keras_adjoint.doctor.suggestion import PACKAGE, adjoint_of, with_import

CLONE = ("keras.models.clone_model",)
FROM_CONFIG = ("keras.models.model_from_json", "keras.models.model_from_config")
LOAD = ("keras.models.load_model", "keras.saving.load_model")


def find_copied_models(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every copy of a tied model that is made layer by layer."""
    for event in script.events:
        model = copied_model(event) if isinstance(event, CallEvent) else None
        if not isinstance(event, CallEvent) or model is None:
            continue
        alias = script.alias_of(PACKAGE)
        call = f"{alias or PACKAGE}.clone_tied({{model}}, copy_weights=False)"
        is_plain = len(event.node.args) == 1 and len(event.arguments) == 1 and isinstance(model, cst.Name)
        edit = script.edit(event.node, call, model=model) if alias and is_plain else None
        call = call.format(model=script.code(model))
        yield Finding(
            place=script.place(event.node),
            rule=TIE_LOST.name,
            severity=WARNING,
            what=f"`{script.code(model)}` has tied layers, and this copies it layer by layer",
            effect="every tied layer of the copy gets a kernel of its own: stored twice, and trained separately",
            fix=f"`{call}` keeps the ties" + ("" if edit else " (by hand)"),
            code=script.lines_after(edit) if edit else with_import(script, call),
            change=edit,
        )


def copied_model(event: CallEvent) -> cst.BaseExpression | None:
    """The expression of the tied model that a call copies, or `None`."""
    if not event.arguments:
        return None
    node, value = event.arguments[0]
    if event.path in CLONE and isinstance(value, Built) and value.tied:
        return node
    from_config = event.path in FROM_CONFIG or event.method == "from_config"
    return value.owner if from_config and isinstance(value, Config) and value.model.tied else None


def find_shared_variables(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every kernel that becomes an attribute of another layer.

    A variable that a layer's own class takes over in `build` is not among them: it is taken over again after loading.
    """
    for event in script.events:
        if not isinstance(event, AssignmentEvent) or not isinstance(event.value, KernelExpression):
            continue
        kernel, owner = event.value, text_of(event.target.value)
        is_variable = kernel.is_unchanged and not kernel.is_array
        in_class = owner == "self" and event.in_layer in ("__init__", "build") and not is_variable
        outside = owner != "self" and event.target.attr.value in KERNEL_ATTRIBUTES and event.owner is not kernel.layer
        if in_class or outside:
            tied = adjoint_of(script, kernel.layer)
            yield Finding(
                place=script.place(event.target),
                rule=SHARED_VARIABLE.name,
                severity=ERROR if outside else WARNING,
                what=f"`{text_of(event.target)}` becomes {'' if is_variable else 'what is computed from '}the kernel of "
                f"`{kernel.layer.text}`",
                effect=(
                    "Keras 3 refuses it on a built layer, and an unbuilt one replaces it when it is built; where it held, in "
                    "Keras 2, two variables come back from a file"
                    if outside
                    else "it is computed once, and does not follow the kernel while that is trained"
                ),
                fix=f"`{tied}` holds the layer and reads its kernel at each call (by hand)",
                code=with_import(script, f"{owner} = {tied}") if outside else "",
            )


def find_frozen_sources(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every `trainable = False` that reaches the layer whose kernel is shared by hand."""
    for event in script.events:
        if not isinstance(event, AssignmentEvent) or event.target.attr.value != "trainable":
            continue
        sharing = sharing_layers(event.owner) if literal(event.node) is False else []
        if sharing:
            name = text_of(event.target.value)
            source = sharing[0][1]
            layers = [layer for layer, _ in sharing]
            also = "it" if layers == [event.owner] else ", ".join(f"`{layer.text}`" for layer in layers)
            yield Finding(
                place=script.place(event.target),
                rule=FROZEN_SOURCE.name,
                severity=WARNING,
                what=f"`{name}` is frozen, and {also} {'has' if len(layers) == 1 else 'have'} the kernel of another layer",
                effect=f"the kernel of `{source.text}` is frozen as well, since it is the same variable",
                fix=(
                    "freeze the other layers one by one; the adjoint layers of `keras_adjoint` can be frozen without "
                    "freezing their source (by hand)"
                ),
                code=with_import(script, "\n".join(f"{layer.text} = {adjoint_of(script, source)}" for layer in layers)),
            )


def find_unsaved_ties(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every class of layers that are made from another layer, and that Keras cannot write to a file.

    A class with another base besides that of Keras may inherit what is missing.
    """
    for event in script.events:
        if not isinstance(event, TieEvent) or len(event.definition.bases) != 1:
            continue
        methods = {one.name.value: one for one in event.definition.body.body if isinstance(one, cst.FunctionDef)}
        if "get_config" not in methods and "__init__" in methods:
            name, held = event.definition.name.value, event.held
            tied = adjoint_of(script, None, held)
            yield Finding(
                place=script.place(event.definition.name),
                rule=TIE_NOT_SAVED.name,
                severity=WARNING,
                what=f"`{name}` is made from another layer, `self.{held}`, and has no `get_config`",
                effect="Keras raises a NotImplementedError when a model with it is saved or cloned",
                fix=f"`{tied}` in its place is saved with its tie (by hand)",
                code=with_import(script, tied),
            )


def sharing_layers(owner: Value) -> list[tuple[Layer, Layer]]:
    """The layers in a layer or model that hold the kernel of a layer outside of it, with that one."""
    parts = (owner,) if isinstance(owner, Layer) else owner.parts if isinstance(owner, Built) else ()
    inside = {id(part) for part in parts}
    return [(part, part.shares) for part in parts if part.shares is not None and id(part.shares) not in inside]


def find_missing_imports(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every file with ties in it that is loaded by a script that does not import this package."""
    if script.imports(PACKAGE):
        return
    for event in script.events:
        if not isinstance(event, CallEvent) or event.path not in LOAD or not event.arguments:
            continue
        path = literal(event.arguments[0][0])
        if isinstance(path, str) and holds_ties(script, path):
            yield Finding(
                place=script.place(event.node),
                rule=MISSING_IMPORT.name,
                severity=ERROR,
                what=f"`{path}` holds layers of keras_adjoint, which this script does not import",
                effect="Keras does not find the classes of these layers, so that `load_model` raises a TypeError",
                fix="import keras_adjoint before, which registers them",
                code=f"import {PACKAGE}",
                change=script.insert_import(PACKAGE, above=event.node),
            )


def holds_ties(script: Script, path: str) -> bool:
    """Whether a model file that exists, beside the script or here, names layers of this package."""
    for file in (Path(script.path).parent / path, Path(path)):
        try:
            with zipfile.ZipFile(file) as archive:
                return PACKAGE.encode() in archive.read("config.json")
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
    return False


def find_lambdas(script: Script) -> Iterator[Finding[ScriptChange]]:
    """A finding for every `Lambda` whose function reads the kernel of a layer."""
    for event in script.events:
        if not isinstance(event, CallEvent) or event.path != "keras.layers.Lambda" or not event.arguments:
            continue
        function, closure = event.arguments[0]
        reads = (node for node in descendants(function) if isinstance(function, cst.Lambda))
        owner = next(
            (text_of(node.value) for node in reads if isinstance(node, cst.Attribute) and reads_kernel(node)), ""
        )
        kept = closure if isinstance(closure, Closure) and not owner else None
        owner = kept.kernel.layer.text if kept else owner
        if owner:
            layer = closure.kernel.layer if isinstance(closure, Closure) else None
            tied = adjoint_of(script, layer, owner)
            what = f"a `Lambda` reads the kernel of `{owner}`"
            effect = (
                "Keras does not see the variable in there: a model that has it nowhere else neither trains nor saves "
                "it, and the file does not load in safe mode"
            )
            if kept and not kept.kernel.is_unchanged:
                what = f"a `Lambda` keeps `{kept.name}`, which was computed from the kernel of `{owner}`"
                effect = "it is computed once, and does not follow the kernel while that is trained"
            yield Finding(
                place=script.place(event.node),
                rule=KERNEL_IN_LAMBDA.name,
                severity=WARNING,
                what=what,
                effect=effect,
                fix=f"use `{tied}`, which holds the layer (by hand)",
                code=with_import(script, tied),
            )
