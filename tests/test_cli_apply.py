"""`keras-adjoint apply`: from file to file what the model gives for the whole, complete or under another name."""

import json
import os
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from command_line import complains, run, saved
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint_cli.files.volumes import chunks_for, codecs_in

L = keras.layers
pytestmark = pytest.mark.any_backend
X = np.random.default_rng(0).normal(size=(31, 26, 2)).astype("float32")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((None, None, 2)), L.Conv2D(3, 3, strides=2, padding="same", name="conv")])
    randomize(model.layers[0])
    np.save("x.npy", X)
    return saved(model, tmp_path)


def expected(file, x=X):
    return keras.ops.convert_to_numpy(keras.saving.load_model(file)(x[None]))[0]


def test_the_output_is_what_the_model_gives(file):
    result = run("apply", file, "x.npy", "-o", "y.npy", "--block", 8, "--workers", 2)
    assert result.exit_code == 0, result.output
    assert "the model applied to x.npy, 31×26×2 to 16×13×3, in 4 blocks of 8×8." in result.stdout
    np.testing.assert_allclose(np.load("y.npy"), expected(file), atol=1e-5)
    assert {one.name for one in file.parent.iterdir()} == {"model.keras", "x.npy", "y.npy"}


def test_arrays_of_hdf5_and_batches(file):
    with h5py.File("x.h5", "w") as written:
        written["scans/one"], written["scans/many"] = X, np.stack([X, 2 * X])
    complains(
        run("apply", file, "x.h5", "-o", "y.npy"), "has 2 arrays; name one of them with --key: scans/many, scans/one"
    )
    complains(run("apply", file, "x.h5", "-o", "y.npy", "--key", "two"), "Received: --key two")
    assert run("apply", file, "x.h5", "-o", "y.npy", "--key", "scans/many").exit_code == 0
    np.testing.assert_allclose(np.load("y.npy")[1], expected(file, 2 * X), atol=1e-4)


