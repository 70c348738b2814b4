"""Every repair of a script that `doctor --fix` writes gives the adjoint; where it writes none, no kernel in order would."""

from itertools import product

import keras
import pytest
from covering import fewest

import keras_adjoint as ka
from keras_adjoint.doctor.repair import repair_script
from keras_adjoint.doctor.rules import WRONG_TRANSPOSE, examine_script

pytestmark = pytest.mark.any_backend

SIZES = range(9, 12)  # every remainder by the strides below
STEPS = [{}, {"strides": 2}, {"strides": 3}]
if keras.backend.backend() != "tensorflow":  # whose CPU has no dilated transposed convolution
    STEPS.append({"dilation_rate": 2})
KINDS = ("Conv", "ConvTranspose")


def text_of(source, target, rank, wrong):
    """A script that gives `target` the kernel of `source`."""
    arguments = [", ".join(f"{name}={value!r}" for name, value in options.items()) for _, options in (source, target)]
    shape = f"(None, {'9, ' * rank}"
    return f"""\
import numpy as np
from keras import layers
conv = layers.{source[0].replace("Conv", f"Conv{rank}D")}(3, {arguments[0]}, use_bias=False)
back = layers.{target[0].replace("Conv", f"Conv{rank}D")}(2, {arguments[1]}, use_bias=False)
conv.build({shape}2))
back.build({shape}3))
w, = conv.get_weights()
back.set_weights([{wrong}])
"""


def adjoint_at(text, rank):
    """The sizes of inputs for which the target that a script makes is the adjoint of its source."""
    made = {}
    exec(compile(text, "script", "exec"), made)
    for size in SIZES:
        shape = (1, *(size,) * rank, 2)
        try:
            if ka.check_adjoint(made["conv"], made["back"], input_shape=shape, trials=1):
                yield size
        except ValueError:  # an image of another size
            continue


def pairs():
    for taps, step, padding, kind in product((2, 3), STEPS, ("valid", "same"), KINDS):
        source = {"kernel_size": taps, "padding": padding, **step}
        yield 2, (kind, source)
    for taps, step in product((2, 3), STEPS):
        yield 1, ("Conv", {"kernel_size": taps, "padding": "causal", **step})


def properties(case):
    rank, (kind, options) = case
    return rank, kind, *options.items()


@pytest.mark.parametrize("rank, source", fewest(pairs(), properties), ids=str)
def test_repairs_give_the_adjoint_and_are_left_out_where_none_does(rank, source):
    wrong = "np.swapaxes(w, 0, 1)" if rank == 2 else "w[::-1]"
    kind, options = source
    for target_kind, padding, strides in product(KINDS, ("valid", "same"), {1, options.get("strides", 1)}):
        target = target_kind, {**options, "padding": padding, "strides": strides}
        if rank == 1 and target_kind == "Conv":
            continue  # flipped alone, a kernel of a plain convolution may be meant
        text = text_of(source, target, rank, wrong)
        findings = [one for one in examine_script(text, "script.py") if one.rule == WRONG_TRANSPOSE.name]
        assert len(findings) == 1
        repaired, done = repair_script(text, "script.py", findings)
        if done:
            sizes = list(adjoint_at(repaired, rank))
            assert sizes and (sizes == list(SIZES)) != ("for inputs of the size" in findings[0].fix), repaired
        else:
            axes = (*range(rank), rank + 1, rank)
            flipped = f"w[{', '.join(['::-1'] * rank)}].transpose({axes})"
            right = "w" if kind != target_kind else flipped
            text = text.replace(wrong, right)
            assert not list(adjoint_at(text, rank)), text
            assert "by hand" in findings[0].fix and "cannot be the adjoint" in findings[0].fix


def test_what_is_not_known_is_named():
    text = text_of(("Conv", {"kernel_size": 3}), ("ConvTranspose", {"kernel_size": 3}), 2, "w[::-1, ::-1]")
    (known,) = (one for one in examine_script(text, "script.py") if one.rule == WRONG_TRANSPOSE.name)
    (unknown,) = (
        one
        for one in examine_script(text.replace("(2, kernel_size=3", "(2, kernel_size=3, strides=s"), "script.py")
        if one.rule == WRONG_TRANSPOSE.name
    )
    assert known.fixable and "depends" not in known.fix
    assert not unknown.fixable and "depends on options of `back`" in unknown.fix
