"""Automatic adjoints: of layers without a rule that prove to be linear, by transposing the backend's own derivative."""

import gc
import textwrap

import autodiff
import keras
import numpy as np
import pytest
from command_line import run_in_new_process
from encoders import assert_close, values
from helpers import BACKEND, matrices
from keras import layers as L
from keras import ops

import keras_adjoint as ka
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.testing.pairs import Packing

PACKAGE = "test_automatic"


@keras.saving.register_keras_serializable(PACKAGE)
class OwnDense(L.Dense):
    """Dense, by a call of its own."""

    def call(self, x):
        return ops.add(ops.matmul(x, self.kernel), self.bias)


@keras.saving.register_keras_serializable(PACKAGE)
class OwnConv(L.Conv2D):
    def call(self, x):
        return super().call(x)


@keras.saving.register_keras_serializable(PACKAGE)
class Differences(L.Layer):
    def call(self, x):
        return x[:, 1:] - x[:, :-1]


@keras.saving.register_keras_serializable(PACKAGE)
class Composed(L.Layer):
    """Layers inside of layers, one of them random in training, one with a loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(4, activity_regularizer="l2", dtype=self.dtype_policy)
        self.drop = L.Dropout(0.5, dtype=self.dtype_policy)
        self.second = L.Dense(3, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], 4))

    def call(self, x):
        return self.second(self.drop(self.first(x)))


@keras.saving.register_keras_serializable(PACKAGE)
class Halves(L.Layer):
    """A dictionary of two tensors from a list of two."""

    def call(self, xs):
        return {"sum": xs[0] + 2 * xs[1], "flat": xs[1][:, 0]}


@keras.saving.register_keras_serializable(PACKAGE)
class Named(L.Layer):
    def call(self, xs):
        return xs["b"] - 3 * xs["a"]


@keras.saving.register_keras_serializable(PACKAGE)
class TwoArguments(L.Layer):
    def call(self, x, other, factor=1.0):
        return x + factor * other


@keras.saving.register_keras_serializable(PACKAGE)
class OwnModel(keras.Model):
    """A model with a call of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3)

    def call(self, x):
        return self.dense(x) + self.dense(x[:, ::-1] if BACKEND != "torch" else ops.flip(x, axis=1))


def called(layer, *shapes, **keywords):
    layer(*(keras.tree.map_shape_structure(keras.Input, shape) for shape in shapes), **keywords)
    for number, weight in enumerate(layer.weights):  # not by their paths, which count the layers made by tests before
        weight.assign(np.random.default_rng(number).normal(size=weight.shape))
    return layer


# How to make a layer, the shapes of its inputs, and those of its outputs.
LAYERS = {
    "dense": (lambda: called(OwnDense(4), (6,)), [(6,)], [(4,)]),
    "convolution": (lambda: called(OwnConv(3, 3, strides=2), (7, 6, 2)), [(7, 6, 2)], [(3, 2, 3)]),
    "differences": (lambda: called(Differences(), (5, 2)), [(5, 2)], [(4, 2)]),
    "composed": (lambda: called(Composed(), (5,)), [(5,)], [(3,)]),
    "lambda": (lambda: called(L.Lambda(lambda x: 2 * ops.flip(x, axis=1) + 1), (4, 2)), [(4, 2)], [(4, 2)]),
    "lists and dictionaries": (
        lambda: called(Halves(), [(3, 2), (3, 2)]),
        [(3, 2), (3, 2)],
        [(2,), (3, 2)],  # in the order of the names
    ),
    "dictionary": (lambda: called(Named(), {"a": (3,), "b": (3,)}), [(3,), (3,)], [(3,)]),
    "two arguments": (lambda: called(TwoArguments(), (3,), (3,), factor=4.0), [(3,), (3,)], [(3,)]),
    "model": (lambda: called(OwnModel(), (5,)), [(5,)], [(3,)]),
}
TRAINED = ["dense", "convolution", "composed", "model"]


