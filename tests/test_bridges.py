"""Operators as those of PyLops, lineax and DeepInverse: held to each library's own adjoint test, and to ours."""

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import BACKEND
from keras import layers, ops, tree

import keras_adjoint as ka


@pytest.fixture(scope="module")
def operators():
    """Operators of every kind of space: one tensor of several axes or of one, and several tensors."""
    conv = layers.Conv2D(5, 3, strides=2, padding="same")
    conv.build((None, 7, 6, 3))
    dense = layers.Dense(4)
    dense.build((None, 6))
    image = ka.operator(conv)
    return {
        "image": image,
        "vector": ka.operator(dense),
        "adjoint": 2 * image.T,
        "several": ka.block([[image, None], [-image, 3 * image]]),
    }


NAMES = ["image", "vector", "adjoint", "several"]


def probe(space, seed=0):
    """A batch of two random samples."""
    generator = np.random.default_rng(seed)
    return space.pack([generator.standard_normal((2, *shape)).astype("float32") for shape in space.shapes])


def flat(structure):
    return np.concatenate([ops.convert_to_numpy(leaf).ravel() for leaf in tree.flatten(structure)])


# --- PyLops


@pytest.mark.parametrize("name", NAMES)
def test_pylops_finds_the_adjoint_and_the_matrix(operators, name):
    import pylops

    operator, matrix = operators[name], operators[name].to_matrix()
    linear = operator.to_pylops()
    assert isinstance(linear, pylops.LinearOperator) and linear.shape == matrix.shape and linear.dtype == "float32"
    assert pylops.utils.dottest(linear, *linear.shape, rtol=1e-4)
    np.testing.assert_allclose(linear.todense(), matrix, rtol=0, atol=1e-5)
    assert ka.check_adjoint(
        lambda x: ops.convert_to_tensor(linear.matmat(ops.convert_to_numpy(x).T).T),
        lambda y: ops.convert_to_tensor(linear.rmatmat(ops.convert_to_numpy(y).T).T),
        input_shape=(2, linear.shape[1]),
    )


def test_pylops_has_the_axes_of_a_sample_and_no_batch(operators):
    operator = operators["image"]
    linear, x = operator.to_pylops(), probe(operator.in_space)[0]
    assert (linear.dims, linear.dimsd) == (operator.in_shape, operator.out_shape)
    expected = ops.convert_to_numpy(operator @ x[None])[0]
    np.testing.assert_allclose(linear @ x, expected, rtol=0, atol=1e-5)
    assert (linear.H @ expected).shape == x.shape
    assert operators["several"].to_pylops().dims == (operators["several"].shape[1],)


# --- lineax


@pytest.mark.only_on("jax")
@pytest.mark.parametrize("name", NAMES)
def test_lineax_finds_the_adjoint_and_the_matrix(operators, name):
    import jax
    import lineax

    operator = operators[name]
    linear = operator.to_lineax()
    x, y = (tree.map_structure(lambda leaf: leaf[0], probe(space)) for space in (operator.in_space, operator.out_space))
    assert tree.map_structure(lambda leaf: leaf.shape, linear.mv(x)) == operator.out_shape
    assert {leaf.dtype for leaf in jax.tree.leaves(linear.out_structure())} == {np.dtype("float32")}
    for found, expected in (
        (linear.mv(x), operator.to_matrix() @ flat(x)),
        (linear.T.mv(y), operator.T.to_matrix() @ flat(y)),
    ):
        np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-4)
    if name == "image":
        assert np.array_equal(lineax.materialise(linear).as_matrix().T, linear.T.as_matrix())
        assert ka.check_adjoint(jax.vmap(linear.mv), jax.vmap(linear.T.mv), input_shape=(2, *operator.in_shape))


@pytest.mark.only_on("jax")
def test_lineax_solves_with_our_adjoint_and_differentiates_by_the_kernel(operators):
    import equinox
    import jax
    import lineax

    operator = operators["vector"]
    linear, x = operator.to_lineax(), probe(operator.in_space)[0]
    assert "keras_adjoint" in str(jax.make_jaxpr(operators["image"].to_lineax().T.mv)(np.ones((4, 3, 5), "float32")))
    solved = lineax.linear_solve(linear, linear.mv(x), lineax.Normal(lineax.CG(rtol=1e-5, atol=1e-5))).value
    np.testing.assert_allclose(linear.mv(solved), linear.mv(x), atol=1e-3)
    (gradient,) = jax.tree.leaves(equinox.filter_grad(lambda linear: (linear.mv(x) ** 2).sum() / 2)(linear))
    np.testing.assert_allclose(gradient, np.outer(x, linear.mv(x)), rtol=1e-4, atol=1e-5)


