"""`apply_blocks`: from and to anything that slices, resumed after a kill to the bit, and nothing else is ever resumed."""

import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from layer_list import randomize
from numpy.lib.format import open_memmap

import keras_adjoint as ka
from keras_adjoint.blocks import memory
from keras_adjoint.blocks.plan import Plan
from keras_adjoint.blocks.targets import is_full

L = keras.layers
pytestmark = pytest.mark.any_backend
SHAPE, BLOCK = (37, 29, 2), (8, 10)
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=SHAPE).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((None, None, 2)), L.Conv2D(3, 3, padding="same", activation="relu"), L.MaxPooling2D(2, 1, "same")]
    )
    for layer in made.layers:
        randomize(layer)
    return made


@pytest.fixture(scope="module")
def expected(model):
    return keras.ops.convert_to_numpy(model(X[None]))[0]


def zarr_array(tmp_path, shape, chunks, shards=None):
    zarr = pytest.importorskip("zarr")
    return zarr.create_array(tmp_path / "a.zarr", shape=shape, chunks=chunks, shards=shards, dtype="float32")


TARGETS = {
    "array": lambda folder, shape: np.zeros(shape, "float32"),
    "memory map": lambda folder, shape: open_memmap(folder / "y.npy", "w+", "float32", shape),
    "hdf5": lambda folder, shape: h5py.File(folder / "y.h5", "w").create_dataset("y", shape, "float32"),
    "hdf5, chunks": lambda folder, shape: h5py.File(folder / "y.h5", "w").create_dataset(
        "y", shape, "float32", chunks=(8, 5, 3), compression="gzip"
    ),
    "zarr": lambda folder, shape: zarr_array(folder, shape, (4, 5, 3)),
    "zarr, shards": lambda folder, shape: zarr_array(folder, shape, (4, 5, 3), (8, 10, 3)),
}


@pytest.mark.every_backend
@pytest.mark.parametrize("target", TARGETS)
def test_the_result_is_the_one_of_the_whole(target, tmp_path, model, expected):
    out = TARGETS[target](tmp_path, expected.shape)
    done = ka.apply_blocks(model, X, out, block=BLOCK, workers=2)
    assert done.blocks == done.computed == 15
    np.testing.assert_allclose(out[:], expected, atol=1e-5)
    assert not list(tmp_path.glob("**/*.journal"))


def test_input_and_target_may_have_a_batch_axis_and_be_files(tmp_path, model, expected):
    np.save(tmp_path / "x.npy", np.stack([X, -X, 2 * X]))
    out = np.zeros((3, *expected.shape), "float32")
    done = ka.apply_blocks(model, np.load(tmp_path / "x.npy", mmap_mode="r"), out, block=BLOCK)
    assert done.blocks == 45
    np.testing.assert_allclose(out[0], expected, atol=1e-5)
    np.testing.assert_allclose(out, keras.ops.convert_to_numpy(model(np.stack([X, -X, 2 * X]))), atol=1e-4)


def test_blocks_that_are_alike_are_computed_together(model):
    plan = ka.plan_blocks(model, SHAPE[:2], block=4)
    assert plan.batch > 1
    sizes = []
    compute = plan.compute
    plan.compute = lambda program, parts: sizes.append(len(parts)) or compute(program, parts)
    ka.apply_blocks(plan, X, np.zeros(plan.out_shape, "float32"))
    assert sum(sizes) == len(plan) == 80 and max(sizes) == 35 and len(sizes) < 20


def test_blocks_follow_the_chunks_of_the_target(tmp_path, model, expected, monkeypatch):
    monkeypatch.setattr(memory, "FIXED", 0)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        out = file.create_dataset("y", expected.shape, "float32", chunks=(8, 6, 3))
        for block in (5, (8, 7), (16, 9)):
            with pytest.raises(ka.SizeError, match=r"written once, by one worker.*of [68] positions.*Received: block="):
                ka.apply_blocks(model, X, out, block=block)
        done = ka.apply_blocks(model, X, out, memory="60kB")
        assert done.blocks > 1 and done.plan.block[0] % 8 == 0 and done.plan.block[1] in (6, 12, 18, 24, 29)
        np.testing.assert_allclose(out[:], expected, atol=1e-5)
        batch = file.create_dataset("batch", (2, *expected.shape), "float32", chunks=(2, 8, 6, 3))
        with pytest.raises(ka.SizeError, match="chunks of the target hold several"):
            ka.apply_blocks(model, np.stack([X, X]), batch, block=(8, 6))