def random(*shape, seed=0, dtype="float32"):
    return ops.convert_to_tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def as_dictionary(name):
    return (lambda ys: {"sum": ys[1], "flat": ys[0]}) if name == "lists and dictionaries" else lambda ys: ys[0]


def transposed(name, layer, adjoint):
    """(A, Aᵀ) between packed tensors."""
    _, xs, ys = LAYERS[name]
    inputs, outputs = (Packing([(None, *shape) for shape in shapes]) for shapes in (xs, ys))
    structure = as_dictionary(name)

    def forward(x):
        parts = inputs.split(x)
        if name == "two arguments":
            return outputs.join([parts[0] + 4.0 * parts[1]])
        x = {"a": parts[0], "b": parts[1]} if name == "dictionary" else parts if len(parts) > 1 else parts[0]
        return outputs.join(keras.tree.flatten(adjoint.apply_forward(x)))

    def backward(y):
        return inputs.join(keras.tree.flatten(adjoint(structure(outputs.split(y)))))

    return (forward, inputs.shape[1:]), (backward, outputs.shape[1:])


@pytest.mark.parametrize("name", LAYERS)
def test_the_matrix_is_the_transpose(name):
    layer = LAYERS[name][0]()
    adjoint = ka.adjoint(layer)
    assert isinstance(adjoint, AutomaticAdjoint) and adjoint.exact and "AutomaticAdjoint" in repr(adjoint)
    a, b = matrices(transposed(name, layer, adjoint), "float32")
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a.T, rtol=0, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_come_back_in_the_structure_of_the_call_and_symbolically_alike(name):
    layer = LAYERS[name][0]()
    adjoint = ka.adjoint(layer)
    _, xs, ys = LAYERS[name]
    structure = as_dictionary(name)
    found = adjoint(structure([random(2, *shape) for shape in ys]))
    symbolic = adjoint(structure([keras.Input(shape) for shape in ys]))
    keras.tree.assert_same_structure(found, symbolic)
    assert [tuple(x.shape) for x in keras.tree.flatten(found)] == [(2, *shape) for shape in xs]
    assert [x.shape for x in keras.tree.flatten(symbolic)] == [(None, *shape) for shape in xs]
    assert isinstance(found, dict) == (name == "dictionary")


@pytest.mark.parametrize("name", ["dense", "lambda", "composed", "model"])
def test_check_adjoint_passes(name):
    layer = LAYERS[name][0]()
    assert ka.check_adjoint(layer, ka.adjoint(layer))
    assert ka.adjoint(ka.adjoint(LAYERS["differences"][0]())).name == "differences"


# --- derivatives


