"""What the doctor finds in scripts: every recipe that goes wrong, at its place, and scripts like these that are correct."""

import inspect
import re

import keras
import pytest
from keras import layers

import keras_adjoint as ka
from keras_adjoint.doctor.repair import repair_script
from keras_adjoint.doctor.rules import RULES, examine_script

pytestmark = pytest.mark.any_backend

START = """\
import numpy as np
import keras
import tensorflow as tf
from keras import layers, ops
import keras_adjoint as ka

inputs = keras.Input((28, 28, 16))
conv = layers.Conv2D(32, (4, 4), strides=2, padding="same")
code = conv(inputs)
back = layers.Conv2DTranspose(16, (4, 4), strides=2, padding="same")
image = back(code)
plain = layers.Conv2D(16, (5, 3), padding="same")
features = plain(code)
w, b = conv.get_weights()
"""

# Lines that end in `# breaks: NAME` are found under that rule, and no others are.
BROKEN = {
    "H and W swapped by transpose": "back.set_weights([np.transpose(w, (1, 0, 2, 3)), b])  # breaks: wrong transpose",
    "H and W swapped by a method": "back.set_weights([w.transpose(1, 0, 2, 3), b])  # breaks: wrong transpose",
    "H and W swapped by swapaxes": "back.kernel.assign(np.swapaxes(conv.get_weights()[0], 0, 1))  # breaks: wrong transpose",
    "H and W swapped by keras.ops": "back.kernel.assign(ops.transpose(conv.kernel, (1, 0, 2, 3)))  # breaks: wrong transpose",
    "H and W swapped by tensorflow": "back.kernel.assign(tf.transpose(conv.kernel, [1, 0, 2, 3]))  # breaks: wrong transpose",
    "H and W swapped on its way through names": """
kernel = conv.weights[0].numpy()
turned = np.swapaxes(kernel, 0, 1)  # breaks: wrong transpose
given = [turned, b]
back.set_weights(given)
""",
    "H and W swapped in a list of weights": """
weights = conv.get_weights()
weights[0] = np.transpose(weights[0], (1, 0, 2, 3))  # breaks: wrong transpose
back.set_weights(weights)
""",
    "H and W swapped in a function": """
def reuse(encoder, decoder):
    kernel = encoder.get_weights()[0]
    decoder.set_weights([np.transpose(kernel, (1, 0, 2, 3))])  # breaks: wrong transpose
""",
    "H and W swapped in a new layer": """
other = layers.Conv2DTranspose(16, 4, weights=[w.transpose(1, 0, 2, 3)])  # breaks: wrong transpose
""",
    "H and W swapped in an initialiser": """
start = keras.initializers.Constant(w.transpose(1, 0, 2, 3))
other = layers.Conv2DTranspose(16, 4, kernel_initializer=start)  # breaks: wrong transpose
""",
    "flipped into a transposed layer": "back.set_weights([w[::-1, ::-1], b])  # breaks: wrong transpose",
    "flipped by a function": "back.set_weights([np.flip(w, (0, 1)), b])  # breaks: wrong transpose",
    "turned by half a turn": "back.set_weights([np.rot90(w, 2), b])  # breaks: wrong transpose",
    "flipped and swapped into a transposed layer": """
back.set_weights([np.transpose(w[::-1, ::-1], (0, 1, 3, 2)), b])  # breaks: wrong transpose
""",
    "channels swapped without a flip into a convolution": """
plain.set_weights([np.transpose(w, (0, 1, 3, 2)), b])  # breaks: wrong transpose
""",
    "the axes of the article": "back.set_weights([np.transpose(w, (0, 2, 1, 3))])  # breaks: wrong transpose",
    "weights for a layer that is not built": """
unbuilt = layers.Conv2DTranspose(16, 4)
unbuilt.set_weights([w])  # breaks: layer not built
""",
    "a kernel with its filters first": """
kernel = np.random.rand(32, 4, 4, 16)
conv.set_weights([kernel, b])  # breaks: filters first
""",
    "a transposed kernel with its filters first": """
back.set_weights([np.zeros((16, 4, 4, 32)), b])  # breaks: filters first
""",
    "clone_model": """
model = keras.Model(inputs, ka.adjoint(conv)(code))
copy = keras.models.clone_model(model)  # breaks: tie lost
""",
    "from_config": """
model = ka.autoencoder(keras.Model(inputs, code))
config = model.get_config()
copy = keras.Model.from_config(config)  # breaks: tie lost
""",
    "model_from_json": """
model = keras.Sequential([inputs, conv])
model.add(ka.adjoint(conv))
copy = keras.models.model_from_json(model.to_json())  # breaks: tie lost
""",
    "a variable that is handed around": """
back.kernel = conv.kernel  # breaks: shared variable
""",
    "a transpose that is computed in build": """
class DenseTranspose(layers.Layer):  # breaks: tie not saved
    def __init__(self, dense, **options):
        super().__init__(**options)
        self.dense = dense

    def build(self, shape):
        self.kernel = ops.transpose(self.dense.kernel)  # breaks: shared variable

    def call(self, x):
        return ops.matmul(x, self.kernel)
""",
    "freezing a layer that holds another": """
class DenseTranspose(layers.Layer):  # breaks: tie not saved
    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.dense.kernel))

dense = layers.Dense(7)
decoder = keras.Sequential([DenseTranspose(dense), layers.ReLU()])
decoder.trainable = False  # breaks: frozen source
""",
    "a grouped kernel in an operation": """
grouped = layers.Conv2D(32, 3, groups=4)
image = ops.conv_transpose(grouped(inputs), grouped.kernel)  # breaks: groups lost
""",
    "a depthwise kernel in an operation": """
depthwise = layers.DepthwiseConv2D(3)
image = tf.nn.conv2d_transpose(depthwise(inputs), depthwise.kernel, (1, 28, 28, 1), 1)  # breaks: groups lost
""",
    "a grouped kernel in a transposed layer": """
grouped = layers.Conv2D(32, 3, groups=4)
features = grouped(inputs)
back.set_weights([grouped.get_weights()[0], b])  # breaks: groups lost
""",
    "a Lambda that keeps what was computed from a kernel": """
d = layers.Dense(4)
d(layers.Flatten()(code))
W = ops.transpose(d.kernel)
back_to_it = layers.Lambda(lambda y: y @ W)(features)  # breaks: kernel in a Lambda
""",
    "a kernel in a Lambda": """
image = layers.Lambda(lambda y: ops.conv_transpose(y, conv.kernel))(code)  # breaks: kernel in a Lambda
""",
    "a stride that does not divide the kernel": """
up = layers.Conv2DTranspose(16, 3, strides=2)  # breaks: checkerboard
upper = layers.Conv1DTranspose(filters=16, kernel_size=5, strides=(3,))  # breaks: checkerboard
""",
    "a tied layer that cannot be saved": """
class Transposed(keras.Layer):  # breaks: tie not saved
    def __init__(self, source):
        super().__init__()
        self.source = source

    def call(self, x):
        return ops.conv_transpose(x, self.source.kernel, 2)
""",
}

