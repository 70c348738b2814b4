"""What is asked for in code that a compiler traces, or that JAX is told not to compile, is right or says why not."""

import keras
import numpy as np
import pytest
from helpers import compiled
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.ops.backend import current


class Product(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 3), initializer="glorot_uniform")

    def call(self, x):
        return ops.matmul(x, self.matrix)


class Tied(keras.Model):
    def __init__(self):
        super().__init__()
        self.product = Product()

    def build(self, shape):
        self.product.build(shape)
        self.backward = ka.adjoint(self.product)

    def call(self, x):
        return self.backward(self.product(x))


def compile_and_fit(model):
    x = np.ones((2, 4), "float32")
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    return x


@pytest.fixture
def product():
    layer = Product()
    layer.build((None, 4))
    return layer


@pytest.mark.only_on("jax")
def test_an_automatic_adjoint_can_be_taken_while_jax_compiles(product):
    y = np.ones((2, 3), "float32")
    found = compiled(lambda y: ka.adjoint(product)(y))(y)
    np.testing.assert_allclose(found, ka.adjoint(product)(y), rtol=1e-6)
    assert float(compiled(lambda y: y.sum() * bool(ka.check_adjoint(product)))(y)) == 6


@pytest.mark.only_on("jax")
def test_weights_that_jax_traces_have_an_error_that_says_so(product):
    import jax

    def with_weights(function):
        def traced(value):
            with keras.StatelessScope(state_mapping=[(product.matrix, value)]):
                return function()

        return jax.jit(traced)(product.matrix.value)

    with pytest.raises(ka.NoRuleError, match="being compiled"):
        with_weights(lambda: ka.adjoint(product)(np.ones((2, 3))))
    backward = ka.adjoint(product)
    with pytest.raises(ValueError, match="being compiled"):
        with_weights(lambda: bool(ka.check_adjoint(product, backward)))


@pytest.mark.only_on("tensorflow")
def test_a_test_of_numbers_while_tensorflow_compiles_has_an_error_that_says_so(product):
    import tensorflow as tf

    y = np.ones((2, 3), "float32")
    with pytest.raises(ka.NoRuleError, match="being compiled"):
        tf.function(lambda y: ka.adjoint(product)(y))(y)
    with pytest.raises(ValueError, match="being compiled"):
        tf.function(lambda y: y * float(bool(ka.check_adjoint(product))))(y)
    with pytest.raises(ka.NoRuleError, match="being compiled"):
        compile_and_fit(Tied())


ON_THE_HOST = {
    "condition": lambda operator: operator.condition(),
    "singular values": lambda operator: operator.singular_values(2)[0],
    "matrix": lambda operator: operator.to_matrix()[0, 0],
    "SciPy": lambda operator: operator.to_scipy().matvec(np.ones(4, "float32"))[0],
    "certificate": lambda operator: ka.certify(operator.fixed).bound,
}


@pytest.mark.only_on("tensorflow", "jax")
@pytest.mark.parametrize("name", ON_THE_HOST)
def test_what_is_computed_on_the_host_has_an_error_that_says_so(name):
    x = keras.Input((4,))
    operator = ka.operator(keras.Model(x, layers.Dense(3)(x)))
    with pytest.raises(ka.KerasAdjointError, match="on the host, .* being compiled"):
        current().compiled(lambda x: x * ON_THE_HOST[name](operator))(ops.ones(2))
    assert np.isfinite(ON_THE_HOST[name](operator))


@pytest.mark.only_on("torch")
def test_what_is_computed_on_the_host_has_an_error_that_says_so_in_transforms():
    import torch

    with pytest.raises(ka.KerasAdjointError, match="on the host, .* transformed"):
        torch.func.vmap(lambda c: c * (ka.identity(3) * c).condition())(torch.ones(2))