def pair(kind):
    """(automatic adjoint, the one by the rule of the same layer)."""
    own, stock, shape = {
        "dense": (lambda: OwnDense(4), lambda: L.Dense(4), (6,)),
        "convolution": (lambda: OwnConv(3, 3, strides=2), lambda: L.Conv2D(3, 3, strides=2), (7, 6, 2)),
    }[kind]
    one, other = called(own(), shape), called(stock(), shape)
    for new, old in zip(one.weights, other.weights, strict=True):
        new.assign(old)
    return ka.adjoint(one), ka.adjoint(other)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_gradients_by_weights_and_by_y_are_those_of_the_adjoint_by_rule(kind):
    adjoints = pair(kind)
    y = random(2, *LAYERS[kind][2][0])

    def gradients(adjoint):
        (by_weights,) = autodiff.kernel_gradients(lambda: ops.sum(adjoint(y) ** 3), [adjoint.source.kernel])
        (by_y,) = autodiff.gradients(lambda y: ops.sum(adjoint(y) ** 3), [y])
        return by_weights, by_y

    for one, other in zip(*map(gradients, adjoints), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_second_derivatives_are_those_of_the_adjoint_by_rule():
    y, z = random(2, 4), random(2, 4, seed=1)

    def product(adjoint):
        return autodiff.hessian_product(lambda y, z: ops.sum(adjoint(y) ** 3 * adjoint(z)), (y, z), (z, y))

    for one, other in zip(*map(product, pair("dense")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dense", "convolution", "composed", "lambda"])
def test_compiled_it_computes_what_it_does_eagerly(name):
    adjoint = ka.adjoint(LAYERS[name][0]())
    y = random(2, *LAYERS[name][2][0])
    expected, found = adjoint(y), autodiff.compiled(adjoint)(y)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5)


def test_stateless_call_reads_the_weights_that_it_is_given():
    adjoint = ka.adjoint(LAYERS["dense"][0]())
    y = random(2, 4)
    adjoint(y)  # builds it
    doubled = [2 * variable.value for variable in adjoint.trainable_variables]
    found, _ = adjoint.stateless_call(doubled, adjoint.non_trainable_variables, y)
    np.testing.assert_allclose(ops.convert_to_numpy(found), 2 * ops.convert_to_numpy(adjoint(y)), rtol=1e-5, atol=1e-5)


# --- the life of a tie


def autoencoder(name):
    make, (x,), _ = LAYERS[name]
    layer = make()
    inputs = keras.Input(x)
    return layer, keras.Model(inputs, ka.adjoint(layer)(layer(inputs)))


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_trained_saved_loaded_and_cloned_tied(name, tmp_path):
    layer, model = autoencoder(name)
    assert model.count_params() == layer.count_params()
    x = np.random.default_rng(0).normal(size=(8, *LAYERS[name][1][0])).astype("float32")
    before = [ops.convert_to_numpy(weight) for weight in layer.trainable_weights]
    model.compile(optimizer=keras.optimizers.SGD(1e-4), loss="mse")
    model.fit(x, x, epochs=2, batch_size=4, verbose=0)
    kernels = [n for n, weight in enumerate(layer.trainable_weights) if weight.name == "kernel"]
    assert all(np.abs(ops.convert_to_numpy(layer.trainable_weights[n]) - before[n]).max() > 0 for n in kernels)
    model.save(tmp_path / "m.keras")
    for other in (keras.saving.load_model(tmp_path / "m.keras"), ka.clone_tied(model)):
        np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-4)
        assert ka.is_tied(other) and other.count_params() == layer.count_params()


def test_a_copy_owns_its_kernels():
    layer = LAYERS["composed"][0]()
    copy, tied = ka.adjoint(layer, tied=False), ka.adjoint(layer)
    y = random(2, 3)
    before = ops.convert_to_numpy(tied(y))
    for weight in layer.weights:
        weight.assign(0 * weight)
    np.testing.assert_allclose(ops.convert_to_numpy(copy(y)), before, rtol=1e-5, atol=1e-6)
    assert not np.abs(ops.convert_to_numpy(tied(y))).any()
    assert not {id(v) for v in layer.variables} & {id(v) for v in copy.variables}


def test_training_is_at_inference_and_adds_no_loss():
    layer, model = autoencoder("composed")
    adjoint = model.layers[-1]
    y = random(2, 3)
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(adjoint(y, **options)) for options in ({}, {"training": True}))
    )
    x = random(2, 5)
    model(x, training=True)
    assert len(model.losses) == 1  # that of the layer's own call
    outer = L.Dropout(0.5)

    class Around(L.Layer):
        def call(self, x):
            return outer(adjoint(x))

    around = Around()
    around(ops.ones((64, 3)), training=True)
    found = ops.convert_to_numpy(around(ops.ones((64, 3)), training=True))
    assert (found == 0).any()  # the layers behind it are in training


