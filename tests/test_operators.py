"""Operators: their algebra against that of their matrices, and what combines wrongly is refused."""

import pickle
import re
from fractions import Fraction

import keras
import numpy as np
import pytest
import scipy.sparse
from helpers import RARELY_JAX, compiled, in_turn
from keras import layers, ops
from layer_list import REPRESENTATIVES

import keras_adjoint as ka

BACKEND = keras.backend.backend()


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def dense_matrix(operator):
    """The matrix by the operator itself, not by its adjoint."""
    units = ops.convert_to_tensor(np.eye(operator.in_space.size, dtype=operator.dtype))

    def columns(units):
        return operator.out_space.join(operator.apply(operator.in_space.split(units)))

    return ops.convert_to_numpy(compiled(columns)(units)).T


def check(operator, matrix):
    """An operator has a matrix, its adjoint the transposed one, and `to_matrix` gives both."""
    scale = np.abs(matrix).max()
    for found, expected in ((operator, matrix), (operator.T, matrix.T)):
        assert found.shape == expected.shape
        np.testing.assert_allclose(dense_matrix(found), expected, rtol=0, atol=1e-5 * scale)
    assert operator.T.T is operator


@pytest.fixture(scope="module")
def parts():
    """(A, B, C) with C ∘ A and A + B, and their matrices."""
    a = ka.operator(built(layers.Conv2D(3, 3, strides=2, padding="same", bias_initializer="ones"), 5, 4, 2))
    b = ka.operator(built(layers.Conv2D(3, 2, strides=2, padding="same"), 5, 4, 2))
    c = ka.operator(built(layers.Dense(2), 3, 2, 3))
    return [(each, dense_matrix(each)) for each in (a, b, c)]


def test_every_combination_has_the_matrix_of_the_combination(parts):
    (a, m), (b, n), (c, k) = parts
    check(a, m)
    check(c @ a, k @ m)
    check(a + b, m + n)
    check(sum([a, b]), m + n)
    check(0 - a + 0.0, -m)
    check(a * Fraction(1, 4), m / 4)
    total = 2 * a - b / 4 - np.float32(3) * -a
    check(total, 2 * m - n / 4 + 3 * m)
    for found in (total, total.T):  # the one by its columns, the other by those of its adjoint
        np.testing.assert_allclose(found.to_matrix(), dense_matrix(found), rtol=0, atol=1e-5)
    check(a.gram(), m.T @ m)
    check((a + b).gram("outputs"), (m + n) @ (m + n).T)
    check(c @ (a - b) @ b.T, k @ (m - n) @ n.T)
    check(ka.identity((5, 4, 2)) @ a.T @ ka.identity((3, 2, 3)), m.T)


def test_blocks_have_the_block_matrix(parts):
    (a, m), (b, n), (c, k) = parts
    check(ka.vstack([a, b, 2 * a]), np.vstack([m, n, 2 * m]))
    check(ka.hstack([a, ka.identity((3, 2, 3))]), np.hstack([m, np.eye(len(m))]))
    check(ka.block([[a, None], [b, c.T]]), np.block([[m, np.zeros((18, 12))], [n, k.T]]))
    nested = ka.vstack([a, ka.vstack([b, a])])
    check(nested, np.vstack([m, n, m]))
    assert nested.out_shape == [(3, 2, 3), [(3, 2, 3), (3, 2, 3)]]


def test_scalars_of_the_backend_multiply(parts):
    a, m = parts[0]
    check(ops.convert_to_tensor(2.0) * a * ops.convert_to_tensor(0.5), m)
    variable = keras.Variable(3.0)
    scaled = a * variable
    variable.assign(2.0)
    check(scaled, 2 * m)


def test_a_layer_computes_what_the_operator_does_and_stays_tied(parts, tmp_path):
    a, b, c = (each for each, _ in parts)
    combined = c @ (a - 2 * b)
    model = combined.layer("combined")
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 2)).astype("float32")
    expected = ops.convert_to_numpy(combined @ x)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, atol=1e-6)
    ka.assert_adjoint(model)
    model.save(tmp_path / "combined.keras")
    loaded = keras.saving.load_model(tmp_path / "combined.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), expected, atol=1e-6)
    kernel = a.source.kernel
    before = ops.convert_to_numpy(kernel)
    kernel.assign(kernel + 1)
    changed = ops.convert_to_numpy(combined @ x)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), changed, atol=1e-5)
    assert np.abs(changed - expected).max() > 1e-2
    kernel.assign(before)


