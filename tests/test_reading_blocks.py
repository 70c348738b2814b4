"""Blocks are read from arrays in chunks: each chunk is decoded once where memory allows, and what is kept is bounded."""

import math
import threading

import keras
import numpy as np
import pytest

import keras_adjoint as ka
from keras_adjoint.blocks.reader import Reader
from keras_adjoint.blocks.tasks import tasks_of

pytestmark = pytest.mark.any_backend
SHAPE, CHUNKS = (37, 29, 2), (5, 4, 2)
X = np.random.default_rng(0).normal(size=SHAPE).astype("float32")


class Chunked:
    """An array in chunks that counts how many of them are decoded."""

    def __init__(self, array, chunks=CHUNKS, fails=()):
        self.array, self.chunks, self.shape, self.dtype = array, chunks, array.shape, array.dtype
        self.decoded, self.fails = 0, list(fails)

    def __getitem__(self, cut):
        cuts = [slice(one, one + 1) if isinstance(one, int) else one for one in cut]
        self.decoded += math.prod(
            -(-one.stop // size) - one.start // size for one, size in zip(cuts, self.chunks, strict=True)
        )
        if self.fails:
            raise self.fails.pop()
        return self.array[cut].copy()

    @property
    def count(self):
        return math.prod(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))


@pytest.fixture(scope="module")
def conv():
    keras.utils.set_random_seed(0)
    layer = keras.layers.Conv2D(3, 5, padding="same")
    layer.build((None, None, None, 2))
    return layer


def plan_of(conv, batch=1):
    plan = ka.plan_blocks(conv, SHAPE[:2], block=(10, 8))
    plan.batch = batch
    return plan


def read_all(reader, whole, each=lambda: None):
    """Read all tasks, whose numbers are those of the array."""
    while (task := reader.next()) is not None:
        expected = np.stack([whole[(*task.sample, *block.read)] for block in task.blocks])
        np.testing.assert_array_equal(reader.read(task), expected)
        each()


@pytest.mark.parametrize("batch", [1, 3])
def test_every_chunk_is_decoded_once_where_memory_allows(conv, batch):
    given = Chunked(X)
    reader = Reader(given, tasks_of(plan_of(conv, batch), None), spare=10**9)
    read_all(reader, X)
    assert given.decoded == given.count
    assert not reader.held and not reader.windows  # nothing is kept that no block is to read


def test_what_is_kept_is_bounded_and_the_more_of_it_the_less_is_decoded(conv):
    decoded = []
    for spare in (0, 1000, 2000, 4000, 10**9):
        given = Chunked(X)
        reader, most = Reader(given, tasks_of(plan_of(conv), None), spare), [0]
        read_all(reader, X, lambda reader=reader, most=most: most.append(sum(reader.held.values())))
        assert max(most) <= spare
        decoded.append(given.decoded)
    assert decoded == sorted(decoded, reverse=True) and decoded[0] > decoded[2] > decoded[-1] == given.count


def test_several_threads_and_samples_get_their_own_numbers(conv):
    x = np.stack([X, -X, 2 * X])
    given = Chunked(x, (1, *CHUNKS))
    reader, errors = Reader(given, tasks_of(plan_of(conv, 2), 3), spare=10**9), []

    def work():
        try:
            read_all(reader, x)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and not reader.held and given.decoded < 2 * given.count


def test_more_blocks_than_are_looked_ahead_are_read(conv, monkeypatch):
    monkeypatch.setattr("keras_adjoint.blocks.reader.AHEAD", 5)
    given = Chunked(X)
    reader = Reader(given, tasks_of(plan_of(conv), None), spare=10**9)
    read_all(reader, X)
    assert given.count < given.decoded < 2 * given.count and not reader.held


def test_what_could_not_be_read_is_read_again(conv):
    given, out = Chunked(X, fails=[OSError("for a moment")]), np.zeros((*SHAPE[:2], 3), "float32")
    done = ka.apply_blocks(plan_of(conv), given, out)
    assert done.computed == 16 and given.decoded < 2 * given.count
    expected = np.zeros_like(out)
    ka.apply_blocks(plan_of(conv), X, expected)
    assert out.tobytes() == expected.tobytes()


def test_memory_decides_about_what_is_kept(conv):
    """Chunks are kept in what `memory` leaves beside the blocks; of none, as without chunks, every block is read by itself."""
    out, decoded = np.zeros((*SHAPE[:2], 3), "float32"), []
    for memory in ("1GiB", "1kB"):
        given = Chunked(X)
        ka.apply_blocks(plan_of(conv), given, out, memory=memory)
        decoded.append(given.decoded)
    assert decoded[0] <= 1.2 * given.count < 1.5 * given.count < decoded[1]


def test_memory_is_used_again_by_blocks_that_fit_in_it(conv):
    reader = Reader(X, tasks_of(plan_of(conv), None), spare=0)
    most = math.prod(plan_of(conv).middle.read) * X.itemsize
    sizes = set()
    while (task := reader.next()) is not None:
        read = reader.read(task)
        sizes.add(read.base.size)
        reader.buffers.give(read)
        assert len(reader.buffers.free) == 1 and reader.buffers.free[0] is read.base
    assert max(sizes) == most and len(sizes) < 4


class Slow:
    """A target into which nothing is written before the block after it has been read, unless there is none."""

    def __init__(self, array, given, blocks):
        self.array, self.given, self.left, self.shape, self.dtype = array, given, blocks, array.shape, array.dtype

    def __getitem__(self, cut):
        return self.array[cut]

    def __setitem__(self, cut, value):
        self.left -= 1
        assert self.given.was_read.acquire(timeout=10) or not self.left
        self.array[cut] = value


class Read:
    """An array that says how often it has been read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.was_read, self.is_first = threading.Semaphore(0), True

    def __getitem__(self, cut):
        part = self.array[cut]
        if not self.is_first:
            self.was_read.release()
        self.is_first = False
        return part


def test_a_result_that_shares_the_memory_of_what_was_read_is_not_written_over(monkeypatch):
    plan = ka.plan_blocks(keras.layers.Cropping2D(3), SHAPE, block=(10, 8))
    plan.batch = 1
    # What a block reads of a crop is the result, of which a backend need not make a copy.
    monkeypatch.setattr("keras_adjoint.blocks.plan.Plan.compute", lambda plan, program, parts: parts)
    out, given = np.zeros(plan.out_shape, "float32"), Read(X)
    ka.apply_blocks(plan, given, Slow(out, given, len(plan)))
    np.testing.assert_array_equal(out, X[3:-3, 3:-3])


def test_chunks_that_are_not_stored_are_fill_values(conv, tmp_path):
    zarr = pytest.importorskip("zarr")
    given = zarr.create_array(tmp_path / "x.zarr", shape=SHAPE, chunks=CHUNKS, dtype="float32", fill_value=2.0)
    given[:9] = X[:9]
    found, expected = np.zeros((2, *SHAPE[:2], 3), "float32")
    ka.apply_blocks(plan_of(conv), given, found)
    ka.apply_blocks(plan_of(conv), given[:], expected)
    assert found.tobytes() == expected.tobytes() and not (tmp_path / "x.zarr" / "c" / "3").exists()