CORRECT = {
    "the same array": "back.set_weights([w, b])",
    "a copied layer": "plain.set_weights(conv.get_weights())",
    "flipped and swapped into a convolution": "plain.set_weights([w[::-1, ::-1].transpose(0, 1, 3, 2), b])",
    "flipped for a convolution, as kernels of Theano were": "plain.set_weights([w[::-1, ::-1], b])",
    "the function for it": 'plain.set_weights([ka.transpose_kernel(w, "conv"), b])',
    "a layer's own kernel": "back.set_weights([back.get_weights()[0][::-1, ::-1], b])",
    "a matrix": """
first, second = layers.Dense(7), layers.Dense(16)
second(first(inputs))
second.set_weights([first.get_weights()[0].T, b])
""",
    "one tap": """
point = layers.Conv2D(16, 1)
point(code)
other = layers.Conv2D(32, 1)
other(inputs)
point.set_weights([other.get_weights()[0].transpose(0, 1, 3, 2), b])
""",
    "a kernel of another framework": """
kernel = np.load("kernel.npy")
conv.set_weights([np.transpose(kernel, (1, 0, 2, 3)), b])
""",
    "a name that stands for something else now": """
turned = np.transpose(w, (1, 0, 2, 3))
turned = w
back.set_weights([turned, b])
""",
    "a name that may stand for something else": """
turned = np.transpose(w, (1, 0, 2, 3))
if w.shape[0] > 3:
    turned = w
back.set_weights([turned, b])
""",
    "a name that stands for something else in a branch": """
turned = w
if w.shape[0] > 3:
    turned = np.transpose(w, (1, 0, 2, 3))
back.set_weights([turned, b])
""",
    "swapped for something else": "picture = np.transpose(w, (1, 0, 2, 3))",
    "built before": """
built = layers.Conv2DTranspose(16, 4)
built.build((None, 14, 14, 32))
built.set_weights([w, b])
""",
    "built with its model": """
built = layers.Conv2DTranspose(16, 4)
model = keras.Sequential([keras.Input((14, 14, 32)), built])
built.set_weights([w, b])
""",
    "built by unknown code": """
def fill(layer):
    layer.set_weights([w, b])
""",
    "a kernel in Keras' layout": "conv.set_weights([np.random.rand(5, 3, 16, 32), b])",
    "an ambiguous shape": """
square = layers.Conv2D(3, 3)
square(inputs)
square.set_weights([np.zeros((3, 3, 3, 3))])
""",
    "a clone of an untied model": "copy = keras.models.clone_model(keras.Model(inputs, image))",
    "a tied clone": "copy = ka.clone_tied(ka.autoencoder(keras.Model(inputs, code)))",
    "a kernel that is read at every call": """
class DenseTranspose(layers.Layer):
    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, x):
        kernel = ops.transpose(self.dense.kernel)
        return ops.matmul(x, kernel)

    def get_config(self):
        return {**super().get_config(), "dense": keras.saving.serialize_keras_object(self.dense)}

image = DenseTranspose(layers.Dense(7))(inputs)
""",
    "freezing a tied decoder": """
decoder = ka.mirror(keras.Model(inputs, code))
decoder.trainable = False
""",
    "freezing a whole model": """
class DenseTranspose(layers.Layer):
    def __init__(self, dense):
        self.dense = dense

    def call(self, x):
        return x @ ops.transpose(self.dense.kernel)

    def get_config(self):
        return {**super().get_config(), "dense": keras.saving.serialize_keras_object(self.dense)}

dense = layers.Dense(7)
model = keras.Sequential([dense, DenseTranspose(dense)])
model.trainable = False
""",
    "a layer around a layer whose kernel it does not read": """
class Twice(layers.Layer):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(self.inner(x))
""",
    "a tied layer that may inherit what it is saved by": """
from elsewhere import Saved

class Transposed(Saved, keras.Layer):
    def __init__(self, source):
        super().__init__()
        self.source = source

    def call(self, x):
        return ops.conv_transpose(x, self.source.kernel, 2)
""",
    "a kernel without groups in an operation": "image = ops.conv_transpose(code, conv.kernel, 2)",
    "a Lambda with an argument of a kernel's name": """
kernel = conv.kernel
twice = layers.Lambda(lambda kernel: 2 * kernel)(code)
""",
    "a Lambda without a kernel": "twice = layers.Lambda(lambda x: 2 * x)(code)",
    "a stride that divides the kernel": "up = layers.Conv2DTranspose(16, 4, strides=2)",
    "a stride that is not known": "up = layers.Conv2DTranspose(16, 3, strides=w.ndim)",
    "a file that is not there": 'model = keras.saving.load_model("nowhere.keras")',
}


