"""`plan.to_dask`: the same result by dask's schedulers, also where a worker is killed in the middle."""

import os
import pickle
import signal
import time

import keras
import numpy as np
import pytest
from layer_list import randomize

import keras_adjoint as ka

L = keras.layers
pytestmark = pytest.mark.any_backend
X = np.random.default_rng(0).normal(size=(37, 29, 2)).astype("float32")


def model():
    made = keras.Sequential(
        [keras.Input((None, None, 2)), L.Conv2D(3, 3, strides=2, padding="same", activation="relu")]
    )
    randomize(made.layers[0])
    return made


def test_dask_computes_the_same():
    array = pytest.importorskip("dask.array")
    plan = ka.plan_blocks(model(), X.shape[:2], block=7)
    expected = keras.ops.convert_to_numpy(plan.source(X[None]))[0]
    for source in (X, array.from_array(X, chunks=(10, 8, 1))):
        lazy = plan.to_dask(source)
        assert lazy.shape == (19, 15, 3) and lazy.dtype == "float32" and lazy.chunks == ((7, 7, 5), (7, 7, 1), (3,))
        np.testing.assert_allclose(lazy.compute(scheduler="threads", num_workers=2), expected, atol=1e-5)
    part = plan.to_dask(X)[8:12, 3:5]
    np.testing.assert_allclose(part.compute(scheduler="sync"), expected[8:12, 3:5], atol=1e-5)
    of_batch = plan.to_dask(np.stack([X, 2 * X]))
    assert of_batch.shape == (2, 19, 15, 3)
    twice = keras.ops.convert_to_numpy(plan.source(np.stack([X, 2 * X])))
    np.testing.assert_allclose(of_batch.compute(scheduler="sync"), twice, atol=1e-5)
    assert plan.to_dask(np.ones((0, *X.shape), "float32")).compute(scheduler="sync").shape == (0, 19, 15, 3)
    with pytest.raises(ka.SizeError, match="reads arrays of shape"):
        plan.to_dask(X[:-1])


def test_a_pickled_plan_is_the_same_plan():
    conv = L.Conv2D(3, 4, strides=3, padding="same")
    conv.build((None, 37, 29, 2))
    randomize(conv)
    for op, x in ((model(), X), (ka.operator(conv).T, np.ones((13, 10, 3), "float32"))):
        plan = ka.plan_blocks(op, x.shape, block=9)
        copy = pickle.loads(pickle.dumps(plan))
        assert copy.block == plan.block and copy.batch == plan.batch and len(copy) == len(plan)
        np.testing.assert_array_equal(copy[3].compute(x), plan[3].compute(x))


def killed_once(array, file):
    """An array that kills the first worker that reads its middle."""

    def read(block, block_info=None):
        if block_info[0]["array-location"][0][0] == 20 and not os.path.exists(file):
            open(file, "w").close()
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    return array.map_blocks(read, dtype=array.dtype)


@pytest.mark.exhaustive
def test_a_cluster_of_two_workers_of_which_one_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    array = pytest.importorskip("dask.array")
    plan = ka.plan_blocks(model(), X.shape[:2], block=5)
    expected = keras.ops.convert_to_numpy(plan.source(X[None]))[0]
    file = str(tmp_path / "killed")
    lazy = plan.to_dask(killed_once(array.from_array(X, chunks=(10, 29, 2)), file))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        np.testing.assert_allclose(client.compute(lazy).result(timeout=240), expected, atol=1e-5)
    assert os.path.exists(file)
