"""`keras-adjoint doctor` on files: what it prints, its exit status, and the repaired copies of `--fix`."""

import json

import keras
import numpy as np
import pytest
from broken_models import (
    adjoint_pair,
    autoencoder,
    chain,
    constant_kernel,
    copied_layer,
    dense_pair,
    embeddings,
    give,
    in_half_precision,
    lost_tie,
    named_inputs,
    nested_lost_tie,
    trained,
)
from keras import layers, ops
from test_cli import complains, run
from test_doctor_models import cloned, found, rearranged_pair, tied_model
from test_doctor_scripts import START

import keras_adjoint as ka
from keras_adjoint.doctor.models.outputs import (
    Refused,
    largest_difference,
    outputs,
    random_inputs,
    rounding,
    rounding_of_model,
)
from keras_adjoint.doctor.models.repair import proven_difference
from keras_adjoint.doctor.rules import STORED_TWICE, TIE_LOST, WRONG_TRANSPOSE, examine_model
from keras_adjoint_cli.console import without_empty

pytestmark = pytest.mark.any_backend

BROKEN_SCRIPT = """\
import numpy as np
from keras import layers
conv = layers.Conv2D(32, (4, 4))
back = layers.Conv2DTranspose(16, (4, 4))
conv(x), back(y)
w, b = conv.get_weights()
turned = np.transpose(w, (1, 0, 2, 3))   # "transposed"
back.set_weights([turned,  b])  # Öl
"""


def fixed(model, folder, *options):
    """(the result of `doctor --fix --json`, the data, the original's outputs and the repaired model's)."""
    file = folder / "model.keras"
    model.save(file)
    before = file.read_bytes()
    result = run("doctor", file, "--fix", "--json", *options)
    assert file.read_bytes() == before
    (data,) = json.loads(result.stdout)["files"]
    assert data["repair"]["output"] == str(folder / "model.repaired.keras")
    copy = keras.saving.load_model(folder / "model.repaired.keras")
    inputs = random_inputs(model)
    return result, data, outputs(model, inputs), outputs(copy, inputs), copy


# --- repaired models

LOST = {
    "conv, 1-D": (lambda: lost_tie(size=(8,)), STORED_TWICE),
    "conv, 2-D": (lost_tie, STORED_TWICE),
    "conv, 3-D": (lambda: lost_tie(size=(6, 4, 4), taps=2), STORED_TWICE),
    "conv, odd size": (lambda: lost_tie(size=(9, 7), taps=3), STORED_TWICE),
    "nested": (nested_lost_tie, STORED_TWICE),
    "nested graph": (lambda: nested_lost_tie(keras.Model), STORED_TWICE),
    "dense": (dense_pair, STORED_TWICE),
    "sequential": (lambda: keras.Sequential([keras.Input((11,)), *dense_pair().layers[1:]]), STORED_TWICE),
    "copied layer": (copied_layer, STORED_TWICE),
    "copied layer, sequential": (
        lambda: keras.Sequential([keras.Input((8, 8, 4)), *copied_layer().layers[1:]]),
        STORED_TWICE,
    ),
    "plain convolution": (lambda: rearranged_pair(("flip", "swap_channels"), "conv", "conv", 2), STORED_TWICE),
    "constant": (constant_kernel, STORED_TWICE),
    "clone": (lambda: cloned(tied_model()), TIE_LOST),
    "grouped convolution": (lambda: adjoint_pair(layers.Conv2D, filters=4, kernel_size=3, groups=2), STORED_TWICE),
    "depthwise convolution": (lambda: adjoint_pair(layers.DepthwiseConv2D, kernel_size=3), STORED_TWICE),
    "embedding": (lambda: embeddings(use_bias=False), STORED_TWICE),
    "named inputs": (named_inputs, STORED_TWICE),
    "half precision": (in_half_precision, STORED_TWICE),
}
if keras.backend.backend() != "tensorflow":  # whose CPU has no convolution of this layout
    LOST["channels first"] = (lambda: lost_tie(data_format="channels_first"), STORED_TWICE)


