"""Ties that come apart: copies of models, variables that are passed around, switches that reach too far."""

import ast
import zipfile
from pathlib import Path

from keras_adjoint.doctor.finding import ERROR, WARNING, Finding
from keras_adjoint.doctor.scripts.evaluation import KERNELS
from keras_adjoint.doctor.scripts.events import Called, Set
from keras_adjoint.doctor.scripts.kernels import literal
from keras_adjoint.doctor.scripts.values import Built, Config, Kernel, Layer

COPIED, SHARED, FROZEN, LOADED = "tie copied away", "shared variable", "frozen source", "tie not known"

CLONE = ("keras.models.clone_model",)
FROM_JSON = ("keras.models.model_from_json", "keras.models.model_from_config")
LOAD = ("keras.models.load_model", "keras.saving.load_model")
PACKAGE = "keras_adjoint"


def find_copied(script):
    """A finding for every copy of a tied model that is made layer by layer."""
    for event in script.events:
        model = copied_model(event) if isinstance(event, Called) else None
        if model is None:
            continue
        alias = script.imports.alias_of(PACKAGE)
        call = f"{alias or PACKAGE}.clone_tied({script.source(model)}, copy_weights=False)"
        alone = len(event.node.args) == 1 and not event.node.keywords and isinstance(model, ast.Name)
        edit = script.replace(event.node, call) if alias and alone else None
        yield Finding(
            place=script.place(event.node),
            illness=COPIED,
            severity=WARNING,
            what=f"`{script.source(model)}` has tied layers, and this copies it layer by layer",
            effect="every tied layer of the copy gets a kernel of its own: stored twice, and trained apart",
            fix=f"`{call}` keeps the ties" + ("" if edit else " (by hand)"),
            code=script.lines_after(edit) if edit else call,
            remedy=edit and (edit,),
        )


def copied_model(event):
    """The expression of the tied model that a call copies, or `None`."""
    if not event.arguments:
        return None
    node, value = event.arguments[0]
    if event.path in CLONE and isinstance(value, Built) and value.tied:
        return node
    if (event.path in FROM_JSON or event.method == "from_config") and isinstance(value, Config) and value.model.tied:
        return value.owner
    return None


def find_shared(script):
    """A finding for every kernel that becomes an attribute of another layer.

    A variable that a layer's own class takes over in `build` is not among them: it is taken over again after loading.
    """
    for event in script.events:
        if not isinstance(event, Set) or not isinstance(event.value[1], Kernel):
            continue
        kernel, owner = event.value[1], ast.unparse(event.target.value)
        is_variable = kernel.is_as_it_is and not kernel.is_array
        in_class = owner == "self" and event.in_layer in ("__init__", "build") and not is_variable
        outside = owner != "self" and event.target.attr in KERNELS and event.owner is not kernel.layer
        if in_class or outside:
            yield Finding(
                place=script.place(event.target),
                illness=SHARED,
                severity=ERROR if outside else WARNING,
                what=f"`{ast.unparse(event.target)}` becomes {'' if is_variable else 'what is computed from '}the kernel of "
                f"`{kernel.layer.text}`",
                effect=(
                    "Keras 3 refuses it on a built layer, and an unbuilt one replaces it when it is built; where it held, in "
                    "Keras 2, two variables come back from a file"
                    if outside
                    else "it is computed once, and does not follow the kernel while that is trained"
                ),
                fix=f"`keras_adjoint.adjoint({kernel.layer.text})` holds the layer and reads its kernel at each call (by hand)",
                code=f"{owner} = keras_adjoint.adjoint({kernel.layer.text})" if outside else "",
            )


def find_frozen(script):
    """A finding for every `trainable = False` that reaches the layer whose kernel is shared by hand."""
    for event in script.events:
        if not isinstance(event, Set) or event.target.attr != "trainable" or literal(event.value[0]) is not False:
            continue
        sharing = sharing_layers(event.owner)
        if sharing:
            name = ast.unparse(event.target.value)
            source = sharing[0].shares
            also = "it" if sharing == [event.owner] else ", ".join(f"`{layer.text}`" for layer in sharing)
            yield Finding(
                place=script.place(event.target),
                illness=FROZEN,
                severity=WARNING,
                what=f"`{name}` is frozen, and {also} {'has' if len(sharing) == 1 else 'have'} the kernel of another layer",
                effect=f"the kernel of `{source.text}` is frozen as well, since it is the same variable",
                fix=(
                    "freeze the other layers one by one; the adjoint layers of `keras_adjoint` have a switch of their own, "
                    "which stops at the source (by hand)"
                ),
                code="\n".join(f"{layer.text} = keras_adjoint.adjoint({source.text})" for layer in sharing),
            )


def sharing_layers(owner):
    """The layers in a layer or model that hold another layer's kernel."""
    parts = [owner] if isinstance(owner, Layer) else owner.parts if isinstance(owner, Built) else ()
    inside = {id(part) for part in parts}
    return [part for part in parts if isinstance(part.shares, Layer) and id(part.shares) not in inside]


def find_loaded(script):
    """A finding for every file with ties in it that is loaded where nobody has imported this package."""
    if script.imports.imports(PACKAGE):
        return
    for event in script.events:
        path = (
            event.path in LOAD and event.arguments and literal(event.arguments[0][0])
            if isinstance(event, Called)
            else None
        )
        if isinstance(path, str) and holds_ties(script, path):
            edit = script.insert_import(f"import {PACKAGE}", before=event.node)
            yield Finding(
                place=script.place(event.node),
                illness=LOADED,
                severity=ERROR,
                what=f"`{path}` holds layers of keras_adjoint, which this script does not import",
                effect="Keras does not find the classes of these layers, so that `load_model` raises a TypeError",
                fix="import keras_adjoint before, which registers them",
                code=f"import {PACKAGE}",
                remedy=(edit,),
            )


def holds_ties(script, path):
    """Whether a model file that is there already, beside the script or here, names layers of this package."""
    for file in (Path(script.path).parent / path, Path(path)):
        try:
            with zipfile.ZipFile(file) as archive:
                return PACKAGE.encode() in archive.read("config.json")
        except (OSError, KeyError, zipfile.BadZipFile):
            continue
    return False
