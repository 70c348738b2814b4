"""Which arrays blocks are read from and written to: real numbers of any width and byte order, and what is not read-only."""

import h5py
import keras
import numpy as np
import pytest

import keras_adjoint as ka

L = keras.layers
pytestmark = pytest.mark.any_backend
SHAPE, BLOCK = (17, 13, 2), 6
X = np.random.default_rng(0).normal(size=SHAPE).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((None, None, 2)), L.Conv2D(3, 3, padding="same", activation="relu")])


@pytest.fixture(scope="module")
def expected(model):
    return keras.ops.convert_to_numpy(model(X[None]))[0]


def read_only_array(folder, shape):
    made = np.zeros(shape, "float32")
    made.setflags(write=False)
    return made


def read_only_hdf5(folder, shape):
    with h5py.File(folder / "y.h5", "w") as file:
        file.create_dataset("y", shape, "float32")
    return h5py.File(folder / "y.h5", "r")["y"]


def read_only_zarr(folder, shape):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(folder / "y.zarr", shape=shape, dtype="float32")
    return zarr.open_array(folder / "y.zarr", mode="r")


@pytest.mark.parametrize("target", [read_only_array, read_only_hdf5, read_only_zarr])
def test_a_target_that_is_read_only_is_refused_before_anything_is_computed(target, tmp_path, model, expected):
    with pytest.raises(ValueError, match="`out` is written to. Received: an array that is read-only"):
        ka.apply_blocks(model, X, target(tmp_path, expected.shape))


@pytest.mark.parametrize("part", [slice(None), slice(0, None)], ids=["all of it", "a part"])
def test_a_memory_map_that_never_writes_to_its_file_is_refused(part, tmp_path, model, expected):
    np.save(tmp_path / "y.npy", np.zeros(expected.shape, "float32"))
    with pytest.raises(ValueError, match='never comes to its file. Open it with `mode="r\\+"`'):
        ka.apply_blocks(model, X, np.load(tmp_path / "y.npy", mmap_mode="c")[part])
    assert [file.name for file in tmp_path.iterdir()] == ["y.npy"]


@pytest.mark.parametrize("shape", [(17, 13, 3), (17, 13), (1, 1, 17, 13, 2)], ids=str)
def test_an_array_of_another_shape_is_named_as_what_it_is(shape, model, expected):
    words = r"`input.shape` has the 3 sizes of \(\?, \?, 2\), which `.*` takes. Received: input.shape="
    with pytest.raises(ka.SizeError, match=words):
        ka.apply_blocks(model, np.zeros(shape, "float32"), np.zeros(expected.shape, "float32"))
    with pytest.raises(ka.SizeError, match="`input_size` has the 3 sizes"):
        ka.plan_blocks(model, (17, 13, 3))


@pytest.mark.parametrize("dtype", ["complex64", "O", "datetime64[s]", "U3"])
def test_what_holds_no_real_numbers_is_refused(dtype, model, expected):
    given, out = np.zeros(SHAPE, dtype), np.zeros(expected.shape, "float32")
    plan = ka.plan_blocks(model, SHAPE[:2], block=BLOCK)
    for read in (
        lambda: ka.apply_blocks(plan, given, out),
        lambda: plan[0].compute(given),
        lambda: plan.to_dask(given),
    ):
        with pytest.raises(ValueError, match="holds real numbers. Received: an array of dtype"):
            read()


@pytest.mark.parametrize(
    "given, words",
    [
        (
            np.ma.masked_array(np.zeros(SHAPE, "float32"), True),
            r"`array.filled\(0\)`.*Received: input of type MaskedArray",
        ),
        (keras.Variable(np.zeros(SHAPE)), r"`keras.ops.convert_to_numpy` makes one.*Received: input of type "),
    ],
    ids=["masked", "variable"],
)
def test_what_is_no_array_of_numbers_is_refused_before_anything_is_computed(given, words, model, expected):
    with pytest.raises(ValueError, match=words):
        ka.apply_blocks(model, given, np.zeros(expected.shape, "float32"), block=BLOCK)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", "longdouble"])
def test_numbers_of_any_byte_order_and_width_are_read(dtype, model):
    given = (4 * X).astype(dtype)
    expected = keras.ops.convert_to_numpy(model(given.astype("float32")[None]))[0]
    out = np.zeros(expected.shape, "float32")
    ka.apply_blocks(model, given, out, block=BLOCK)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_of_no_samples_nothing_is_computed(model, expected):
    assert ka.apply_blocks(model, X[None][:0], np.zeros((0, *expected.shape), "float32"), block=BLOCK).blocks == 0