@pytest.mark.any_backend
@pytest.mark.exhaustive  # `make test` loads them among others, see test_fresh_process.py
def test_another_process_loads_it(tmp_path):
    inputs = keras.Input((4,))
    registered = type("Same", (L.Dense,), {"call": lambda self, x: L.Dense.call(self, x)})(3)
    models = {}
    for code, layer in (("registered", registered), ("lambda", L.Lambda(lambda x: 2 * x + 1))):
        outputs = layer(inputs)
        models[code] = keras.Model(inputs, ka.adjoint(layer)(outputs))
        models[code].save(tmp_path / f"{code}.keras")
    script = f"""
        import keras, numpy as np, keras_adjoint as ka
        class Same(keras.layers.Dense):
            def call(self, x): return keras.layers.Dense.call(self, x)
        for code in "registered", "lambda":
            path = f"{tmp_path}/{{code}}.keras"
            try:
                keras.saving.load_model(path, custom_objects=dict(Same=Same))
                print("loaded")
            except ValueError as error:
                print("safe" if "safe_mode" in str(error) or "unsafe" in str(error) else error)
            model = keras.saving.load_model(path, custom_objects=dict(Same=Same), safe_mode=False)
            print(*np.ravel(model.predict(np.ones((1, 4), "float32"), verbose=0)), ka.is_tied(model))
    """
    run = run_in_new_process("-c", textwrap.dedent(script))
    lines = run.stdout.strip().splitlines()[-4:]
    assert lines[::2] == ["loaded", "safe"]
    for (code, model), line in zip(models.items(), lines[1::2], strict=True):
        *values, tied = line.split()
        expected = model.predict(np.ones((1, 4), "float32"), verbose=0)
        np.testing.assert_allclose(np.array(values, float), np.ravel(expected), rtol=1e-5)
        assert tied == str(code == "registered")


# --- sizes


def test_unknown_sizes_are_asked_for_or_come_from_the_graph():
    layer = called(Differences(), (None, 2))
    adjoint = ka.adjoint(layer)
    y = random(1, 4, 2)
    with pytest.raises(ka.SizeError, match=r"output_size=.*Received: y.shape=\(1, 4, 2\)"):
        adjoint(y)
    for size in ((5, 2), (1, 5, 2), 5, np.array([5, 2]), random(1, 5, 2)):
        assert tuple(adjoint(y, output_size=size).shape) == (1, 5, 2)
    assert tuple(ka.adjoint(layer, output_size=(5, 2))(y).shape) == (1, 5, 2)
    with pytest.raises(ValueError, match=r"takes the output of .*Received: a tensor of shape \(1, 4, 2\)"):
        adjoint(y, output_size=(7, 2))


def test_of_two_recorded_sizes_y_says_which():
    layer = called(called(Differences(), (5, 2)), (9, 2))
    adjoint = ka.adjoint(layer)
    assert [tuple(adjoint(random(1, n - 1, 2)).shape)[1] for n in (5, 9)] == [5, 9]
    with pytest.raises(ValueError, match="takes the output of"):
        adjoint(random(1, 6, 2))
    called(layer, (12, 2))
    assert tuple(adjoint(random(1, 4, 2)).shape) == (1, 5, 2)


def test_an_input_of_unknown_shape_is_asked_for():
    layer = L.Lambda(lambda x: 2 * x)
    with pytest.raises(ka.NoRuleError, match=r"keras.Input.*output_size=.*Received"):
        ka.adjoint(layer)
    assert tuple(ka.adjoint(layer, output_size=(3,))(random(1, 3)).shape) == (1, 3)


# --- refused


