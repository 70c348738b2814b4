"""`python -m benchmarks.blocks.chaos [CASE ENGINE]`: what is lost where a run is interrupted, and what it says to do.

Every run is a process of its own. The same is computed from the beginning as well, and the results are compared bit by bit.
"""

import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import zarr
from numpy.lib.format import open_memmap

import keras_adjoint as ka
from benchmarks.many.children import start, wait
from keras_adjoint.blocks.targets import journal_of
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out

SHAPE, ROWS = (64, 24, 2), 8  # of the array, and of each of the blocks
BLOCKS = SHAPE[0] // ROWS
SECONDS = 900
SAYS = {  # words of each error about what to do
    "full-disk": "Make room, and start it again",
    "damaged-input": "the same call computes what is missing; all other blocks are finished",
    "other-plan": "Write to another target, or pass `resume=False` to begin anew",
}
HAPPENS = {
    "killed-process": "the process is killed (SIGKILL)",
    "full-disk": "the disk is full (writing fails with ENOSPC)",
    "damaged-input": "a chunk of the input is damaged, later mended",
    "damaged-target": "a chunk that was finished is damaged",
    "other-plan": "the target holds blocks of another plan",
    "killed-worker": "one of two workers is killed (SIGKILL)",
}
CASES = [
    *((case, engine) for case in ("killed-process", "full-disk", "other-plan") for engine in ("numpy", "zarr", "hdf5")),
    *(("damaged-input", engine) for engine in ("zarr", "hdf5")),
    ("damaged-target", "zarr"),
    ("killed-worker", "dask"),
]


def main():
    """Run some cases, or all, and print a line of JSON for each."""
    keep_tensorflow_out()
    asked = [tuple(sys.argv[1:])] if sys.argv[1:] else CASES
    if not set(asked) <= set(CASES):
        sys.exit(f"There are {', '.join(map(' '.join, CASES))}. Received: {' '.join(asked[0])}")
    for case, engine in asked:
        print(json.dumps(row(case, engine)), flush=True)