# --- DeepInverse


@pytest.mark.only_on("torch")
def test_deepinv_finds_the_adjoint(operators):
    deepinv = pytest.importorskip(
        "deepinv", reason="DeepInverse needs torchvision, which is not installed with the tests"
    )
    for operator in operators.values():
        physics, x = operator.to_deepinv(), probe(operator.in_space)
        moved = [ops.moveaxis(ops.convert_to_tensor(leaf), -1, 1) for leaf in tree.flatten(x)]
        given = moved[0] if len(moved) == 1 else deepinv.utils.TensorList(moved)
        if len(moved) == 1:  # its own test takes no list
            assert abs(float(physics.adjointness_test(given).detach())) < 1e-3
        found = physics.A(given)
        found = [
            ops.moveaxis(leaf, 1, -1) for leaf in (found if isinstance(found, deepinv.utils.TensorList) else [found])
        ]
        np.testing.assert_allclose(flat(found), flat(operator @ x), rtol=0, atol=1e-5)


@pytest.fixture
def stand_in(monkeypatch):
    """What this package uses of DeepInverse, which is not installed with the tests."""
    physics = SimpleNamespace(LinearPhysics=lambda **parts: SimpleNamespace(**parts))
    tensor_list = type(
        "TensorList", (), {"__init__": lambda self, x: setattr(self, "x", x), "__iter__": lambda self: iter(self.x)}
    )
    deepinv = SimpleNamespace(physics=physics, utils=SimpleNamespace(TensorList=tensor_list))
    monkeypatch.setitem(sys.modules, "deepinv", deepinv)
    return deepinv


@pytest.mark.only_on("torch")
def test_physics_have_their_channels_behind_the_batch(operators, stand_in):
    import torch

    operator = operators["image"]
    physics, x = operator.to_deepinv(), torch.tensor(probe(operator.in_space))
    assert physics.img_size == (3, 7, 6)
    found = physics.A(x.moveaxis(-1, 1))
    torch.testing.assert_close(found.moveaxis(1, -1), operator @ x)
    assert ka.check_adjoint(physics.A, physics.A_adjoint, input_shape=(2, 3, 7, 6))
    with pytest.raises(ka.SizeError, match=r"takes batches of \(3, 7, 6\)"):
        physics.A(x)
    several = operators["several"].to_deepinv()
    parts = several.A(stand_in.utils.TensorList([x.moveaxis(-1, 1)] * 2))
    assert [tuple(part.shape) for part in parts] == [(2, 5, 4, 3)] * 2
    assert [tuple(part.shape) for part in several.A_adjoint(parts)] == [(2, 3, 7, 6)] * 2


@pytest.mark.only_on("torch")
def test_physics_of_layers_with_channels_first_keep_their_axes(operators, stand_in):
    first = layers.Conv2D(5, 3, data_format="channels_first")
    first.build((None, 3, 7, 6))
    operator = ka.operator(first)
    x = ops.convert_to_tensor(probe(operator.in_space))
    np.testing.assert_allclose(flat(operator.to_deepinv().A(x)), flat(operator @ x))
    assert operator.to_deepinv(data_format="channels_last").img_size == (6, 3, 7)
    last = layers.Conv2D(5, 1)
    last.build((None, 3, 7, 6))
    mixed = ka.vstack([operator, ka.operator(last)])
    with pytest.raises(ka.KerasAdjointError, match="Some layers"):
        mixed.to_deepinv()
    assert mixed.to_deepinv(data_format="channels_first").img_size == (3, 7, 6)
    with pytest.raises(ValueError, match="data_format='first'"):
        operator.to_deepinv(data_format="first")


# --- what is missing


@pytest.mark.parametrize(
    ("method", "package", "install", "backend"),
    [
        ("to_scipy", "scipy.sparse.linalg", "keras-adjoint.bridges.", BACKEND),
        ("to_pylops", "pylops", "keras-adjoint.bridges.", BACKEND),
        ("to_lineax", "lineax", "lineax", "jax"),
        ("to_deepinv", "deepinv", "deepinv", "torch"),
    ],
)
def test_a_missing_package_is_named_and_another_backend_refused(
    operators, monkeypatch, method, package, install, backend
):
    monkeypatch.setitem(sys.modules, package, None)
    message = f"`{method}` needs .*pip install .?{install}"
    if backend != keras.backend.backend():
        message = f"`{method}` computes on the tensors of {backend}.*KERAS_BACKEND={backend}.*backend='{BACKEND}'"
    with pytest.raises(ka.KerasAdjointError, match=message):
        getattr(operators["image"], method)()