@pytest.mark.parametrize("name", LOST)
def test_a_kernel_that_was_twice_is_once_and_nothing_else_changes(name, tmp_path):
    make, rule = LOST[name]
    model = make()
    (finding,) = found(model, rule)
    result, data, before, after, copy = fixed(model, tmp_path)
    assert largest_difference(before, after) <= rounding_of_model(model)
    assert data["repair"]["difference"] <= rounding_of_model(model) and data["repair"]["refused"] == []
    assert [item["place"] for item in data["repair"]["repaired"]] == [finding.place]
    assert found(copy, rule) == []
    assert copy.count_params() == model.count_params() - saved_by(finding, model)
    assert result.exit_code == any(finding.severity != "note" for finding in examine_model(copy))
    assert data["repair"]["remaining"] == without_empty([left.as_data() for left in examine_model(copy)])


def saved_by(finding, model):
    """Parameters that are gone: of a whole layer that was a copy, also its bias; a constant never counted."""
    if finding.place == "other":
        return model.get_layer("other").count_params()
    if finding.place == "back" and finding.rule == TIE_LOST.name:
        return finding.figures["parameters"]
    return 0 if finding.place.startswith("matmul") else finding.figures["parameters"]


@pytest.mark.every_backend
@pytest.mark.parametrize("make", [lost_tie, nested_lost_tie, dense_pair])
def test_the_copy_is_tied_and_stays_so(make, tmp_path):
    *_, copy = fixed(make(), tmp_path)
    copy.save(tmp_path / "again.keras")
    for model in (copy, keras.saving.load_model(tmp_path / "again.keras")):
        assert ka.is_tied(model)


def test_biases_activations_and_frozen_layers_are_kept(tmp_path):
    model = lost_tie(activation="relu")
    model.get_layer("back").trainable = False
    *_, copy = fixed(model, tmp_path)
    adjoint = copy.get_layer("back")
    assert not adjoint.trainable and copy.get_layer("conv").trainable
    assert copy.get_layer("back_activation").activation is keras.activations.sigmoid
    np.testing.assert_array_equal(adjoint.bias, model.get_layer("back").bias)


@pytest.mark.parametrize(
    "case",
    [
        ("conv", "conv_transpose", ("flip",)),
        ("conv", "conv_transpose", ("swap_spatial",)),
        ("conv", "conv", ("swap_channels",)),
        ("conv_transpose", "conv", ("flip",)),
    ],
    ids=str,
)
def test_a_wrong_transpose_becomes_the_adjoint(case, tmp_path):
    *pair, kinds = case
    model = rearranged_pair(kinds, *pair, 2)
    result, data, before, after, copy = fixed(model, tmp_path)
    assert found(copy, WRONG_TRANSPOSE) == [] and ka.is_tied(copy) and result.exit_code == 0
    back = copy.get_layer("back")
    assert ka.check_adjoint(copy.get_layer("conv"), lambda y: back(y) - back(ops.zeros_like(y)))
    assert data["repair"]["difference"] > rounding("float32") < largest_difference(before, after)


def test_what_would_change_outputs_is_refused(tmp_path):
    """With an even kernel, "same" puts the odd zero on the other side than the adjoint needs it."""
    conv, back = (layers.Conv2D(4, 4, padding="same", name=name) for name in ("conv", "back"))
    model = trained(chain((8, 8, 4), conv, back))
    give(back, conv, lambda kernel: ka.transpose_kernel(kernel, "conv"))
    model.save(tmp_path / "model.keras")
    result = run("doctor", tmp_path / "model.keras", "--fix", "--json")
    (refused,) = json.loads(result.stdout)["files"][0]["repair"]["refused"]
    assert refused["place"] == "back" and "other values" in refused["reason"]
    assert result.exit_code == 1 and not (tmp_path / "model.repaired.keras").exists()


def test_what_would_change_shapes_is_refused(tmp_path):
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    back = layers.Conv2DTranspose(4, 3, strides=3, padding="same", name="back")
    model = trained(chain((8, 8, 4), conv, back))
    give(back, conv)
    model.save(tmp_path / "model.keras")
    result = run("doctor", tmp_path / "model.keras", "--fix")
    assert result.exit_code == 1 and "not repaired back" in result.stdout
    assert not (tmp_path / "model.repaired.keras").exists()


