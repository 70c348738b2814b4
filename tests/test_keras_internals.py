"""What this package takes from Keras beyond its public API is still there, and still means what we take it for.

A failure here says that the installed Keras is newer than what the package knows, or older than what it supports.
Seen on Keras 3.10.0, 3.12.4, 3.14.1 and 3.15.1.
"""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import keras_adjoint
from keras_adjoint import keras_files, keras_internals
from keras_adjoint.keras_internals import (
    CustomScaleLayer,
    Functional,
    LayerScale,
    StochasticDepth,
    activation_operations,
    call_of,
    called_aside,
    calls_of,
    computed_by,
    computing_in,
    existing,
    layers_inside,
    mask_of,
    masked,
    nn_operations,
    nodes_of,
    numpy_operations,
    own_variables,
    producer_of,
    scale_along_codes,
    set_own_trainable,
    stored_kernel,
    stored_variable,
)

SOURCES = Path(keras_adjoint.__file__).parent.parent
PACKAGES = [SOURCES / name for name in ("keras_adjoint", "keras_adjoint_cli") if (SOURCES / name).is_dir()]
THE_MODULES = (Path(keras_internals.__file__), Path(keras_files.__file__))


# --- no other module has any


def private_uses(tree, own):
    """(line, what) of every import from `keras.src` and of every underscored attribute that is none of `own`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("keras.src."):
            yield node.lineno, f"from {node.module}"
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if f"{name.name}.".startswith("keras.src."))
        elif isinstance(node, ast.Attribute):
            is_systems = isinstance(node.value, ast.Name) and node.value.id == "os"  # such as `os._exit`
            if is_private(node.attr) and node.attr not in own and not is_systems:
                yield node.lineno, f".{node.attr}"
            if node.attr == "src" and isinstance(node.value, ast.Name) and node.value.id == "keras":
                yield node.lineno, "keras.src"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value) and name.value not in own:
                yield node.lineno, f"{ast.unparse(node.func)} of {name.value}"


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def own_names(tree):
    """The underscored attributes that the classes of a module have: methods, fields, and what is assigned to `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                    yield statement.name
                elif isinstance(statement, ast.AnnAssign):
                    yield ast.unparse(statement.target)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("vars(self)["):
            yield ast.literal_eval(node.targets[0].slice)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
            yield ast.literal_eval(node.args[1])


@pytest.fixture(scope="module")
def modules():
    files = [path for package in PACKAGES for path in package.rglob("*.py") if path not in THE_MODULES]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


@pytest.mark.any_backend
def test_no_other_module_uses_what_is_private_in_keras(modules):
    own = {name for tree in modules.values() for name in own_names(tree) if is_private(name)}
    found = [
        f"{path.relative_to(SOURCES)}:{line}: {what}"
        for path, tree in modules.items()
        for line, what in private_uses(tree, own)
    ]
    assert not found, f"Put it into {THE_MODULES[0].name}, under a name that says what it is for:\n" + "\n".join(found)


def test_our_layers_have_no_private_names_that_keras_has_too(modules):
    """They would overwrite Keras' own without a word."""
    layer = L.Dense(1)
    layer.build((None, 1))
    model = keras.Sequential([layer])
    keras_names = {*dir(layer), *dir(model), *vars(layer), *vars(model)}
    tied = [tree for path, tree in modules.items() if path.parent.name in ("layers", "models")]
    own = {name for tree in tied for name in own_names(tree) if is_private(name)}
    assert sorted(own & keras_names) == []


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "text",
    [
        "from keras.src import ops",
        "from keras.src.ops import numpy",
        "import keras.src.ops",
        "keras.src.ops",
        "layer._layers",
        "self._inbound_nodes",
        "getattr(layer, '_kernel', None)",
    ],
)
def test_the_search_finds(text):
    assert list(private_uses(ast.parse(text), {"_own"}))
    assert not list(private_uses(ast.parse("self._own, layer.__class__, keras.ops.add"), {"_own"}))


# --- graphs


@pytest.fixture
def branching():
    """A model that calls one layer twice and joins what it gives by an operation; and that layer."""
    inputs = keras.Input((3,), name="start")
    dense = L.Dense(3, name="twice")
    first = dense(inputs)
    return keras.Model(inputs, first + dense(first)), dense


def test_a_functional_model_is_what_keras_model_returns(branching):
    assert type(branching[0]) is Functional
    assert not isinstance(keras.Sequential(), Functional)


def test_the_producer_of_a_tensor(branching):
    model, dense = branching
    assert type(producer_of(model.outputs[0])) is numpy_operations.Add
    assert producer_of(model.inputs[0]).name == "start"
    assert isinstance(producer_of(model.inputs[0]), L.InputLayer)
    assert producer_of(calls_of(dense)[0].output_tensors[0]) is dense


def test_the_calls_of_a_layer_in_their_order(branching):
    model, dense = branching
    first, second = calls_of(dense)
    assert first.input_tensors[0] is model.inputs[0]
    assert second.input_tensors[0] is first.output_tensors[0]
    assert second.arguments.args[0] is first.output_tensors[0]
    assert second.arguments.kwargs == {}
    assert call_of(first.output_tensors[0]) is first
    assert call_of(second.output_tensors[0]) is second
    assert not calls_of(L.Dense(1))
    assert not calls_of(object())


def test_the_nodes_of_a_model_in_an_order_in_which_they_can_run(branching):
    model, dense = branching
    dense(keras.Input((3,)))  # a call outside of the model is none of its nodes
    nodes = list(nodes_of(model))
    assert [node.operation for node in nodes[:2]] == [dense, dense]
    assert type(nodes[2].operation) is numpy_operations.Add
    ready = {id(model.inputs[0])}
    for node in nodes:
        assert all(id(tensor) in ready for tensor in node.input_tensors)
        ready.update(map(id, node.output_tensors))
    assert id(model.outputs[0]) in ready


def test_a_symbolic_tensor_is_given_sizes_that_were_open():
    x = keras.KerasTensor((None, None, 3))
    keras_internals.set_shape(x, [None, 5, 3])
    assert x.shape == (None, 5, 3) and keras.ops.flip(x, 1).shape == (None, 5, 3)


def test_a_symbolic_tensor_that_keras_takes_for_sparse_is_dense_again():
    x = keras.Input((3,)) * 0.5
    keras_internals.set_dense(x)
    assert not x.sparse and not keras.ops.flip(x, 1).sparse


def test_a_nodes_arguments_with_other_tensors_filled_in(branching):
    model, dense = branching
    node = calls_of(dense)[0]
    (argument,), keywords = node.arguments.fill_in({id(model.inputs[0]): "another"})
    assert argument == "another"
    assert keywords == {}


@pytest.mark.parametrize(
    ("operate", "kind"),
    [
        (lambda x: x + x, numpy_operations.Add),
        (lambda x: x - x, numpy_operations.Subtract),
        (lambda x: -x, numpy_operations.Negative),
        (lambda x: x * x, numpy_operations.Multiply),
        (lambda x: x / 2, numpy_operations.TrueDivide),
        (lambda x: ops.divide(x, 2), numpy_operations.Divide),
        (lambda x: ops.reshape(x, (-1, 2, 2)), numpy_operations.Reshape),
        (lambda x: ops.expand_dims(x, 1), numpy_operations.ExpandDims),
        (lambda x: ops.squeeze(ops.expand_dims(x, 1), 1), numpy_operations.Squeeze),
        (ops.transpose, numpy_operations.Transpose),
        (lambda x: ops.concatenate([x, x]), numpy_operations.Concatenate),
        (lambda x: ops.matmul(x, np.ones((4, 2), "float32")), numpy_operations.Matmul),
        (lambda x: ops.dot(x, np.ones((4, 2), "float32")), numpy_operations.Dot),
        (ops.tanh, numpy_operations.Tanh),
        (ops.exp, numpy_operations.Exp),
        (keras.activations.relu, activation_operations.ReLU),
        (activation_operations.Mish(), activation_operations.Mish),
        *((getattr(ops, name), getattr(nn_operations, kind)) for name, kind in [
            ("celu", "Celu"), ("elu", "Elu"), ("gelu", "Gelu"), ("glu", "Glu"), ("hard_shrink", "HardShrink"),
            ("hard_sigmoid", "HardSigmoid"), ("log_softmax", "LogSoftmax"), ("soft_shrink", "SoftShrink"),
            ("sparse_plus", "SparsePlus"), ("sparse_sigmoid", "SparseSigmoid"), ("sparsemax", "Sparsemax"),
            ("squareplus", "Squareplus"), ("tanh_shrink", "TanhShrink"),
            ("hard_silu", "HardSilu"), ("hard_tanh", "HardTanh"), ("leaky_relu", "LeakyRelu"),
            ("log_sigmoid", "LogSigmoid"), ("relu", "Relu"), ("relu6", "Relu6"), ("selu", "Selu"),
            ("sigmoid", "Sigmoid"), ("silu", "Silu"), ("softmax", "Softmax"), ("softplus", "Softplus"),
            ("softsign", "Softsign"),
        ]),
    ],
)  # fmt: skip
def test_the_classes_of_operations(operate, kind):
    assert type(producer_of(operate(keras.Input((4,))))) is kind


@pytest.mark.parametrize(
    ("operate", "kind"), [(ops.conv, nn_operations.Conv), (ops.conv_transpose, nn_operations.ConvTranspose)]
)
def test_the_classes_of_convolutions(operate, kind):
    assert type(producer_of(operate(keras.Input((4, 4, 2)), np.ones((3, 3, 2, 2), "float32"), strides=1))) is kind


def test_the_name_of_an_operation_can_be_changed():
    inputs = keras.Input((2,))
    opposite = -inputs
    outputs = -opposite
    producer_of(opposite).name = "opposite"
    config = keras.Model(inputs, outputs).get_config()
    assert config["layers"][1]["name"] == "opposite"
    producer_of(opposite).name = producer_of(outputs).name
    with pytest.raises(ValueError, match="All operation names should be unique"):
        keras.Model(inputs, outputs)


def test_the_nodes_of_a_sequential_model():
    dense = L.Dense(2)
    assert [node.operation for node in nodes_of(keras.Sequential([keras.Input((2,)), dense]))] == [dense]
    assert list(nodes_of(keras.Sequential([dense]))) == []


# --- layers and their variables


def test_the_layers_inside():
    dense, norm = L.Dense(3), L.BatchNormalization()
    inner = keras.Sequential([dense])
    outer = keras.Sequential([keras.Input((3,)), inner, norm, inner])
    assert [layer for layer in layers_inside(outer, recursive=False) if layer in (inner, norm)] == [inner, norm]
    found = layers_inside(outer)
    assert outer not in found
    assert sorted(map(id, (layer for layer in found if layer in (dense, norm, inner)))) == sorted(
        map(id, (dense, norm, inner))
    )
    wrapper = L.TimeDistributed(dense)
    assert layers_inside(wrapper) == [dense]


def test_a_layers_own_variables():
    wrapper, norm = L.TimeDistributed(L.Dense(2)), L.BatchNormalization()
    wrapper.build((None, 4, 3))
    norm.build((None, 3))
    assert own_variables(wrapper) == ()
    assert [variable.name for variable in own_variables(norm)] == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_training_of_a_layers_own_variables_alone():
    class Scaled(L.Layer):
        def __init__(self):
            super().__init__()
            self.inner = L.Dense(2)

        def build(self, shape):
            self.inner.build(shape)
            self.scale = self.add_weight(shape=(), name="scale")

    layer = Scaled()
    layer.build((None, 3))
    set_own_trainable(layer, False)
    assert not layer.trainable
    assert not layer.scale.trainable
    assert layer.inner.trainable
    assert layer.trainable_variables == []
    set_own_trainable(layer, True)
    assert len(layer.trainable_variables) == 3


def test_classes_that_this_keras_lacks_are_left_out():
    assert existing(numpy_operations, "Split", "NoSuchOperation") == [numpy_operations.Split]


def test_masks_travel_with_tensors():
    x = ops.ones((2, 3, 4))
    assert mask_of(x) is None and mask_of(masked(x, None)) is None
    mask = ops.ones((2, 3), "bool")
    assert masked(x, mask) is x and mask_of(x) is mask
    assert mask_of(L.Masking()(keras.Input((3, 4)))).shape == (None, 3)


def test_what_is_called_aside_is_at_inference_and_leaves_no_losses():
    inner = L.Dropout(0.5)

    class Outer(L.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return inner(x)

    class Around(L.Layer):
        def __init__(self):
            super().__init__()
            self.outer = Outer()

        def call(self, x):
            with called_aside(self.outer):
                aside = self.outer(x)
            return aside, self.outer(x)

    around = Around()
    aside, usual = around(ops.ones((8, 8)), training=True)
    assert (ops.convert_to_numpy(aside) == 1).all()
    assert (ops.convert_to_numpy(usual) == 0).any()
    assert len(around.losses) == 1
    with keras.StatelessScope(collect_losses=True) as scope:
        around(ops.ones((8, 8)), training=True)
        assert len(scope.losses) == 1


# --- the layers of Keras' own networks


@pytest.mark.parametrize(
    ("name", "call"),
    [("moments", lambda x: ops.moments(x, (0, 1))[0]), ("max_pool", lambda x: ops.max_pool(x, (2,), (2,)))],
)
def test_functions_are_computed_by_others_within_one_thread(name, call):
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32"))
    before = call(x)
    with computed_by({name: lambda original, x, *args, **options: original(2 * x, *args, **options)}):
        within = call(x)
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(lambda: call(x)).result()
        with computed_by({}):
            nested = call(x)
    assert_equal(within, 2 * before)
    assert_equal(nested, 2 * before)
    assert_equal(beside, before)
    assert_equal(call(x), before)


def assert_equal(found, expected):
    np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(expected))


def test_the_layer_scale_of_convnext_multiplies_by_gamma():
    scale = LayerScale(0.5, 3)
    scale.build((None, 3))
    np.testing.assert_allclose(ops.convert_to_numpy(scale.gamma), [0.5] * 3)
    np.testing.assert_allclose(ops.convert_to_numpy(scale(np.ones((2, 3), "float32"))), 0.5 * np.ones((2, 3)))


def test_the_stochastic_depth_of_convnext_is_the_identity_at_inference():
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(StochasticDepth(0.5)(x, training=False)), x)


def test_the_custom_scale_layer_adds_its_second_input_scaled():
    layer = CustomScaleLayer(scale=0.25)
    assert layer.scale == 0.25
    np.testing.assert_allclose(ops.convert_to_numpy(layer([np.ones((1, 2)), np.ones((1, 2))])), [[1.25, 1.25]])


# --- quantised kernels


@pytest.mark.any_backend
@pytest.mark.parametrize("equation", ["abc,cd->abd", "abc,dc->abd", "abc,cde->abde"])
def test_codes_and_scale_of_a_quantised_einsum_give_its_kernel(equation):
    shape = (None, 4) if len(equation.partition("->")[2]) == 3 else (None, 4, 2)
    layer = L.EinsumDense(equation, shape)
    layer.build((2, 5, 3))
    before = ops.convert_to_numpy(layer.kernel)
    layer.quantize("int8")
    codes = stored_variable(layer, "kernel")
    assert keras.backend.standardize_dtype(codes.dtype) == "int8"
    scale = scale_along_codes(layer, ops.convert_to_tensor(layer.kernel_scale))
    kernel = ops.convert_to_numpy(codes).astype("float32") / ops.convert_to_numpy(scale)
    np.testing.assert_allclose(kernel, before, atol=np.abs(before).max() / 200)


@pytest.mark.parametrize(("make", "name"), [(lambda: L.Dense(4), "kernel"), (lambda: L.Embedding(5, 4), "embeddings")])
def test_the_variable_behind_a_lora_kernel(make, name):
    layer = make()
    layer.build((None, 3))
    before = ops.convert_to_numpy(getattr(layer, name))
    layer.enable_lora(2)
    variable = stored_variable(layer, name)
    assert isinstance(variable, keras.Variable)
    assert not isinstance(getattr(layer, name), keras.Variable)
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), before)


def test_the_variable_that_holds_a_kernel():
    dense, depthwise = L.Dense(4), L.DepthwiseConv2D(3)
    dense.build((None, 3))
    depthwise.build((None, 5, 5, 2))
    assert stored_kernel(depthwise) is depthwise.kernel
    assert stored_kernel(dense) is dense.kernel
    dense.enable_lora(2)
    assert stored_kernel(dense) in dense.non_trainable_variables
    assert stored_kernel(L.ReLU()) is None


def test_an_object_computes_in_another_dtype_from_the_same_variables_and_leaves_nothing_behind():
    layer = L.TimeDistributed(L.Dense(2, dtype="mixed_bfloat16", activity_regularizer="l2"), dtype="mixed_bfloat16")
    x = np.full((1, 2, 3), 1 / 3, "float32")
    rounded = layer(x)
    calls, losses = len(calls_of(layer)), len(layer.losses)
    wide = computing_in(layer, "float32")
    found = wide(x)
    expected = x @ ops.convert_to_numpy(layer.layer.kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)
    assert wide.variables[0] is layer.variables[0] and layers_inside(wide) == [wide.layer]
    assert layer.compute_dtype == layer.layer.compute_dtype == "bfloat16" and rounded.dtype == layer(x).dtype
    assert (len(calls_of(layer)), len(layer.losses)) == (calls, losses)
    model = keras.Sequential([keras.Input((2, 3)), layer])
    assert computing_in(model, "float32")(x).dtype == found.dtype and len(calls_of(layer)) == calls + 1
    assert computing_in(L.Dense(2, dtype=keras.dtype_policies.DTypePolicyMap()), "float32") is None
