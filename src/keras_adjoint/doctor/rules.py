"""The table of rules: what the doctor finds in models and in scripts, and how it is fixed. Imports no Keras."""

from typing import TYPE_CHECKING

from keras_adjoint.doctor.finding import ERROR, NOTE, WARNING, Finding, Rule, Search, by_severity

if TYPE_CHECKING:
    import keras

    from keras_adjoint.doctor.models.context import Origin
    from keras_adjoint.doctor.models.replacements import Replacement
    from keras_adjoint.doctor.scripts.syntax import ScriptChange

WRONG_TRANSPOSE = Rule(
    "wrong transpose",
    (ERROR,),
    in_model=Search(
        finds="a kernel that holds the values of another one in an order that is not the adjoint's",
        fix="by the adjoint of the layer that has the kernel",
        function="models.copies.find_wrong_transposes",
    ),
    in_script=Search(
        finds="a kernel that is assigned to another layer in an order that is not the adjoint's",
        fix="where the unchanged kernel has a name, or stands in the expression, and the options of the two layers are known "
        "and fit",
        function="scripts.weight_assignments.find_wrong_transposes",
    ),
)
LAYER_NOT_BUILT = Rule(
    "layer not built",
    (ERROR,),
    in_script=Search(
        finds="`set_weights` of a layer that was neither built nor called",
        fix="by hand: the line does not know the shape",
        function="scripts.weight_assignments.find_unbuilt",
    ),
)
FILTERS_FIRST = Rule(
    "filters first",
    (ERROR,),
    in_script=Search(
        finds="a new array of shape (filters, *taps, in) for a layer of that many filters and taps",
        fix="by a transpose of the array",
        function="scripts.weight_assignments.find_filters_first",
    ),
)
GROUPS_LOST = Rule(
    "groups lost",
    (ERROR,),
    in_model=Search(
        finds="a transposed convolution, which has no groups, with the kernel of a grouped convolution",
        fix="by hand: the number of channels changes",
        function="models.copies.find_lost_groups",
    ),
    in_script=Search(
        finds="a transposed convolution, which has no groups, that is given the kernel of a grouped convolution",
        fix="by hand: the number of channels changes",
        function="scripts.weight_assignments.find_lost_groups",
    ),
)
OPERATION_DOES_NOT_RUN = Rule(
    "operation that does not run",
    (ERROR,),
    in_model=Search(
        finds="`ops.conv_transpose` as an operation of the graph, where this Keras cannot run it",
        fix="where its kernel is that of a layer, by the rules above",
        function="models.transposed_layers.find_broken_operations",
    ),
)
KERNEL_IN_LAMBDA = Rule(
    "kernel in a Lambda",
    (WARNING,),
    in_script=Search(
        finds="a `Lambda` whose function reads the kernel of a layer",
        fix="by hand",
        function="scripts.ties.find_lambdas",
    ),
)
STORED_TWICE = Rule(
    "kernel stored twice",
    (WARNING, NOTE),
    in_model=Search(
        finds="a kernel, or a constant of the graph, with the values of an earlier layer's kernel",
        fix="by the adjoint of the earlier layer, or by that layer itself",
        function="models.copies.find_stored_twice",
    ),
)
TIE_LOST = Rule(
    "tie lost",
    (WARNING,),
    in_model=Search(
        finds="an adjoint layer whose source is a copy of a layer of the model",
        fix="while the two kernels are still equal",
        function="models.copies.find_lost_ties",
    ),
    in_script=Search(
        finds="a copy of a tied model that is made layer by layer",
        fix="by `clone_tied`, where the model is named in the call",
        function="scripts.ties.find_copied_models",
    ),
)
SHARED_VARIABLE = Rule(
    "shared variable",
    (ERROR, WARNING),
    in_script=Search(
        finds="a layer's kernel, or a transpose of it, that becomes an attribute of another layer",
        fix="by hand",
        function="scripts.ties.find_shared_variables",
    ),
)
TIE_NOT_SAVED = Rule(
    "tie not saved",
    (WARNING,),
    in_script=Search(
        finds="a class of layers that hold another layer and read its kernel, without a `get_config`",
        fix="by hand",
        function="scripts.ties.find_unsaved_ties",
    ),
)
FROZEN_SOURCE = Rule(
    "frozen source",
    (WARNING,),
    in_script=Search(
        finds="`trainable = False` that also freezes a layer elsewhere, whose kernel is shared",
        fix="by hand",
        function="scripts.ties.find_frozen_sources",
    ),
)
MISSING_IMPORT = Rule(
    "missing import",
    (ERROR,),
    in_script=Search(
        finds="a model file with layers of this package that is loaded without importing it",
        fix="by an import",
        function="scripts.ties.find_missing_imports",
    ),
)
SIZE_LOST = Rule(
    "size lost",
    (WARNING,),
    in_model=Search(
        finds="a transposed convolution that returns another size than the strided layer had that it undoes",
        fix="by hand: the layers after it expect the size",
        function="models.sizes.find_lost_sizes",
    ),
)
SHIFTED = Rule(
    "shifted by an old Keras",
    (ERROR, NOTE),
    in_model=Search(
        finds="a transposed convolution that Keras before 3.15 computed one position too early on PyTorch",
        fix="by hand: the file does not say where the model was trained",
        function="models.transposed_layers.find_shifted",
    ),
)
CHECKERBOARD = Rule(
    "checkerboard",
    (NOTE,),
    in_model=Search(
        finds="a transposed convolution whose stride does not divide its kernel",
        fix="by hand: another kernel has to be trained",
        function="models.checkerboards.find_checkerboards",
    ),
    in_script=Search(
        finds="a new `Conv*Transpose` whose stride does not divide its kernel, both literals",
        fix="by hand: another kernel has to be trained",
        function="scripts.checkerboards.find_checkerboards",
    ),
)

