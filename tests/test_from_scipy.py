"""Operators of SciPy as layers: their values and gradients, also compiled, what is saved, and what is refused."""

import pickle
import warnings

import keras
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from helpers import BACKEND
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.ops.backend import current

MATRIX = scipy.sparse.random(15, 24, density=0.3, random_state=0, dtype="float32").toarray()
KINDS = {
    "sparse": scipy.sparse.coo_matrix(MATRIX),
    "dense": MATRIX,
    "program": scipy.sparse.linalg.aslinearoperator(MATRIX),
}
X, Y = (np.random.default_rng(0).standard_normal((2, *shape)).astype("float32") for shape in ((4, 6), (5, 3)))


def layer_of(kind, **options):
    return ka.from_scipy(KINDS[kind], (4, 6), (5, 3), **options)


def rows(tensor):
    return ops.convert_to_numpy(tensor).reshape(len(tensor), -1)


def check(layer, matrix=MATRIX, tolerance=1e-5):
    """A layer has a matrix, and its adjoint the transposed one."""
    np.testing.assert_allclose(rows(layer(X)), rows(X) @ matrix.T, rtol=0, atol=tolerance)
    np.testing.assert_allclose(rows(ka.adjoint(layer)(Y)), rows(Y) @ matrix, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_has_the_matrix_and_its_adjoint_the_transposed_one(kind):
    layer = layer_of(kind)
    check(layer)
    assert layer(X).shape == (2, 5, 3) and layer(X[:0]).shape == (0, 5, 3)
    assert ka.adjoint(ka.adjoint(layer)) is layer and ka.check_adjoint(layer)
    operator, largest = ka.operator(layer), np.linalg.norm(MATRIX, 2)
    np.testing.assert_allclose(operator.to_matrix(), MATRIX, atol=1e-6)
    assert (
        float(operator.norm()) == pytest.approx(largest, rel=1e-3)
        and largest <= float(operator.bound()) < 1.01 * largest
    )
    inputs = keras.Input((4, 6))
    np.testing.assert_allclose(rows(ka.adjoint(keras.Model(inputs, layer(inputs)))(Y)), rows(Y) @ MATRIX, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", KINDS)
def test_without_shapes_it_takes_the_columns_and_gives_the_rows(kind):
    layer = ka.from_scipy(KINDS[kind])
    np.testing.assert_allclose(ops.convert_to_numpy(layer(rows(X))), rows(X) @ MATRIX.T, rtol=0, atol=1e-5)
    assert ka.from_scipy(KINDS[kind], (4, 6))(X).shape == (2, 15)
    assert ka.from_scipy(KINDS[kind], out_shape=(5, 3))(rows(X)).shape == (2, 5, 3)


def test_each_dtype_is_computed_in():
    for policy, found in (("float64", "float64"), ("mixed_bfloat16", "bfloat16"), ("float16", "float16")):
        layer = layer_of("program", dtype=policy)
        assert (
            keras.backend.standardize_dtype(layer(X.astype(found if found != "bfloat16" else "float32")).dtype) == found
        )
        assert ka.check_adjoint(layer)
    integers = ka.from_scipy(scipy.sparse.eye(24, dtype="int64"), (4, 6), 24)
    np.testing.assert_allclose(rows(integers(X)), rows(X))


def energy(function):
    """x ↦ ‖f(x)‖² / 2 as its gradient, a function that has a gradient itself."""
    if BACKEND == "jax":
        import jax

        return jax.grad(lambda x: (function(x) ** 2).sum() / 2)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def by_tape(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                half = tf.reduce_sum(function(x) ** 2) / 2
            return tape.gradient(half, x)

        return by_tape
    import torch

    return torch.func.grad(lambda x: (function(x) ** 2).sum() / 2)


@pytest.mark.parametrize("kind", ["sparse", "program"])
def test_the_gradient_is_the_adjoint_to_every_order(kind):
    layer, gram, x = layer_of(kind), MATRIX.T @ MATRIX, ops.convert_to_tensor(X)
    first = current().compiled(energy(layer))(x)
    np.testing.assert_allclose(rows(first), rows(X) @ gram, rtol=0, atol=1e-4)
    second = current().compiled(energy(energy(layer)))(x)
    np.testing.assert_allclose(rows(second), rows(X) @ gram @ gram, rtol=1e-4, atol=1e-3)
    back = current().compiled(energy(ka.adjoint(layer)))(ops.convert_to_tensor(Y))
    np.testing.assert_allclose(rows(back), rows(Y) @ MATRIX @ MATRIX.T, rtol=0, atol=1e-4)


@pytest.mark.only_on("torch")
def test_torch_compile_and_its_own_check_of_gradients():
    import torch

    x, layer = torch.tensor(X, requires_grad=True), layer_of("sparse")
    torch.compile(lambda x: (layer(x) ** 2).sum() / 2, backend="eager")(x).backward()
    np.testing.assert_allclose(rows(x.grad), rows(X) @ MATRIX.T @ MATRIX, atol=1e-4)
    torch.autograd.gradgradcheck(
        layer_of("sparse", dtype="float64"), torch.tensor(X, dtype=torch.float64, requires_grad=True)
    )


def test_transformations_of_the_backend_apply():
    layer, samples = layer_of("sparse"), np.stack([X, 2 * X, X])
    expected = rows(X) @ MATRIX.T
    if BACKEND == "jax":
        import jax

        value, tangent = jax.jvp(layer, (X,), (2 * X,))
        batched = jax.vmap(layer, 1, 1)(samples.swapaxes(0, 1)).swapaxes(0, 1)
        np.testing.assert_allclose(rows(jax.linear_transpose(layer, X)(Y)[0]), rows(Y) @ MATRIX, atol=1e-5)
    elif BACKEND == "torch":
        import torch

        value, tangent = torch.func.jvp(layer, (torch.tensor(X),), (2 * torch.tensor(X),))
        batched = torch.func.vmap(layer, 1, 1)(torch.tensor(samples).swapaxes(0, 1)).swapaxes(0, 1)
    else:
        import tensorflow as tf

        value, tangent = layer(X), 2 * layer(X)
        batched = tf.vectorized_map(layer, tf.constant(samples))
    np.testing.assert_allclose(rows(value), expected, atol=1e-5)
    np.testing.assert_allclose(rows(tangent), 2 * expected, atol=1e-5)
    np.testing.assert_allclose(rows(batched[1]), 2 * expected, atol=1e-5)


def trained(layer):
    """A model with a layer and its adjoint, trained as Keras compiles it by itself."""
    model = keras.Sequential([keras.Input((4, 6)), layers.Dense(6), layer, layers.Dense(3), ka.adjoint(layer)])
    model.compile("sgd", "mse")
    model.fit(X, X, epochs=1, verbose=0)
    return model


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_model_with_a_matrix_is_trained_saved_and_copied(kind, tmp_path):
    layer = layer_of(kind, name="matrix")
    model = trained(layer)
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    copies = [loaded, ka.clone_tied(model), pickle.loads(pickle.dumps(model))]
    for copy in copies:
        np.testing.assert_allclose(copy.predict(X, verbose=0), expected, atol=1e-5)
    check(loaded.get_layer("matrix"))
    assert type(loaded.get_layer("matrix").operator.matrix) is type(layer.operator.matrix)
    ka.adjoint(keras.Sequential([keras.Input((4, 6)), layer])).save(tmp_path / "adjoint.keras")
    np.testing.assert_allclose(
        rows(keras.saving.load_model(tmp_path / "adjoint.keras")(Y)), rows(Y) @ MATRIX, atol=1e-5
    )
    check(keras.models.clone_model(keras.Sequential([keras.Input((4, 6)), layer])).layers[0])
    with warnings.catch_warnings(action="ignore"):  # such a copy is not tied
        without = keras.models.model_from_json(model.to_json())
    with pytest.raises(ka.KerasAdjointError, match="was not loaded.*shape .15, 24. without"):
        without.get_layer("matrix").operator.forward(rows(X))
    with pytest.raises(ka.KerasAdjointError, match="was not loaded"):
        without.save(tmp_path / "without.keras")


def test_a_model_with_a_program_is_trained_and_copied_and_not_saved(tmp_path):
    model = trained(layer_of("program"))
    np.testing.assert_allclose(ka.clone_tied(model).predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ka.KerasAdjointError, match="program without numbers, so it cannot be saved.*LinearOperator"):
        model.save(tmp_path / "model.keras")


def test_the_matrix_is_a_copy():
    matrix = MATRIX.copy()
    layer = ka.from_scipy(matrix, (4, 6), (5, 3))
    matrix[:] = 0
    check(layer)


@pytest.mark.any_backend
def test_operators_of_pylops_are_layers():
    import pylops

    operator = pylops.FirstDerivative((4, 6), axis=0, dtype="float32")
    layer = ka.from_scipy(operator, (4, 6), operator.dimsd)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(X))[1], operator @ X[1], atol=1e-6)
    assert ka.check_adjoint(layer)


def wrong(**options):
    return scipy.sparse.linalg.LinearOperator((15, 24), matvec=lambda x: MATRIX @ x, dtype="float32", **options)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ka.from_scipy(MATRIX, (4, 5), (5, 3)), ka.SizeError, r"shape \(15, 24\), in_shape=\(4, 5\)"),
        (lambda: ka.from_scipy(MATRIX, 24, (15, None)), ka.SizeError, "known sizes"),
        (lambda: ka.from_scipy(MATRIX, 24, [(5, 3), (1,)]), ka.SizeError, "as many numbers"),
        (lambda: ka.from_scipy(MATRIX * 1j, 24, 15), ValueError, "real numbers.*complex"),
        (lambda: ka.from_scipy(MATRIX[0], 24, 1), ValueError, "takes a sparse matrix"),
        (lambda: ka.from_scipy(ka.identity((3,)), 3, 3), ValueError, "A.layer"),
        (lambda: ka.from_scipy(ka.identity((3,)).to_scipy(), 3, 3), ValueError, "computes by Keras.*A.layer"),
        (lambda: ka.from_scipy(ka.identity((3,)).to_pylops(), 3, 3), ValueError, "computes by Keras.*A.layer"),
        (lambda: ka.from_scipy(2 * ka.identity((3,)).to_scipy(), 3, 3), ValueError, "computes by Keras.*A.layer"),
        (lambda: ka.from_scipy(np.ma.masked_less(MATRIX, 0), 24, 15), ValueError, "masked numbers.*filled"),
        (lambda: ka.from_scipy(wrong(), 24, 15), ka.NoRuleError, "calls `rmatvec`"),
        (lambda: ka.from_scipy(wrong(rmatvec=lambda y: MATRIX.T @ y[::-1]), 24, 15), ka.NoRuleError, "not the adjoint"),
        (lambda: ka.from_scipy(wrong(rmatvec=lambda y: 1j * (MATRIX.T @ y)), 24, 15), ka.KerasAdjointError, "complex"),
        (lambda: layer_of("dense")(X.swapaxes(1, 2)), ValueError, "incompatible"),
        (lambda: ka.adjoint(layer_of("dense"))(X), ValueError, "axis 1 has size 5"),
    ],
)
def test_what_makes_no_sense_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