def expected(text):
    marks = [line.partition("# breaks: ") for line in text.splitlines()]
    return [(number, mark) for number, (_, _, mark) in enumerate(marks, 1) if mark]


def lines_found(text, path="script.py"):
    found = [(int(finding.place.split(":")[-2]), finding.rule) for finding in examine_script(text, path)]
    return sorted(found)


@pytest.mark.parametrize("title", BROKEN)
def test_what_goes_wrong_is_found_where_it_is_written(title):
    text = START + BROKEN[title]
    assert expected(text) and lines_found(text) == expected(text)


@pytest.mark.parametrize("title", CORRECT)
def test_correct_scripts_break_no_rule(title):
    assert lines_found(START + CORRECT[title]) == []


def test_every_rule_of_the_table_is_broken_by_a_script():
    seen = {mark for text in BROKEN.values() for _, mark in expected(text)}
    assert seen == {rule.name for rule in RULES if rule.in_script} - {"missing import"}


def test_every_rule_says_what_it_finds_and_how_it_is_fixed():
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        searches = [search for search in (rule.in_model, rule.in_script) if search is not None]
        assert rule.severities and searches
        for search in searches:
            assert search.finds and search.fix
            (parameter,) = inspect.signature(search.load()).parameters
            assert parameter == ("context" if search is rule.in_model else "script")