def test_a_pickled_operator_is_the_same_operator(parts):
    (a, m), (b, n), _ = parts
    copy = pickle.loads(pickle.dumps(ka.vstack([a + 2 * b, a])))
    check(copy, np.vstack([m + 2 * n, m]))


@pytest.mark.parametrize(*("case", in_turn(REPRESENTATIVES, backends=lambda case: RARELY_JAX)))
def test_every_layer_is_an_operator(case):
    if not case.runs_itself or case.switches() is not None:
        pytest.skip("it does not run here, or is not linear")
    layer = case.build("float32")
    operator = ka.operator(layer)
    matrix = dense_matrix(operator)
    np.testing.assert_allclose(dense_matrix(operator.T), matrix.T, rtol=0, atol=1e-5 * np.abs(matrix).max())
    largest = np.linalg.norm(matrix.astype("float64"), 2)
    assert largest <= float(operator.bound()) <= 1.5 * largest


def test_models_keep_their_structure():
    x, z = keras.Input((6, 2), name="x"), keras.Input((6, 3), name="z")
    joined = layers.Concatenate()([layers.Conv1D(4, 3, padding="same")(x), z])
    model = keras.Model({"x": x, "z": z}, [layers.Dense(2)(joined), layers.Flatten()(x)])
    operator = ka.operator(model)
    assert operator.in_shape == {"x": (6, 2), "z": (6, 3)} and operator.out_shape == [(6, 2), (12,)]
    check(operator, dense_matrix(operator))
    given = {"z": np.ones((3, 6, 3), "float32"), "x": np.zeros((3, 6, 2), "float32")}
    back = operator.T @ (operator @ given)
    assert back["x"].shape == (3, 6, 2) and back["z"].shape == (3, 6, 3)
    matrix = dense_matrix(operator)
    assert np.linalg.norm(matrix, 2) <= float(operator.bound())


@pytest.mark.any_backend
@pytest.mark.filterwarnings("error:.*structure of `inputs`")
@pytest.mark.parametrize(("takes", "gives"), [(True, True), (True, False), (False, True)])
def test_a_list_of_one_tensor_is_that_tensor(takes, gives):
    x = keras.Input((4,))
    y = layers.Dense(2)(x)
    operator = ka.operator(keras.Model([x] if takes else x, [y] if gives else y))
    assert operator.in_shape == (4,) and operator.out_shape == (2,)
    x = np.ones((3, 4), "float32")
    for result in (operator @ x, operator @ [x], operator.layer()(x)):
        assert result.shape == (3, 2)
        assert (operator.T @ result).shape == operator.T.layer()(result).shape == (3, 4)
    check(operator, dense_matrix(operator))


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_a_model_computes_in_the_dtype_of_its_layers(dtype):
    policy = keras.DTypePolicy(dtype)
    x = keras.Input((6, 2), dtype=policy.compute_dtype)
    hidden = layers.Conv1D(3, 3, dtype=policy)(x)
    operator = ka.operator(keras.Model(x, layers.Conv1D(3, 3, dtype=policy)(hidden)))
    assert operator.dtype == operator.T.dtype == operator.gram().dtype == policy.compute_dtype
    assert operator.T.T is operator


@pytest.mark.any_backend
def test_a_number_is_not_rounded_in_double_precision(tmp_path):
    operator = 0.3 * ka.identity((4,), dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 4))
    operator.layer().save(tmp_path / "scaled.keras")
    loaded = keras.saving.load_model(tmp_path / "scaled.keras")
    for y in (operator @ x, operator.layer()(x), loaded(x), operator.T @ x):
        np.testing.assert_array_equal(ops.convert_to_numpy(y), 0.3 * x)
    assert float(operator.bound()) == pytest.approx(0.3, rel=2e-6) and float(operator.bound()) >= 0.3


def test_a_model_of_unknown_size_is_an_operator_at_each_size():
    model = keras.Sequential([keras.Input((None, 2)), layers.Conv1D(3, 3, strides=2), layers.Conv1D(2, 2, strides=2)])
    for size in (11, 12):
        operator = ka.operator(model, size=size)
        assert operator.in_shape == (size, 2)
        check(operator, dense_matrix(operator))