def rows():
    """What is found for all cases, by a process that has not begun to compute, of which others can be made."""
    command = [sys.executable, "-m", "benchmarks.blocks.chaos"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def row(case, engine):
    """What is found for a case."""
    with tempfile.TemporaryDirectory() as folder:
        found = globals()[case.replace("-", "_")](Path(folder), engine)
    return {"case": case, "engine": engine, **found}


# --- the cases


def killed_process(folder, engine):
    given(folder, engine)
    journal, child = journal_of(target(folder, engine)), start(applied, folder, engine, out=folder / "killed.json")
    until = time.monotonic() + 120
    while not (journal.exists() and len(journal.read_text().splitlines()) > 3) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL
    noted = len([line for line in journal.read_text().splitlines()[1:] if line.endswith("]")])
    return resumed(folder, engine, noted)


def full_disk(folder, engine):
    given(folder, engine)
    found = of_child(applied, folder, engine, full_after=3)
    assert SAYS["full-disk"] in found["error"], found
    return resumed(folder, engine, 3) | {"says": SAYS["full-disk"]}


def damaged_input(folder, engine):
    given(folder, engine)
    file, offset = chunk_of(folder, engine)
    whole = file.read_bytes()
    file.write_bytes(whole[:offset] + b"no chunk at all" + whole[offset + 15 :])
    found = of_child(applied, folder, engine)
    assert SAYS["damaged-input"] in found["error"] and f"{2 * ROWS}:{3 * ROWS}" in found["error"], found
    file.write_bytes(whole)
    return resumed(folder, engine, BLOCKS - 3) | {"says": SAYS["damaged-input"]}  # three blocks read that chunk


def damaged_target(folder, engine):
    given(folder, engine)
    assert "error" in of_child(applied, folder, engine, full_after=3)
    (folder / "y.zarr" / "c" / "1" / "0" / "0").write_bytes(b"no chunk at all")
    return resumed(folder, engine, 2)


def other_plan(folder, engine):
    given(folder, engine)
    assert "error" in of_child(applied, folder, engine, full_after=3)
    before = digest(target(folder, engine))
    found = of_child(applied, folder, engine, rows=2 * ROWS)
    assert SAYS["other-plan"] in found["error"] and digest(target(folder, engine)) == before, found
    return resumed(folder, engine, 3) | {"says": SAYS["other-plan"]}


def killed_worker(folder, engine):
    given(folder, "zarr")
    found = of_child(on_cluster, folder)
    assert found["killed"] and found["difference"] < 1e-5, found
    difference = f"{found['difference']:.0e}" if found["difference"] else "0"
    return {"figure": f"{BLOCKS} of {BLOCKS} blocks, largest difference {difference}", "bits": False}


def resumed(folder, engine, finished):
    """The figure of a run that goes on after so many blocks were finished."""
    target(folder, engine, "anew")
    found, anew = of_child(applied, folder, engine), of_child(applied, folder, engine, name="anew")
    assert found["computed"] == BLOCKS - finished and found["digest"] == anew["digest"], (found, anew, finished)
    return {"figure": f"{finished} of {BLOCKS} blocks kept, {found['computed']} computed", "bits": True}


# --- what runs in processes of their own


def of_child(function, folder, *arguments, **options):
    """What a function returns in a new process."""
    out = folder / "child.json"
    assert wait(start(lambda: function(folder, *arguments, **options), out=out)) == 0
    return json.loads(out.read_text())


def plan_of(rows):
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(3, 3, padding="same", activation="relu")
    conv.build((None, None, None, 2))
    plan = ka.plan_blocks(conv, SHAPE[:2], block=(rows, SHAPE[1]))
    plan.batch = 1
    return plan


def applied(folder, engine, name="y", full_after=None, rows=ROWS):
    """How many blocks were computed, with a digest of the result, or the error."""
    plan, out = plan_of(rows), target(folder, engine, name)
    compute = plan.compute
    plan.compute = lambda *given: (time.sleep(0.05), compute(*given))[1]
    try:
        done = ka.apply_blocks(plan, given(folder, engine), out if full_after is None else full(out, full_after))
    except ka.KerasAdjointError as error:
        return {"error": str(error)}
    return {"computed": done.computed, "digest": digest(out)}


def on_cluster(folder):
    """The plan on two workers of dask, of which one is killed where it reads the middle."""
    import dask.array
    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it reports the worker that is killed
    plan, file = plan_of(ROWS), folder / "killed"
    x = given(folder, "zarr")

    def read(block, block_info=None):
        if block_info[0]["array-location"][0][0] == 4 * ROWS and not file.exists():
            file.touch()
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    lazy = plan.to_dask(dask.array.from_array(x, chunks=x.chunks).map_blocks(read, dtype=x.dtype))
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        found = client.compute(lazy).result(timeout=200)
    whole = np.zeros(plan.out_shape, "float32")
    ka.apply_blocks(plan, x, whole)
    return {"killed": file.exists(), "difference": float(np.abs(found - whole).max())}


def full(array, after):
    """A target of which writing fails after so many blocks, as where the disk is full."""

    class Full(np.memmap if isinstance(array, np.memmap) else object):
        written = 0

        def __getattr__(self, name):
            return getattr(array, name)

        def __getitem__(self, cut):
            return array[cut]

        def __setitem__(self, cut, value):
            if Full.written == after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            Full.written += 1
            array[cut] = value

    return array.view(Full) if isinstance(array, np.memmap) else Full()


# --- arrays


def given(folder, engine):
    """The input, in chunks of as many rows as a block has."""
    x = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    chunks = (ROWS, *SHAPE[1:])
    if engine == "numpy":
        np.save(folder / "x.npy", x)
        return np.load(folder / "x.npy", mmap_mode="r")
    if engine == "zarr":
        path = folder / "x.zarr"
        return zarr.open_array(path, mode="r") if path.exists() else zarr.create_array(path, data=x, chunks=chunks)
    path = folder / "x.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=x, chunks=chunks, fletcher32=True)
    return h5py.File(path)["x"]


def target(folder, engine, name="y"):
    """A target, which is made if it is not there."""
    shape = (*SHAPE[:2], 3)
    if engine == "numpy":
        path = folder / f"{name}.npy"
        return open_memmap(path, "r+" if path.exists() else "w+", "float32", None if path.exists() else shape)
    if engine == "zarr":
        path, chunks = folder / f"{name}.zarr", (ROWS, *shape[1:])
        options = {"shape": shape, "chunks": chunks, "dtype": "float32"}
        return zarr.open_array(path, mode="r+") if path.exists() else zarr.create_array(path, **options)
    file = h5py.File(folder / f"{name}.h5", "a")
    return file["y"] if "y" in file else file.create_dataset("y", data=np.zeros(shape, "float32"))


def chunk_of(folder, engine):
    """(the file, the place in it) of the third chunk of the input."""
    if engine == "zarr":
        return folder / "x.zarr" / "c" / "2" / "0" / "0", 0
    with h5py.File(folder / "x.h5") as file:
        return folder / "x.h5", file["x"].id.get_chunk_info(2).byte_offset


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array[:]).tobytes()).hexdigest()


if __name__ == "__main__":
    main()