def test_outputs_of_the_whole_model_are_compared():
    model = autoencoder()
    other = chain((8, 8, 3), model, layers.Activation("tanh"))
    assert proven_difference(model, model, keeps_outputs=True) == 0
    assert proven_difference(model, other, keeps_outputs=False) > rounding("float32")
    with pytest.raises(Refused, match="other outputs"):
        proven_difference(model, other, keeps_outputs=True)
    with pytest.raises(Refused, match="would return"):
        proven_difference(model, chain((8, 8, 3), model, layers.Flatten()), keeps_outputs=False)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (embeddings, "takes no `bias`"),
        (lambda: lost_tie(size=(None, None)), "several input sizes"),
    ],
)
def test_what_an_adjoint_cannot_be_is_refused(make, reason, tmp_path):
    make().save(tmp_path / "model.keras")
    result = run("doctor", tmp_path / "model.keras", "--fix")
    assert result.exit_code == 1 and "None could be repaired" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("not repaired back")]
    assert reason in line


def test_old_files_are_repaired_into_new_ones(tmp_path):
    model = lost_tie()
    model.save(tmp_path / "model.h5")
    result = run("doctor", tmp_path / "model.h5", "--fix")
    assert result.exit_code == 0 and "model.repaired.keras" in result.stdout
    assert ka.is_tied(keras.saving.load_model(tmp_path / "model.repaired.keras"))
    complains(run("doctor", tmp_path / "model.h5", "--fix", "-o", tmp_path / "other.h5"), "ends in .keras")


# --- repaired scripts


def script(folder, text=BROKEN_SCRIPT, encoding="utf-8"):
    file = folder / "script.py"
    file.write_bytes(text.encode(encoding))
    return file


def test_only_the_wrong_expression_of_a_script_changes(tmp_path):
    file = script(tmp_path)
    result = run("doctor", file, "--fix")
    assert result.exit_code == 0 and "back.set_weights([w,  b])  # Öl" in result.stdout
    assert file.read_text("utf-8") == BROKEN_SCRIPT
    repaired = (tmp_path / "script.repaired.py").read_text("utf-8")
    assert repaired == BROKEN_SCRIPT.replace("[turned,  b]", "[w,  b]")
    assert run("doctor", tmp_path / "script.repaired.py").exit_code == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_line_ends_and_marks_are_kept(line_end, encoding, tmp_path):
    text = BROKEN_SCRIPT.replace("\n", line_end)
    run("doctor", script(tmp_path, text, encoding), "--fix")
    repaired = (tmp_path / "script.repaired.py").read_bytes()
    assert repaired == text.replace("[turned,  b]", "[w,  b]").encode(encoding)


EDITS = {
    "swap in the expression": (
        "back.set_weights([np.transpose(conv.get_weights()[0], (1, 0, 2, 3)), b])",
        "back.set_weights([conv.get_weights()[0], b])",
    ),
    "flip": ("back.kernel.assign(conv.kernel[::-1, ::-1])", "back.kernel.assign(conv.kernel)"),
    "no flip": (
        "w = plain.get_weights()[0]\nother.set_weights([w.transpose(0, 1, 3, 2), b])",
        "w = plain.get_weights()[0]\nother.set_weights([w[::-1, ::-1].transpose(0, 1, 3, 2), b])",
    ),
    "filters first": (
        "conv.set_weights([np.random.rand(32, 4, 4, 16), b])",
        "conv.set_weights([(np.random.rand(32, 4, 4, 16)).transpose(1, 2, 3, 0), b])",
    ),
    "filters first, transposed": (
        "back.set_weights([np.zeros((16, 4, 4, 32)), b])",
        "back.set_weights([(np.zeros((16, 4, 4, 32))).transpose(1, 2, 0, 3), b])",
    ),
    "clone": (
        "model = keras.Model(inputs, ka.adjoint(conv)(code))\ncopy = keras.models.clone_model(model)",
        "model = keras.Model(inputs, ka.adjoint(conv)(code))\ncopy = ka.clone_tied(model, copy_weights=False)",
    ),
    "a kernel that no name stands for any more": (
        "turned = np.swapaxes(w, 0, 1)\nw = 3\nback.set_weights([turned, b])",
        None,
    ),
    "a variable, which PyTorch does not flip by a slice": (
        "plain.kernel.assign(ops.transpose(conv.kernel, (0, 1, 3, 2)))",
        None,
    ),
    "a strided source, which no plain convolution undoes": ("plain.set_weights([w.transpose(0, 1, 3, 2), b])", None),
    "a strided target": ("w, b = plain.get_weights()\nconv.set_weights([np.swapaxes(w, 2, 3), b])", None),
    "strides that are not known": (
        "up = layers.Conv2DTranspose(16, 4, strides=s, padding='same')\nup(code)\nup.set_weights([w[::-1, ::-1], b])",
        None,
    ),
    "options that are not known": (
        "up = layers.Conv2DTranspose(16, 4, **options)\nup(code)\nup.set_weights([w[::-1, ::-1], b])",
        None,
    ),
    "an unknown layer": ("layer.set_weights([np.swapaxes(w, 0, 1)])", None),
}