def test_the_size_of_a_layer_is_recorded_or_asked_for():
    conv = built(layers.Conv2D(2, 3), None, None, 3)
    with pytest.raises(ka.SizeError, match=r"takes \(\?, \?, 3\)"):
        ka.operator(conv)
    assert ka.operator(conv, size=(6, 7)).in_shape == (6, 7, 3)
    assert ka.operator(conv, size=6).in_shape == ka.operator(conv, size=(6, 6, 3)).in_shape == (6, 6, 3)
    with pytest.raises(ka.SizeError, match="2 spatial axes"):
        ka.operator(conv, size=(6, 6, 4))
    conv(keras.Input((8, 8, 3))), conv(keras.Input((9, 9, 3)))
    with pytest.raises(ka.SizeError, match="several sizes"):
        ka.operator(conv)
    assert len(conv._inbound_nodes) == 2  # asking records nothing


def test_an_adjoint_is_the_transposed_operator():
    conv = built(layers.Conv1D(3, 3, strides=2), 8, 2)
    forward, backward = ka.operator(conv), ka.operator(ka.adjoint(conv))
    np.testing.assert_allclose(dense_matrix(backward), dense_matrix(forward).T, atol=1e-6)


def lookup():
    return keras.Sequential([keras.Input((4,)), layers.Embedding(5, 3), layers.Flatten()])


def test_a_layer_of_a_multiple_by_a_variable_holds_the_variable(parts, tmp_path):
    (a, _), (b, _), _ = parts
    factor = keras.Variable(2.0)
    combined = (a * factor).T @ (b * factor)
    model = combined.layer()
    factor.assign(3.0)
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 2)).astype("float32")
    expected = ops.convert_to_numpy(combined @ x)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, atol=1e-5)
    assert any(variable is factor for variable in model.trainable_variables)
    ka.assert_adjoint(model)
    assert float(ops.convert_to_numpy(ka.operator(model).bound())) >= float(ops.convert_to_numpy(combined.norm()))
    model.save(tmp_path / "combined.keras")
    loaded = keras.saving.load_model(tmp_path / "combined.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), expected, atol=1e-5)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "make", [lambda: layers.Rescaling(2.0), lambda: layers.Dropout(0.5), lambda: layers.Lambda(lambda x: 2 * x)]
)
def test_a_layer_that_is_called_at_several_shapes_is_an_operator_at_each(make):
    shared, x = make(), keras.Input((4,))
    model = keras.Model(x, shared(layers.Dense(3)(shared(x))))
    operator = ka.operator(model)
    norm = np.linalg.norm(operator.to_matrix(), 2)
    assert norm <= float(ops.convert_to_numpy(operator.bound())) <= 1.01 * norm
    assert norm <= ka.certify(model).bound <= 1.01 * norm
    assert ka.operator(shared, size=(3,)).shape == (3, 3)


MADE_OF_A_LAYER = (ka.operator, ka.LeastSquares, ka.pinv, ka.unroll, ka.SparseCoding)


@pytest.mark.any_backend
@pytest.mark.parametrize("make", MADE_OF_A_LAYER, ids=lambda make: make.__name__)
def test_of_a_layer_that_is_not_built_it_says_what_to_do(make):
    for layer in (layers.Conv1D(2, 3), layers.LSTM(2), keras.Sequential([layers.Dense(2)])):
        with pytest.raises(ka.TieError, match=r"`layer.build\(input_shape\)`") as error:
            make(layer)
        assert "adjoint" not in str(error.value)  # of which nothing was asked