def test_findings_have_the_severities_of_their_rule():
    severities = {rule.name: rule.severities for rule in RULES}
    for text in BROKEN.values():
        for finding in examine_script(START + text, "script.py"):
            assert finding.severity in severities[finding.rule]


def suggested(start):
    """Every line of code that a finding suggests and that names this package, with the imports suggested above it."""
    for text in BROKEN.values():
        for finding in examine_script(start + text, "script.py"):
            if re.search(r"\b(ka|keras_adjoint)\b", finding.code):
                yield finding.code


def test_suggested_code_has_the_name_or_the_import_of_this_package():
    assert all("ka." in code and "import" not in code for code in suggested(START))
    without = START.replace("import keras_adjoint as ka\n", "")
    found = [code for code in suggested(without) if re.search(r"\bkeras_adjoint\.", code)]
    assert len(found) > 9 and all(code.startswith("import keras_adjoint\n") for code in found)


@pytest.mark.parametrize(
    "activation, has_one",
    [(', activation="relu"', True), (", activation=keras.activations.relu", True), (', activation="linear"', False)],
)
def test_suggested_adjoints_are_of_the_linear_part_where_there_is_an_activation(activation, has_one):
    start = re.sub(r"(conv = layers.Conv2D\(.*)\)", rf"\1{activation})", START)
    findings = (finding for text in BROKEN.values() for finding in examine_script(start + text, "script.py"))
    calls = [call for one in findings for call in re.findall(r"ka\.adjoint\(conv.*?\)", f"{one.fix} {one.code}")]
    assert len(calls) > 9 and set(calls) == {"ka.adjoint(conv, linear_part=True)" if has_one else "ka.adjoint(conv)"}


def test_places_have_columns_in_characters():
    text = START + 'print("Öl", back.set_weights([w[::-1, ::-1], b]))\n'
    (finding,) = examine_script(text, "folder/script.py")
    line = text.splitlines().index('print("Öl", back.set_weights([w[::-1, ::-1], b]))')
    assert finding.place == f"folder/script.py:{line + 1}:{text.splitlines()[line].index('w[') + 1}"


def test_every_finding_says_what_it_does_and_what_to_do():
    for text in BROKEN.values():
        for finding in examine_script(START + text, "script.py"):
            assert finding.what and finding.effect and finding.fix
            assert finding.fixable or "by hand" in finding.fix


@pytest.mark.parametrize(
    "imports",
    [
        "from tensorflow import keras\nfrom tensorflow.keras import layers",
        "import tensorflow as tf\nkeras = tf.keras\nlayers = tf.keras.layers",
        "import keras\nfrom keras.layers import *",
        "import keras.layers\nfrom keras.layers import Conv2D, Conv2DTranspose as Deconv",
        "from keras.layers.convolutional import Convolution2D as Conv2D, Deconvolution2D as Deconv",
    ],
)
def test_keras_is_found_by_any_name(imports):
    known = {"Conv2D": "Conv2D", "Deconv": "Conv2DTranspose"}
    if "Deconv" not in imports:
        prefix = "" if "*" in imports else "layers."
        known = {"Conv2D": f"{prefix}Conv2D", "Deconv": f"{prefix}Conv2DTranspose"}
    if "keras = tf.keras" in imports:
        known = {"Conv2D": "tf.keras.layers.Conv2D", "Deconv": "tf.keras.layers.Conv2DTranspose"}
    name = known if "Deconv" not in imports else {"Conv2D": "Conv2D", "Deconv": "Deconv"}
    text = f"""\
{imports}
conv = {name["Conv2D"]}(8, 3)
back = {name["Deconv"]}(8, 3, strides=2)
conv(x), back(x)
back.set_weights([conv.get_weights()[0][::-1, ::-1]])
"""
    assert [rule for _, rule in lines_found(text)] == ["checkerboard", "wrong transpose"]