# --- killed and resumed

PROGRAM = """
import sys, time
import numpy as np
from numpy.lib.format import open_memmap
import keras, keras_adjoint as ka
folder, mode, slowly = sys.argv[1], sys.argv[2], float(sys.argv[3])
model = keras.saving.load_model(folder + "/model.keras")
x = np.load(folder + "/x.npy", mmap_mode="r")
out = open_memmap(folder + "/y.npy", mode, "float32", x.shape[:2] + (3,) if mode == "w+" else None)
plan = ka.plan_blocks(model, x.shape[:2], block=8)
plan.batch, compute = 2, plan.compute
plan.compute = lambda *given: (time.sleep(slowly), compute(*given))[1]
done = ka.apply_blocks(plan, x, out, workers=2)
print(done.computed, done.blocks)
"""


def killed(journal, pid, lines):
    """Kill a process as soon as its journal has some lines, and what is finished by then."""
    until = time.monotonic() + 120
    while not (journal.exists() and len(journal.read_text().splitlines()) > lines) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return {json.loads(line)[0] for line in journal.read_text().splitlines()[1:]}


def slow(plan, seconds):
    compute = plan.compute
    plan.compute = lambda *given: (time.sleep(seconds), compute(*given))[1]
    return plan


def in_new_process(function, *given):
    """Start a function. The process of the tests itself is not forked: JAX has threads in it, and their locks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras"])
    process = context.Process(target=function, args=given)
    process.start()
    return process


def in_pairs(model):
    made = ka.plan_blocks(model, SHAPE[:2], block=8)
    made.batch = 2
    return made


def compute_slowly(folder):
    model = keras.models.load_model(folder / "model.keras")
    ka.apply_blocks(slow(in_pairs(model), 0.15), X, open_memmap(folder / "y.npy", "r+"), workers=2)


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(lines, tmp_path, model, expected):
    """No finished block is computed twice, whenever it is killed; the journal says which are finished."""
    out, journal = open_memmap(tmp_path / "y.npy", "w+", "float32", expected.shape), tmp_path / "y.npy.journal"
    model.save(tmp_path / "model.keras")
    process = in_new_process(compute_slowly, tmp_path)
    finished = killed(journal, process.pid, lines)
    process.join()
    assert process.exitcode == -signal.SIGKILL and lines <= len(finished) < 11
    with journal.open("a") as file:
        file.write("[19, 12")  # as if it had been killed in the middle of a line
    computed = ka.apply_blocks(in_pairs(model), X, out, workers=2).computed
    assert 20 - 2 * len(finished) <= computed <= 20 - len(finished)  # of one or two blocks each
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert not journal.exists()
    anew = np.zeros_like(expected)
    assert ka.apply_blocks(in_pairs(model), X, anew).computed == 20
    assert anew.tobytes() == np.asarray(out).tobytes()


@pytest.mark.exhaustive
def test_killed_it_goes_on_in_a_new_process(tmp_path, model, expected):
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    journal = tmp_path / "y.npy.journal"

    def start(mode, slowly):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), mode, str(slowly)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    process = start("w+", 0.3)
    finished = killed(journal, process.pid, 3)
    assert process.wait() == -signal.SIGKILL and 2 < len(finished) < 10
    process = start("r+", 0)
    computed, blocks = map(int, process.communicate(timeout=120)[0].split())
    assert blocks == 20 and 0 < computed <= 20 - len(finished)  # of one or two blocks each
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not journal.exists()
    process = start("w+", 0)
    assert process.communicate(timeout=120)[0].split() == ["20", "20"]
    assert found.tobytes() == np.load(tmp_path / "y.npy").tobytes()


def rows(model):
    """A plan of five blocks, each computed by itself."""
    plan = ka.plan_blocks(model, SHAPE[:2], block=(8, 29))
    plan.batch = 1
    return plan


class Failing:
    """An array of which reading some parts fails, as often as is said."""

    def __init__(self, array, error, times=10**9, where=0):
        self.array, self.error, self.times, self.where = array, error, times, where
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, cut):
        if cut[0].start <= self.where < cut[0].stop and self.times > 0:
            self.times -= 1
            raise self.error
        return self.array[cut]


def test_a_block_that_fails_is_tried_again_then_named_and_the_others_stay(tmp_path, model, expected):
    out = open_memmap(tmp_path / "y.npy", "w+", "float32", expected.shape)
    again = Failing(X, OSError("a corrupt chunk"), times=1)
    ka.apply_blocks(model, again, out, block=(8, 29))
    np.testing.assert_allclose(out, expected, atol=1e-5)

    out[:] = 0
    with pytest.raises(ka.KerasAdjointError, match=r"\[0:8, 0:29, 0:3\].*all other blocks.*OSError: a corrupt chunk"):
        ka.apply_blocks(model, Failing(X, OSError("a corrupt chunk")), out, block=(8, 29))
    assert not out[:8].any()
    np.testing.assert_allclose(out[8:], expected[8:], atol=1e-5)
    done = ka.apply_blocks(model, X, out, block=(8, 29))
    assert done.computed == 1
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_full_disk_ends_it_at_once_and_loses_nothing(tmp_path, model, expected):
    class Full(np.memmap):
        written = 0

        def __setitem__(self, cut, value):
            if Full.written == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            Full.written += 1
            super().__setitem__(cut, value)

    np.save(tmp_path / "y.npy", np.zeros(expected.shape, "float32"))
    out = np.load(tmp_path / "y.npy", mmap_mode="r+")
    with pytest.raises(ka.KerasAdjointError, match="Make room, and start it again.*No space left on device"):
        ka.apply_blocks(rows(model), X, out.view(Full))
    assert ka.apply_blocks(rows(model), X, out).computed == 3
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.fixture
def unfinished(tmp_path, model, expected):
    """A target of which one block is missing."""
    out = open_memmap(tmp_path / "y.npy", "w+", "float32", expected.shape)
    with pytest.raises(ka.KerasAdjointError):
        ka.apply_blocks(rows(model), Failing(X, OSError("no"), where=36), out)
    return out


def test_what_is_resumed_is_the_same_or_refused(unfinished, model, expected):
    def refused(what, op=model, x=X):
        with pytest.raises(ka.KerasAdjointError, match=rf"{what}.*`resume=False`.*Received: journal .*y.npy.journal"):
            ka.apply_blocks(op if isinstance(op, Plan) else rows(op), x, unfinished)

    refused("another plan", op=ka.plan_blocks(model, SHAPE[:2], block=(16, 29)))
    refused("another shape or dtype", x=X.astype("float64"))
    other = keras.models.clone_model(model)
    refused("other weights", op=other)
    changed = X.copy()
    changed[10, 3, 1] += 1e-3
    refused("it has changed where .*reads", x=changed)
    done = ka.apply_blocks(rows(model), X, unfinished)
    # The last block, which the change does not reach, may have been computed by the other thread before it was refused.
    assert done.computed <= 1 and done.blocks == 5
    np.testing.assert_allclose(unfinished, expected, atol=1e-5)


@pytest.mark.parametrize("beginning", ["", "[]", '{"format"'])
def test_a_journal_whose_beginning_is_damaged_is_refused(beginning, unfinished, model):
    journal = Path(f"{unfinished.filename}.journal")
    journal.write_text(beginning + journal.read_text()[journal.read_text().index("\n") :])
    with pytest.raises(ka.KerasAdjointError, match="its beginning is damaged.*`resume=False`"):
        ka.apply_blocks(rows(model), X, unfinished)


def test_what_the_target_has_lost_is_computed_again(unfinished, model, expected):
    unfinished[9, 4, 0] += 1
    assert ka.apply_blocks(rows(model), X, unfinished).computed == 2
    np.testing.assert_allclose(unfinished, expected, atol=1e-5)


def test_two_processes_never_write_one_target(unfinished, model):
    with open(f"{unfinished.filename}.journal", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for resume in (True, False):
            with pytest.raises(ka.KerasAdjointError, match="Another process is writing.*Received: journal"):
                ka.apply_blocks(rows(model), X, unfinished, resume=resume)
    assert ka.apply_blocks(rows(model), X, unfinished).computed == 1


def test_begun_anew_everything_is_computed(unfinished, model):
    assert ka.apply_blocks(rows(model), X, unfinished, resume=False).computed == 5


# --- arguments


def test_progress_is_reported(model, expected, capsys):
    seen = []
    out = np.zeros(expected.shape, "float32")
    ka.apply_blocks(model, X, out, block=BLOCK, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (15, 15) and seen == sorted(seen)
    ka.apply_blocks(model, X, out, block=BLOCK, progress=True)
    assert "15 of 15 blocks, 0:0" in capsys.readouterr().err


def test_wrong_arguments_are_refused(model, expected):
    out = np.zeros(expected.shape, "float32")
    with pytest.raises(ka.SizeError, match=r"\(37, 29, 3\) is made.*Received: out.shape=\(37, 29, 2\)"):
        ka.apply_blocks(model, X, X.copy())
    with pytest.raises(ka.SizeError, match="Received: "):
        ka.apply_blocks(model, X[..., :1], out)
    with pytest.raises(ka.SizeError, match=r"Received: "):  # which is no batch of 37 rows
        ka.apply_blocks(model, X[..., :1], np.zeros((37, 29, 1, 3), "float32"))
    with pytest.raises(ValueError, match="slices like a NumPy array.*type list"):
        ka.apply_blocks(model, [1, 2], out)
    with pytest.raises(ValueError, match="Received: workers=0"):
        ka.apply_blocks(model, X, out, workers=0)
    with pytest.raises(ValueError, match="has its blocks already"):
        ka.apply_blocks(ka.plan_blocks(model, SHAPE[:2]), X, out, block=3)
    with pytest.raises(ValueError, match="progress='bar'"):
        ka.apply_blocks(model, X, out, progress="bar")
    with pytest.raises(ValueError, match=r"would not keep its fractions.*out.dtype=uint8"):
        ka.apply_blocks(model, X, np.zeros(expected.shape, "uint8"))


def test_what_is_still_to_be_read_is_not_written_over(tmp_path):
    conv = L.Conv2D(2, 3, padding="same")
    conv.build((None, None, None, 2))
    whole = keras.ops.convert_to_numpy(conv(X[None]))[0]
    rows, columns = np.zeros((45, *SHAPE[1:]), "float32"), np.zeros((*SHAPE[:2], 4), "float32")
    np.save(tmp_path / "x.npy", X)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored, other = file.create_dataset("x", data=X), file.create_dataset("y", SHAPE, "float32")
        maps = [np.load(tmp_path / "x.npy", mmap_mode="r+") for _ in range(2)]
        shared = [(rows[:37], rows[8:]), tuple(maps), (maps[0][::-1], maps[1]), (stored, file["x"]), (rows[:37],) * 2]
        for given, out in shared:
            before = np.array(out)
            with pytest.raises(ValueError, match="memory or the file of `input`"):
                ka.apply_blocks(conv, given, out, block=8)
            np.testing.assert_array_equal(out, before)
        columns[..., ::2] = X
        for given, out in ((columns[..., ::2], columns[..., 1::2]), (stored, other)):
            ka.apply_blocks(conv, given, out, block=8)
            np.testing.assert_allclose(out, whole, rtol=0, atol=1e-5)


def test_an_error_of_progress_ends_it_and_loses_nothing(tmp_path, model, expected):
    out = open_memmap(tmp_path / "y.npy", "w+", "float32", expected.shape)

    def progress(done, total):
        raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError, match="the user's own"):
        ka.apply_blocks(rows(model), X, out, progress=progress)
    assert 0 < ka.apply_blocks(rows(model), X, out).computed < 5  # none that was finished
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_journal_that_cannot_be_written_is_said_before_anything_is(tmp_path, model, expected):
    out = open_memmap(tmp_path / "y.npy", "w+", "float32", expected.shape)
    (tmp_path / "y.npy.journal").mkdir()
    for resume in (True, False):
        with pytest.raises(
            ka.KerasAdjointError, match="journal beside the target, which cannot.*Received: journal .*y.npy"
        ):
            ka.apply_blocks(model, X, out, resume=resume)
    assert not out.any()


def test_no_room_for_a_memory_map_is_said_before_anything_is_written(tmp_path, model, expected, monkeypatch):
    out = open_memmap(tmp_path / "y.npy", "w+", "float32", expected.shape)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ka.KerasAdjointError, match="Make room.*Received: out.shape="):
        ka.apply_blocks(model, X, out)


def test_a_target_that_overlaps_itself_is_refused(model, expected):
    twice = np.lib.stride_tricks.as_strided(np.zeros(expected.shape[1:], "float32"), expected.shape, (0, 12, 4))
    with pytest.raises(ValueError, match=r"share memory.*Received: out.strides=\(0, 12, 4\)"):
        ka.apply_blocks(model, X, twice)
    transposed = np.zeros(expected.shape[::-1], "float32").T[::-1]
    ka.apply_blocks(model, X, transposed)
    np.testing.assert_allclose(transposed, expected, atol=1e-5)


@pytest.mark.parametrize(
    "error, full",
    [
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError("write failed: No space left on device"), True),
        (OSError(), False),
    ],
)
def test_a_full_disk_is_known_by_its_number_or_its_words(error, full):
    assert is_full(error) is full


# --- chunks


def damaged(folder):
    """Write over the first chunk of a folder of zarr's."""
    first, *_ = sorted(file for file in (folder / "c").rglob("*") if file.is_file())
    first.write_bytes(b"no chunk at all")