RULES = (
    WRONG_TRANSPOSE,
    LAYER_NOT_BUILT,
    FILTERS_FIRST,
    GROUPS_LOST,
    OPERATION_DOES_NOT_RUN,
    KERNEL_IN_LAMBDA,
    STORED_TWICE,
    TIE_LOST,
    SHARED_VARIABLE,
    TIE_NOT_SAVED,
    FROZEN_SOURCE,
    MISSING_IMPORT,
    SIZE_LOST,
    SHIFTED,
    CHECKERBOARD,
)


def examine_model(model: "keras.Model", origin: "Origin | None" = None) -> list["Finding[Replacement]"]:
    """Every `Finding` about a model, the worst first.

    Args:
        model: A built Keras model.
        origin: The `Origin` of its file.
    """
    from keras_adjoint.doctor.models.context import ModelContext

    context = ModelContext(model, origin)
    searches = [rule.in_model for rule in RULES if rule.in_model is not None]
    return by_severity([finding for search in searches for finding in search(context)])


def examine_script(
    text: str, path: str, silenced: list["Finding[ScriptChange]"] | None = None
) -> list["Finding[ScriptChange]"]:
    """Every `Finding` about a script that no comment silences, the worst first. The script is not run.

    Args:
        text: The text of a Python script.
        path: Where it was read, for places, and for the model files beside it.
        silenced: A list to which the findings are appended that comments silence.
    """
    from keras_adjoint.doctor.scripts.flow import Script
    from keras_adjoint.doctor.scripts.syntax import MAX_RECURSION
    from keras_adjoint.doctor.silence import split
    from keras_adjoint.recursion import deep_recursion

    with deep_recursion(MAX_RECURSION):
        script = Script(text, path)
        searches = [rule.in_script for rule in RULES if rule.in_script is not None]
        found = [finding for search in searches for finding in search(script)]
    kept, ignored = split(found, text, path)
    if silenced is not None:
        silenced += ignored
    return by_severity(kept)
