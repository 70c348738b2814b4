"""The mirror of a linear model is its adjoint, wherever no policy has a say: every case of one is a case of the other."""

import numpy as np
import pytest
from helpers import in_turn
from hypothesis import given, settings
from keras import Input, layers, ops
from linear_operations import LINEAR
from operators_of_models import assert_adjoint_of, assert_close, flat, model_of, run, saved_and_loaded
from random_graphs import graphs
from test_every_linear_operation import built

import keras_adjoint as ka

EXACT = {"bias": "none", "norm": "adjoint", "preprocessing": "adjoint", "pooling": "average"}
CONSTANT = np.random.default_rng(0).normal(size=(1, 4, 3)).astype("float32")
OF_TWO = np.concatenate([CONSTANT, CONSTANT])  # where Keras wants one for each sample
MASK = np.array([[False, True, True, True]])

# What is linear because all but one of its tensors are constants. (function, samples)
WITH_CONSTANTS = {
    "multiply": (lambda x: layers.Multiply()([x, CONSTANT]), None),
    "multiply by a tensor": (lambda x: layers.Multiply()([x, ops.convert_to_tensor(CONSTANT)]), None),
    "multiply twice": (lambda x: layers.Multiply()([x, CONSTANT, 2 * CONSTANT]), None),
    "multiply by an embedding": (lambda x: x * layers.Embedding(4, 3)(ops.convert_to_tensor(np.arange(4))), None),
    "add": (lambda x: layers.Add()([x, CONSTANT]), None),
    "subtract": (lambda x: layers.Subtract()([x, CONSTANT]), None),
    "average": (lambda x: layers.Average()([x, CONSTANT, x]), None),
    "concatenate": (lambda x: layers.Concatenate(axis=1)([x, OF_TWO]), 2),
    "dot": (lambda x: layers.Dot(axes=(2, 2))([x, OF_TWO]), 2),
    "operation": (lambda x: ops.multiply(CONSTANT, x), None),
    "division": (lambda x: x / CONSTANT, None),
    "mean by a mask": (lambda x: layers.GlobalAveragePooling1D()(x, mask=MASK), None),
    "mean by a mask, channels first": (
        lambda x: layers.GlobalAveragePooling1D("channels_first")(ops.transpose(x, (0, 2, 1)), mask=MASK), None
    ),
}  # fmt: skip


def samples(model):
    generator = np.random.default_rng(1)
    return [generator.normal(size=(x.shape[0] or 2, *x.shape[1:])).astype("float32") for x in model.inputs]


def assert_mirrors_are(adjoint, model):
    """The mirror, and the autoencoder behind the encoder, compute an adjoint of a model."""
    xs = samples(model)
    ys = run(model, xs)
    others = [np.random.default_rng(2).normal(size=y.shape).astype("float32") for y in ys]
    assert_close(flat(run(ka.mirror(model, **EXACT), others)), flat(run(adjoint, others)))
    assert_close(flat(run(ka.autoencoder(model, **EXACT), xs)), flat(run(adjoint, ys)), 1e-3)


@pytest.mark.parametrize("name", in_turn(WITH_CONSTANTS))
def test_a_mirror_knows_what_is_linear_by_its_constants(name, tmp_path):
    function, batch = WITH_CONSTANTS[name]
    x = Input(batch_shape=(batch, 4, 3))
    model = model_of(x, function(x))
    adjoint = ka.adjoint(model)
    assert_adjoint_of(adjoint, model, samples(model))
    assert_mirrors_are(adjoint, model)
    ys = run(model, samples(model))
    for make in (ka.mirror, ka.autoencoder):
        made = make(model, **EXACT)
        given = ys if make is ka.mirror else samples(model)
        assert_close(flat(run(saved_and_loaded(made, tmp_path / "made.keras"), given)), flat(run(made, given)))


@pytest.mark.parametrize("choice", ["same", "gradient", "recorded"])
def test_no_policy_about_gates_is_about_a_product_with_constants(choice):
    x = Input((4, 3))
    model = model_of(x, layers.Multiply()([x, CONSTANT]))
    policies = {"gates": choice} if choice == "recorded" else {"activation": choice}
    assert_close(flat(run(ka.autoencoder(model, **policies), samples(model))), flat([samples(model)[0] * CONSTANT**2]))


@pytest.mark.any_backend
@pytest.mark.parametrize(("name", "number"), [(name, n) for name in LINEAR for n in range(len(LINEAR[name]))])
def test_the_mirror_of_a_linear_function_is_its_adjoint(name, number):
    model = built(LINEAR[name][number])
    assert_mirrors_are(ka.adjoint(model), model)


@pytest.mark.in_turn("torch")
@settings(max_examples=settings.default.max_examples // 8)
@given(graphs())
def test_the_mirror_of_a_random_graph_is_its_adjoint(drawn):
    if not drawn.depends_on_mask and not drawn.reads_mask:
        assert_mirrors_are(ka.adjoint(drawn.model), drawn.model)