@pytest.mark.parametrize("title", EDITS)
def test_safe_edits_are_made_and_others_left_to_the_user(title, tmp_path):
    before, after = EDITS[title]
    other = 'other = layers.Conv2D(16, (5, 3), padding="same")\nother(code)\n'
    start = START + other
    file = script(tmp_path, f"{start}{before}\n")
    result = run("doctor", file, "--fix", "--json")
    if after is None:
        assert result.exit_code == 1 and json.loads(result.stdout)["files"][0]["repair"]["output"] is None
        assert not (tmp_path / "script.repaired.py").exists()
    else:
        assert (tmp_path / "script.repaired.py").read_text() == f"{start}{after}\n"
        assert result.exit_code == 0


@pytest.mark.every_backend
def test_repaired_scripts_run_and_give_the_adjoint(tmp_path):
    text = """\
import numpy as np
import keras
from keras import layers
conv = layers.Conv2D(4, 3, padding="same", use_bias=False)
conv.build((None, 8, 8, 4))
back = layers.Conv2DTranspose(4, 3, padding="same", use_bias=False)
plain = layers.Conv2D(4, 3, padding="same", use_bias=False)
for layer in (back, plain):
    layer.build((None, 8, 8, 4))
w, = conv.get_weights()
back.set_weights([np.transpose(w[::-1, ::-1], (1, 0, 2, 3))])
plain.set_weights([np.transpose(w, (0, 1, 3, 2))])
"""
    before, after = {}, {}
    exec(compile(text, "before", "exec"), before)
    run("doctor", script(tmp_path, text), "--fix")
    exec(compile((tmp_path / "script.repaired.py").read_text(), "after", "exec"), after)
    for name in ("back", "plain"):
        assert not ka.check_adjoint(before["conv"], before[name])
        assert ka.check_adjoint(after["conv"], after[name])


def test_the_missing_import_is_added(tmp_path):
    tied_model().save(tmp_path / "tied.keras")
    text = '"""Words."""\nimport os\n\nimport keras\n\nmodel = keras.models.load_model("tied.keras")\n'
    assert run("doctor", script(tmp_path, text), "--fix").exit_code == 0
    repaired = (tmp_path / "script.repaired.py").read_text()
    assert repaired == text.replace("import keras\n", "import keras\nimport keras_adjoint\n")


# --- files and options


def test_a_file_without_findings_has_exit_status_0_and_no_copy(tmp_path):
    autoencoder().save(tmp_path / "model.keras")
    for options in ((), ("--fix",), ("--json",)):
        assert run("doctor", tmp_path / "model.keras", *options).exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_findings_are_printed_with_place_effect_and_fix(tmp_path):
    lost_tie(size=(9, 9), taps=3).save(tmp_path / "model.keras")
    result = run("doctor", tmp_path / "model.keras")
    assert result.exit_code == 1
    for words in (
        "warning back: kernel stored twice",
        "bytes",
        "9×9 becomes 5×5",
        "note back: checkerboard",
        "--fix repairs 1",
    ):
        assert words in result.stdout
    assert "\x1b[" not in result.stdout