@keras.saving.register_keras_serializable(PACKAGE)
class Counting(L.Layer):
    def build(self, input_shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return 2 * x


REFUSED = {
    "recurrent": (lambda: called(L.SimpleRNN(3), (4, 3)), "not linear: of -1 · x"),
    "softmax": (lambda: called(L.Softmax(), (4,)), "not linear: of -1 · x"),
    "product": (lambda: called(L.Dot(1), [(4,), (4,)]), "not linear"),
    "clip": (lambda: called(L.Lambda(lambda x: ops.clip(x, -1e3, 1e3)), (4,)), "not linear: of 1024 · x"),
    "counting": (lambda: called(Counting(), (4,)), "changes its own variables"),
    "not built": (lambda: OwnDense(3), "not built"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_is_refused_with_the_reason(name):
    make, words = REFUSED[name]
    with pytest.raises(ka.NoRuleError, match=f"No adjoint is known .*{words}.*Received: "):
        ka.adjoint(make())


def test_an_activation_is_left_out_where_the_linear_part_is_asked_for():
    layer = called(L.Conv1D(3, 3, activation="relu"), (7, 2))
    with pytest.raises(ka.NoRuleError, match=r"Pass `linear_part=True`.*Received: activation='relu'"):
        ka.adjoint(layer)
    adjoint = ka.adjoint(layer, linear_part=True)
    assert type(adjoint).__name__ == "AdjointConv" and ka.check_adjoint(layer, adjoint)
    with pytest.raises(ValueError, match="`linear_part` must be `True` or `False`"):
        ka.adjoint(layer, linear_part="yes")
    with pytest.raises(ka.NoRuleError, match="not linear"):
        ka.adjoint(called(L.SimpleRNN(3), (4, 3)), linear_part=True)


def test_options_that_need_a_rule_are_refused():
    with pytest.raises(ValueError, match="takes no `channels`; it takes name, output_size, tied"):
        ka.adjoint(LAYERS["dense"][0](), channels=3)


def test_it_holds_nothing_alive():
    import weakref

    layer = LAYERS["dense"][0]()
    gone = weakref.ref(ka.adjoint(layer))
    gc.collect()
    assert gone() is None


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("cut", "shape"),
    [(lambda x: x[:, 4:], (4,)), (lambda x: 2 * x, (0,)), (lambda x: ops.sum(x, axis=-1), (3, 0))],
    ids=["empty slice", "empty input", "empty sums"],
)
def test_what_gives_or_takes_no_numbers_is_linear(cut, shape):
    layer = called(L.Lambda(cut), shape)
    y = layer(np.ones((2, *shape), "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(ka.adjoint(layer)(y)), np.zeros((2, *shape)))


def test_another_size_than_that_of_the_call_is_no_sign_of_not_being_linear():
    every_other = L.Lambda(lambda x: x[:, ::2])
    every_other(keras.Input((8, 3)))
    y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    expected = np.zeros((2, 9, 3), "float32")
    expected[:, ::2] = y
    assert_close(values(ka.adjoint(every_other, output_size=(9, 3))(y)), expected)
    with pytest.raises(
        ValueError, match=r"takes the output of .*: \(2, 5, 3\). Received: a tensor of shape \(2, 4, 3\)"
    ):
        ka.adjoint(every_other, output_size=(9, 3))(y[:, :4])


@pytest.mark.any_backend
def test_a_functional_model_whose_call_is_its_own_knows_its_shape():
    class Doubled(keras.Model):
        def call(self, x, **options):
            return 2 * super().call(x, **options)

    x = keras.Input((4,))
    model = Doubled(x, L.Dense(3, use_bias=False)(x))
    found = ops.convert_to_numpy(ka.adjoint(model)(np.eye(3, dtype="float32")))
    np.testing.assert_allclose(found, 2 * ops.convert_to_numpy(model.weights[0]).T, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python")
@pytest.mark.only_on("torch")
def test_a_trace_that_cannot_record_the_derivative_is_refused_with_a_way_out():
    import torch

    inputs = keras.Input((4,))
    adjoint = ka.adjoint(keras.Model(inputs, keras.ops.roll(inputs, 1, axis=1)))
    with pytest.raises(ka.KerasAdjointError, match="KERAS_BACKEND=tensorflow.* Received: RuntimeError"):
        torch.jit.trace(adjoint, torch.ones((2, 4)))