@pytest.mark.in_turn("tensorflow", "jax")
def test_a_model_that_takes_an_automatic_adjoint_in_build_is_trained_once_it_is_built():
    model = Tied()
    model.build((None, 4))
    x = compile_and_fit(model)
    matrix = ops.convert_to_numpy(model.product.matrix)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), x @ matrix @ matrix.T, rtol=1e-5)


@pytest.mark.only_on("jax")
def test_jax_can_be_told_not_to_compile():
    import jax

    conv = layers.Conv2D(3, 3, strides=2)
    conv.build((None, 7, 6, 2))
    backward = ka.adjoint(conv)
    y = jax.numpy.ones((2, 3, 2, 3))
    expected = backward(y)
    with jax.disable_jit():
        np.testing.assert_allclose(backward(y), expected, rtol=1e-6)
        gradient = jax.grad(lambda y: backward(y).sum())(y)
        assert ka.check_adjoint(conv)
    np.testing.assert_allclose(gradient, jax.grad(lambda y: backward(y).sum())(y), rtol=1e-6)


class MadeInCall(keras.Model):
    def __init__(self, make):
        super().__init__()
        self.dense, self.make = layers.Dense(3), make

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.make(self.dense)(self.dense(x))


NEEDING_NUMBERS = {
    "copy": lambda dense: ka.adjoint(dense, tied=False),
    "bias from the source": lambda dense: ka.adjoint(dense, bias="repeat"),
    "untied": lambda dense: ka.untie(ka.adjoint(dense)),
    "clone": lambda dense: ka.adjoint(ka.clone_tied(dense)),
}
OWNING = {
    "own bias": lambda dense: ka.adjoint(dense, bias="own"),
    "mapped bias": lambda dense: ka.adjoint(dense, bias="learned"),
    "own channels": lambda dense: ka.adjoint(dense, channels=4),
    "mirror": lambda dense: ka.mirror(keras.Sequential([keras.Input((4,)), dense])),
}


def run_compiled(make):
    model = MadeInCall(make)
    model.build((None, 4))
    model.compile("sgd")
    return model.predict(np.ones((2, 4), "float32"), verbose=0)


@pytest.mark.only_on("jax", "tensorflow")
@pytest.mark.parametrize("name", NEEDING_NUMBERS)
def test_what_starts_from_numbers_is_refused_in_compiled_code(name):
    with pytest.raises(ka.TieError, match="Make it outside of that code"):
        run_compiled(NEEDING_NUMBERS[name])


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("name", OWNING)
def test_variables_of_its_own_are_refused_in_compiled_code(name):
    with pytest.raises(ka.TieError, match="Make it outside of that code"):
        run_compiled(OWNING[name])


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("name", ["copy", "own bias", "untied"])
def test_pytorch_makes_adjoints_outside_of_what_it_compiles(name):
    dense = layers.Dense(3)
    dense.build((None, 4))
    make = {**NEEDING_NUMBERS, **OWNING}[name]
    y = ops.ones((2, 3))
    import torch

    found = torch.compile(lambda y: make(dense)(y), backend="eager")(y)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(ka.adjoint(dense)(y)), rtol=1e-5)


BAD_CONSTANTS = {
    "a negative weight": ({"weights": np.array([1.0, -1.0, 1.0])}, "`weights` are finite and not negative"),
    "a weight that is no number": ({"weights": np.array([np.nan, 1, 1])}, "`weights` are finite and not negative"),
    "limits the wrong way round": ({"lower": 1.0, "upper": 0.0}, "`lower` is nowhere above `upper`"),
    "a negative ridge": ({"ridge": -1.0}, "`ridge` is one number that is not negative"),
}


@pytest.mark.parametrize("case", BAD_CONSTANTS)
def test_constants_of_solvers_are_checked_while_a_compiler_traces(product, case):
    options, words = BAD_CONSTANTS[case]
    A = ka.operator(product)
    y = np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match=words):
        traced(lambda y: ka.lstsq(A, y, **options).x)(y)


def traced(function):
    """The function as the backend's compiler runs it, where `keras_adjoint` does not tell that to leave it alone."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return compiled(function)