def test_a_damaged_chunk_of_the_input_is_named_and_of_the_target_computed_again(tmp_path, model, expected):
    zarr = pytest.importorskip("zarr")
    given = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(8, 29, 2))
    out = zarr.create_array(tmp_path / "y.zarr", shape=expected.shape, chunks=(8, 29, 3), dtype="float32")
    damaged(tmp_path / "x.zarr")
    with pytest.raises(ka.KerasAdjointError, match=r"\[0:8, 0:29, 0:3\].*all other blocks are finished"):
        ka.apply_blocks(rows(model), given, out)
    given[:] = X
    damaged(tmp_path / "y.zarr")  # that of another block, which was finished
    assert ka.apply_blocks(rows(model), given, out).computed == 3  # two have read the chunk of the input
    np.testing.assert_allclose(out[:], expected, atol=1e-5)


def compute_within(folder, allowed):
    """Return with a status of 0 if the computation took no more than so much, in several blocks."""
    signal.alarm(100)
    conv = L.Conv2D(8, 5, padding="same")
    conv.build((None, None, None, 8))
    small = np.ones((64, 64, 8), "float32")
    ka.apply_blocks(conv, small, np.zeros_like(small), block=32)
    status_of = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    had = next(int(line.split()[1]) for line in status_of if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * had + allowed,) * 2)
    with h5py.File(folder / "a.h5", "r+") as file:
        done = ka.apply_blocks(conv, file["x"], file["y"], memory=allowed)
    np.save(folder / "kernel.npy", keras.ops.convert_to_numpy(conv.kernel))
    sys.exit(0 if done.blocks > 1 else 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
@pytest.mark.parametrize("chunks", [None, (64, 300, 8)])
def test_memory_is_kept_under_a_limit(chunks, tmp_path):
    """What is allocated in all, beyond what the process had, for arrays of more than that."""
    allowed, size = 170_000_000, 1800
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.ones((size, size, 8), "float32"), chunks=chunks)
        file.create_dataset("y", (size, size, 8), "float32")
    process = in_new_process(compute_within, tmp_path, allowed)
    process.join()
    assert process.exitcode == 0
    conv = L.Conv2D(8, 5, padding="same")
    conv.build((None, None, None, 8))
    conv.kernel.assign(np.load(tmp_path / "kernel.npy"))
    with h5py.File(tmp_path / "a.h5", "r") as file:
        part = keras.ops.convert_to_numpy(conv(np.ones((1, 20, 20, 8), "float32")))[0]
        np.testing.assert_allclose(file["y"][:9, :9], part[:9, :9], atol=1e-5)


@pytest.mark.any_backend
def test_wrong_arguments_leave_no_journal(tmp_path):
    conv = L.Conv1D(2, 3, padding="same")
    conv.build((None, None, 1))
    x, out = np.ones((20, 1), "float32"), np.lib.format.open_memmap(tmp_path / "y.npy", "w+", "float32", (20, 2))
    with pytest.raises(ValueError, match="`progress` is"):
        ka.apply_blocks(conv, x, out, block=5, progress="often")
    with pytest.raises(ValueError, match="`input` is an array of NumPy.*convert_to_numpy"):
        ka.apply_blocks(conv, SimpleNamespace(shape=x.shape, dtype="a tensor's", __getitem__=None), out, block=5)
    assert [file.name for file in tmp_path.iterdir()] == ["y.npy"]
    assert ka.apply_blocks(conv, x, out, block=5).computed == 4
