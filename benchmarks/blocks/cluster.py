"""The same plan on a cluster of worker processes on this machine, and what the simulator says of it beforehand."""

import math
import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import distributed
import numpy as np
import zarr

import keras_adjoint as ka
from benchmarks.blocks.problem import adjoint_of_size, volume
from benchmarks.blocks.simulator import profile_of, rates_of, simulate

TURNS = 5
SAMPLE = 4  # of so many blocks one is a sample from which the rates are known
TRIVIAL = 4  # tasks that do nothing, for every block


def rows(size, block, workers=(1, 2)):
    """For each number of workers the seconds that were measured and those that are predicted, turn by turn."""
    plan = ka.plan_blocks(adjoint_of_size(size), (size,) * 3, block=block, memory="1TB")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder, "x.zarr")), str(Path(folder, "y.zarr"))
        volume(source, size, "uncompressed", filled=True)
        volume(target, size, "uncompressed")
        for turn in range(TURNS):
            first = None
            for count in workers:
                seconds, rates = on_cluster(plan, source, target, count)
                first = first or rates
                predicted = [simulate(profile_of(plan), each, count) for each in (rates, first)]
                run = {"workers": count, "turn": turn, "seconds": seconds, "predicted": predicted}
                found.append({**run, **asdict(rates)})
    return {"size": size, "block": block, "blocks": len(plan), "runs": found}


def on_cluster(plan, source, target, count):
    """(seconds of the plan by so many workers, the rates of every `SAMPLE`th block of it)."""
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=count, **options) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(count)
        client.run(computed, len(plan) // 2, plan, source, target)  # on each of them: imports, and compiles
        shared = client.scatter(plan, broadcast=True, hash=False)  # once to each
        between, dispatch = empty(client, count, len(plan))
        start = time.perf_counter()
        tasks = client.map(computed, range(len(plan)), plan=shared, source=source, target=target, pure=False)
        samples = client.gather(tasks)
        seconds = time.perf_counter() - start
    chosen = random.Random(0).sample(samples, max(1, len(samples) // SAMPLE))  # of all edges, and of all workers
    return seconds, rates_of(chosen, between, dispatch)


def empty(client, workers, blocks):
    """(seconds from one task of a worker to its next, those of the scheduler for a task), of tasks that do nothing."""
    count = TRIVIAL * blocks
    start, busy = time.perf_counter(), time.process_time()  # the scheduler runs in this process
    client.gather(client.map(abs, range(count), pure=False))
    return workers * (time.perf_counter() - start) / count, (time.process_time() - busy) / count


def computed(number, plan, source, target):
    """Compute a block, from file to file: a sample of `rates_of`."""
    start = time.perf_counter()
    given, made, block = zarr.open_array(source, mode="r"), zarr.open_array(target, mode="r+"), plan[number]
    opened = time.perf_counter()
    part = np.asarray(given[block.read])
    read = time.perf_counter()
    made[block.write] = plan.compute(block.program, part[np.newaxis])[0]
    sizes = [math.prod(cut.stop - cut.start for cut in cuts) for cuts in (block.read, block.write)]
    return (*sizes, opened - start, read - opened, time.perf_counter() - read)