def test_the_adjoint_at_the_size_that_is_asked_for(file):
    y = np.random.default_rng(1).normal(size=(16, 13, 3)).astype("float32")
    np.save("y.npy", y)
    complains(run("apply", file, "y.npy", "-o", "z.npy", "--adjoint"), "--size 32x32x2")
    complains(run("apply", file, "y.npy", "-o", "z.npy", "--adjoint", "--size", "40x40"), "that is meant, --size")
    result = run("apply", file, "y.npy", "-o", "z.npy", "--adjoint", "--size", "31x26", "--block", 10, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["adjoint"] and data["output_shape"] == [31, 26, 2] and data["blocks"] == data["computed"] == 12
    operator = ka.operator(keras.saving.load_model(file), size=(31, 26))
    np.testing.assert_allclose(np.load("z.npy"), keras.ops.convert_to_numpy(operator.T @ y[None])[0], atol=1e-4)


def test_from_zarr_to_zarr(file):
    zarr = pytest.importorskip("zarr")
    zarr.create_array("x.zarr", data=X, chunks=(10, 10, 2))
    result = run("apply", file, "x.zarr", "-o", "y.zarr", "--block", "8x5")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(zarr.open_array("y.zarr")[:], expected(file), atol=1e-5)
    complains(run("apply", file, "x.zarr", "-o", "y.zarr"), "y.zarr exists already")
    complains(run("apply", file, "x.zarr", "-o", "x.zarr", "--force"), "is the input, which is never overwritten")
    assert run("apply", file, "x.zarr", "-o", "y.zarr", "--force").exit_code == 0
    described = Path("x.zarr/zarr.json")
    described.write_text(described.read_text().replace('"zstd"', '"numcodecs.pickle"'))
    complains(run("apply", file, "x.zarr", "-o", "z.zarr"), "packed by codecs that are not used here: pickle")


def test_arrays_in_groups_of_a_group_of_zarr_are_named_as_those_of_hdf5_are(file):
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group("x.zarr")
    group.create_array("brain/t1", data=X)
    assert run("apply", file, "x.zarr", "-o", "only.npy").exit_code == 0
    group.create_array("zeros", data=0 * X)
    complains(run("apply", file, "x.zarr", "-o", "y.npy"), "has 2 arrays; name one of them with --key: zeros, brain/t1")
    complains(run("apply", file, "x.zarr", "-o", "y.npy", "--key", "brain"), "brain/t1")
    assert run("apply", file, "x.zarr", "-o", "y.npy", "--key", "brain/t1").exit_code == 0
    for name in ("only.npy", "y.npy"):
        np.testing.assert_allclose(np.load(name), expected(file), atol=1e-5)


@pytest.mark.parametrize(
    "array, output, message",
    [
        (
            "group.zarr --key x.zarr",
            "group.zarr/x.zarr",
            "group.zarr/x.zarr is in group.zarr, and inputs are never changed",
        ),
        ("group.zarr --key x.zarr", "group.zarr/y.npy", "Name an output elsewhere"),
        ("group.zarr/x.zarr", "group.zarr", "group.zarr/x.zarr is in group.zarr, and inputs are never overwritten"),
        ("link.npy", "group.zarr", "link.npy is in group.zarr"),
        ("y.part.npy", "y.npy", "y.part.npy is the name under which y.npy is written first. Name another output"),
        ("y.part.zarr", "y.zarr", "y.part.zarr is the name under which y.zarr is written first. Name another output"),
        ("y.part.zarr/x.npy", "y.zarr", "y.part.zarr/x.npy is read, and y.part.zarr is the name"),
    ],
)
def test_an_output_neither_holds_an_input_nor_is_in_one(array, output, message, file):
    zarr = pytest.importorskip("zarr")
    zarr.create_group("group.zarr").create_array("x.zarr", data=X)
    zarr.create_array("y.part.zarr", data=X)
    for name in ("y.part.npy", "y.part.zarr/x.npy", "group.zarr/x.npy"):
        np.save(name, X)
    Path("link.npy").symlink_to("group.zarr/x.npy")
    before = {one: one.read_bytes() for one in file.parent.rglob("*") if one.is_file()}
    for options in ((), ("--force",), ("--resume",), ("--force", "--resume")):
        complains(run("apply", file, *array.split(), "-o", output, *options), message)
    assert {one: one.read_bytes() for one in file.parent.rglob("*") if one.is_file()} == before


def test_a_run_that_failed_goes_on(file):
    with h5py.File("x.h5", "w") as written:
        data = written.create_dataset("x", X.shape, "float32", chunks=(8, 26, 2), compression="gzip")
        data[...] = X
        chunk = data.id.get_chunk_info(3)
    whole = Path("x.h5").read_bytes()
    with open("x.h5", "r+b") as corrupt:
        corrupt.seek(chunk.byte_offset)
        corrupt.write(b"\0" * 40)
    arguments = ("apply", file, "x.h5", "-o", "y.npy", "--block", 4)
    complains(run(*arguments), "[12:16, 0:4, 0:3]")
    assert {one.name for one in file.parent.glob("y.*")} == {"y.part.npy", "y.part.npy.journal"}
    complains(run(*arguments), "Pass --resume to go on with it, or --force to begin anew")
    complains(run(*arguments[:-1], 8, "--resume"), "or pass --force to begin anew")
    Path("x.h5").write_bytes(whole)
    result = run(*arguments, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert 0 < json.loads(result.stdout)["computed"] < json.loads(result.stdout)["blocks"]
    np.testing.assert_allclose(np.load("y.npy"), expected(file), atol=1e-5)
    assert not list(file.parent.glob("*.journal"))


def test_names_of_250_letters_are_written_and_modes_kept(file):
    name = f"{'n' * 246}.npy"
    assert run("apply", file, "x.npy", "-o", name).exit_code == 0
    Path(name).chmod(0o600)
    assert run("apply", file, "x.npy", "-o", name, "--force").exit_code == 0
    assert Path(name).stat().st_mode & 0o777 == 0o600
    assert {one.name for one in file.parent.iterdir()} == {"model.keras", "x.npy", name}


@pytest.mark.parametrize("name", ["y.part.npy", "y.part.npy.journal"])
@pytest.mark.parametrize("planted", ["symlink_to", "hardlink_to", "mkfifo"])
def test_what_is_planted_under_the_name_of_a_stopped_run_is_neither_followed_nor_replaced(name, planted, file):
    Path("precious").write_text("precious")
    os.mkfifo(name) if planted == "mkfifo" else getattr(Path(name), planted)("precious")
    for options in ((), ("--resume",), ("--force",)):
        complains(run("apply", file, "x.npy", "-o", "y.npy", *options), f"{name} is ")
    assert Path("precious").read_text() == "precious"
    assert {one.name for one in file.parent.iterdir()} == {"model.keras", "x.npy", "precious", name}


def test_arrays_that_claim_far_more_than_they_hold_are_refused(file):
    zarr = pytest.importorskip("zarr")
    with h5py.File("x.h5", "w") as written:
        written.create_dataset("x", (10**6, 10**6, 2), "float32", chunks=(1000, 1000, 2))
    zarr.create_array("x.zarr", shape=(10**6, 10**6, 2), dtype="float32", chunks=(1000, 1000, 2))
    zarr.create_array("chunk.zarr", shape=(31, 26, 2), dtype="float32", chunks=(10**5, 10**5, 2))
    for name, what in {"x.h5": "its array", "x.zarr": "its array", "chunk.zarr": "one chunk of it"}.items():
        complains(run("apply", file, name, "-o", "y.npy"), f"{name} is too large: {what} would take ")


@pytest.mark.parametrize("plant", ["symlink_to", "mkfifo"])
def test_a_folder_of_zarr_holds_nothing_but_files(plant, file):
    zarr = pytest.importorskip("zarr")
    zarr.create_array("x.zarr", data=X)
    chunk = Path("x.zarr/c/0/0/0")
    chunk.unlink()
    os.mkfifo(chunk) if plant == "mkfifo" else chunk.symlink_to("/etc/passwd")
    complains(run("apply", file, "x.zarr", "-o", "y.npy"), "x.zarr/c/0/0/0 is no regular file, and is not read")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("x.npy -o y.png", "ends in .npy, .zarr"),
        ("x.npy -o x.npy --force", "is the input, which is never overwritten"),
        ("model.keras -o y.npy", "ends in .npy, .zarr, .h5, .hdf5"),
        ("missing.npy -o y.npy", "There is no file missing.npy"),
        ("words.npy -o y.npy", "no real numbers"),
        ("x.npy -o y.npy --key x", "has no name"),
        ("x.npy -o y.npy --block none", "Received: --block none"),
        ("x.npy -o y.npy --block 3x3x3", "cut along 2 axes"),
        ("x.npy -o y.npy --memory none", "Received: --memory none"),
        ("x.npy -o y.npy --memory 10", "Allow more --memory"),
        ("x.npy -o y.npy --size 3", "Received: --size 3"),
        ("thin.npy -o y.npy", "Received: "),
        ("x.npy -o missing/y.npy", "There is no folder missing"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(arguments, message, file):
    np.save("words.npy", np.array(["a", "b"]))
    np.save("thin.npy", X[..., :1])
    complains(run("apply", file, *arguments.split()), message)
    assert not list(file.parent.glob("y*"))


def test_chunks_are_parts_of_blocks():
    assert chunks_for((600, 500, 400, 8), (0, 1, 2), None) == (64, 64, 64, 8)
    assert chunks_for((600, 500, 400, 8), (0, 1, 2), (128, 96, 500)) == (64, 48, 64, 8)
    assert chunks_for((600, 500, 40, 8), (0, 1, 2), (127, 96, 40)) == (127, 48, 40, 8)
    assert set(codecs_in({"filters": [{"id": "delta"}], "compressor": {"id": "pickle"}})) == {"delta", "pickle"}