def test_notes_alone_fail_only_where_that_is_asked_for(tmp_path):
    model = chain((9, 9, 3), layers.Conv2DTranspose(3, 3, strides=2, name="up"))
    assert {finding.severity for finding in examine_model(model)} == {"note"}
    model.save(tmp_path / "model.keras")
    plain, strict = (run("doctor", tmp_path / "model.keras", "--json", *options) for options in ((), ("--strict",)))
    assert (plain.exit_code, strict.exit_code) == (0, 1)
    plain, strict = json.loads(plain.stdout), json.loads(strict.stdout)
    assert (plain["ok"], strict["ok"]) == (True, False)
    assert plain["files"][0]["findings"] == strict["files"][0]["findings"] != []


def test_findings_are_data_for_programs(tmp_path):
    lost_tie().save(tmp_path / "model.keras")
    data = json.loads(run("doctor", tmp_path / "model.keras", "--json").stdout)
    assert data["backend"] == keras.backend.backend()
    (data,) = data["files"]
    assert (data["kind"], data["ok"]) == ("model", False)
    (finding,) = data["findings"]
    assert finding["place"] == "back" and finding["fixable"] and finding["figures"]["parameters"] == 240
    data = json.loads(run("doctor", script(tmp_path), "--json").stdout)["files"][0]
    assert data["kind"] == "script" and data["findings"][0]["place"].endswith("script.py:8:19")


def test_a_copy_is_not_overwritten_unless_forced(tmp_path):
    lost_tie().save(tmp_path / "model.keras")
    target = tmp_path / "out.keras"
    target.write_bytes(b"precious")
    complains(run("doctor", tmp_path / "model.keras", "--fix", "-o", target), "exists already")
    assert target.read_bytes() == b"precious"
    assert run("doctor", tmp_path / "model.keras", "--fix", "-o", target, "--force").exit_code == 0
    assert ka.is_tied(keras.saving.load_model(target))


def test_the_file_itself_is_never_overwritten(tmp_path):
    file = tmp_path / "model.keras"
    lost_tie().save(file)
    before = file.read_bytes()
    complains(run("doctor", file, "--fix", "-o", file, "--force"), "is never overwritten")
    assert file.read_bytes() == before


def test_a_copy_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    lost_tie().save(tmp_path / "model.keras")

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    complains(run("doctor", tmp_path / "model.keras", "--fix"), "No space left")
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_options_without_fix_make_no_sense(tmp_path):
    complains(run("doctor", script(tmp_path), "-o", tmp_path / "out.py"), "--fix")


BROKEN = {
    "there is none": ("none.keras", None, "There is no file"),
    "no archive": ("model.keras", b"kernels", "is not a Keras model"),
    "another ending": ("model.onnx", b"kernels", "ends in none of"),
    "a syntax error": ("script.py", b"def f(:\n", "is not Python: line 1"),
    "not UTF-8": ("script.py", "x = 'Öl'".encode("latin-1"), "is not UTF-8: byte 5 is 0xd6"),
    "a null byte": ("script.py", b"x = 1\x00", "is not Python"),
}


@pytest.mark.parametrize("title", BROKEN)
@pytest.mark.parametrize("options", [(), ("--fix",), ("--json",)])
def test_a_file_that_cannot_be_used_gets_one_line(title, options, tmp_path):
    name, content, words = BROKEN[title]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    complains(run("doctor", tmp_path / name, *options), words)
    assert [file.name for file in tmp_path.iterdir()] == ([name] if content is not None else [])


def test_a_truncated_model_gets_one_line(tmp_path):
    file = tmp_path / "model.keras"
    lost_tie().save(file)
    file.write_bytes(file.read_bytes()[:-100])
    complains(run("doctor", file, "--fix"), "is not a whole Keras model")


def test_the_help_has_examples():
    assert "keras-adjoint doctor model.keras --fix" in run("doctor", "--help").stdout