@pytest.mark.any_backend
@pytest.mark.parametrize("take", [ka.operator, ka.certify], ids=lambda take: take.__name__)
def test_a_size_that_is_missing_is_named_with_an_example_of_it(take):
    x = keras.Input((None, 2, 3))
    model = keras.Model(x, layers.Conv2D(2, 1)(x))
    with pytest.raises(ka.SizeError, match=r"takes \(\?, 2, 3\)") as error:
        take(model)
    size = re.search(r"as in `size=(.*?)`", str(error.value))
    assert take(model, size=eval(size[1]))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda a, d: a @ a, ka.SizeError, "A takes what B gives"),
        (lambda a, d: a + a.T, ka.SizeError, "terms of a sum"),
        (lambda a, d: a * [1, 2], ValueError, "one real number"),
        (lambda a, d: a * np.ones((1, 5, 2)), ValueError, r"Write `A @ x`.*Received: ndarray of shape \(1, 5, 2\)"),
        (lambda a, d: a * a, ValueError, "`A @ B`"),
        (lambda a, d: a * np.str_("x"), ValueError, "one real number.*'x'"),
        (lambda a, d: a * np.array(None), ValueError, "one real number"),
        (lambda a, d: a * np.array(1j), ValueError, "one real number"),
        (lambda a, d: a * np.bool_(True), ValueError, "one real number"),
        (lambda a, d: a / "x", ValueError, "one real number"),
        (lambda a, d: a / a, ValueError, "one real number"),
        (lambda a, d: a / 0, ValueError, "not zero"),
        (lambda a, d: 2 / a, ValueError, "lstsq"),
        (lambda a, d: a + 1, ValueError, "identity.*Received: 1 of type int"),
        (lambda a, d: np.ones(2) - a, ValueError, r"`A @ x \+ c`"),
        (lambda a, d: a + a.source, ValueError, "operator.layer"),
        (lambda a, d: np.ones((2, 5, 2)) @ a, ValueError, "`A @ x`"),
        (lambda a, d: np.asarray(a), ValueError, "to_matrix"),
        (lambda a, d: np.dot(np.ones((2, 2)), a), ValueError, "no array"),
        (lambda a, d: ka.identity(4) @ scipy.sparse.eye(4), ValueError, "Received: dia_matrix"),
        (lambda a, d: a @ a.source, ka.SizeError, "Received: a Conv1D$"),
        (lambda a, d: a * float("nan"), ValueError, "finite number"),
        (lambda a, d: 10**400 * a, ValueError, "finite number"),
        (lambda a, d: a.to_matrix(most_numbers="10"), ValueError, "most_numbers='10'"),
        (lambda a, d: ka.identity(2, dtype="float31"), ValueError, "dtype='float31'"),
        (
            lambda a, d: ka.operator(built(layers.Conv1D(2, 3), None, 2), size=2),
            ka.SizeError,
            "negative.*Received: size=2",
        ),
        (lambda a, d: ka.operator(lookup()), ka.NoRuleError, "one-hot vectors"),
        (lambda a, d: ka.identity(-1), ka.SizeError, "positive integers.*Leave the batch axis out"),
        (lambda a, d: a * True, ValueError, "one real number"),
        (lambda a, d: a @ np.ones((2, 3)), ka.SizeError, r"takes batches of \(5, 2\)"),
        (lambda a, d: a @ np.ones((2, 5, 2), "complex64"), ValueError, "real numbers"),
        (lambda a, d: a @ np.full((2, 5, 2), "x"), ValueError, "real numbers"),
        (lambda a, d: a @ [[1.0]], ka.SizeError, "takes batches"),
        (lambda a, d: a.norm(seed="a"), ValueError, "seed='a'"),
        (lambda a, d: ka.vstack(a), ValueError, "from a list"),
        (lambda a, d: ka.vstack([]), ValueError, "from a list"),
        (lambda a, d: ka.hstack([3]), ValueError, "rows of operators"),
        (lambda a, d: ka.operator(a.source, linear_part=1), ValueError, "linear_part=1"),
        (lambda a, d: a.gram("rows"), ValueError, "side='rows'"),
        (lambda a, d: a + d, ValueError, "same dtype"),
        (lambda a, d: a.to_matrix(most_numbers=10), ka.SizeError, "more than `most_numbers`"),
        (lambda a, d: a.norm(tolerance=0), ValueError, "tolerance=0"),
        (lambda a, d: a.singular_values(0), ValueError, "from 1 to"),
        (lambda a, d: a.singular_values(which="middle"), ValueError, "which='middle'"),
        (lambda a, d: ka.block([[None, a], [None, a]]), ka.SizeError, "Nothing but zeros"),
        (lambda a, d: ka.block([[a], [a, a]]), ValueError, "lists of one length"),
        (lambda a, d: ka.vstack([a, a.T]), ka.SizeError, "column 0"),
        (lambda a, d: ka.operator(built(layers.Dense(2, activation="relu"), 3)), ka.NoRuleError, "linear_part=True"),
        (lambda a, d: ka.operator(built(layers.MaxPooling1D(2), 4, 1)), ka.NoRuleError, "is not linear"),
        (lambda a, d: ka.operator(3), ValueError, "takes a Keras layer"),
        (lambda a, d: ka.identity((0,)), ka.SizeError, "positive integers"),
    ],
)
@pytest.mark.any_backend
def test_what_makes_no_sense_is_refused(wrong, error, message):
    a, d = (
        ka.operator(built(layers.Conv1D(3, 3, padding="same", dtype=dtype), 5, 2)) for dtype in ("float32", "float64")
    )
    with pytest.raises(error, match=message):
        wrong(a, d)