def test_a_file_with_ties_needs_this_package(tmp_path):
    conv = layers.Conv2D(4, 3)
    x = keras.Input((8, 8, 3))
    y = conv(x)
    keras.Model(x, ka.adjoint(conv)(y)).save(tmp_path / "tied.keras")
    keras.Model(x, y).save(tmp_path / "plain.keras")
    text = 'import keras\nmodel = keras.models.load_model("FILE")\n'
    script = str(tmp_path / "script.py")
    assert lines_found(text.replace("FILE", "tied.keras"), script) == [(2, "missing import")]
    assert lines_found(text.replace("FILE", "plain.keras"), script) == []
    assert lines_found("import keras_adjoint\n" + text.replace("FILE", "tied.keras"), script) == []


def test_scripts_are_never_run(tmp_path):
    trace = tmp_path / "trace"
    examine_script(f"open({str(trace)!r}, 'w').close()\nraise SystemExit(3)\n", "script.py")
    assert not trace.exists()


@pytest.mark.parametrize("text", ["", "# nothing\n", "pass", "\n\n", "x = 1\r\ny = 2\r\n", "def f(): ...\n"])
def test_scripts_that_do_nothing_break_no_rule(text):
    assert lines_found(text) == []


@pytest.mark.parametrize(
    "start", ["\f", "\f\f", "\f# a page\n\f", "if w is b:\n    pass\n\f    ", "if w is b:\n\f    "]
)
def test_columns_are_counted_in_lines_that_begin_with_a_form_feed(start):
    text = f"{START}{start}back.set_weights([np.transpose(w, (1, 0, 2, 3)), b])\n"
    (finding,) = examine_script(text, "script.py")
    assert finding.code.strip() == "back.set_weights([w, b])"
    assert "back.set_weights([w, b])" in repair_script(text, "script.py", [finding])[0]


def test_edits_touch_nothing_but_the_expression():
    text = "def f(w):\n\tback.set_weights( [(  # wrong\n\t\tnp.zeros((2, 3, 3, 8))\n\t), b ] ) ;x=1\n"
    text = f"{START}back = layers.Conv2DTranspose(2, 3)\r\n{text}"
    findings = [finding for finding in examine_script(text, "script.py") if finding.fixable]
    repaired, gone = repair_script(text, "script.py", findings)
    assert gone == findings and len(gone) == 1
    assert repaired == text.replace("np.zeros((2, 3, 3, 8))", "(np.zeros((2, 3, 3, 8))).transpose(1, 2, 0, 3)")


def test_scripts_may_be_nested_about_as_deeply_as_python_allows():
    terms = " + ".join(["a"] * 900)
    text = START + f"x = {terms}\nback.set_weights([w[::-1, ::-1], b])\n"
    assert [rule for _, rule in lines_found(text)] == ["wrong transpose"]


SHADOWED = {
    "a parameter": "def f(layers):\n    return layers.Conv2DTranspose(8, 3, strides=2)\n",
    "a class": "class Conv2DTranspose:\n    pass\n\nup = Conv2DTranspose(8, 3, strides=2)\n",
    "a local variable": "def f():\n    layers = other()\n    return layers.Conv2DTranspose(8, 3, strides=2)\n",
}


@pytest.mark.parametrize("title", SHADOWED)
def test_a_name_of_its_own_is_not_the_import(title):
    text = "from keras import layers\nfrom keras.layers import *\n" + SHADOWED[title]
    assert lines_found(text) == []
    assert lines_found("from keras.layers import *\nup = Conv2DTranspose(8, 3, strides=2)\n") == [(2, "checkerboard")]
