"""How long the same adjoint takes on an array in memory at once, and block by block from array to array and file to file."""

import random
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.blocks.problem import CHANNELS, COMPRESSORS, adjoint_of_size, volume
from benchmarks.speed.timing import time_of
from keras_adjoint.ops.backend import current


def rows(size, memory, turns):
    """By the name of each way the seconds of its best and median run, and its fewest seconds of processors.

    The ways take turns, in an order at random.
    """
    operator = adjoint_of_size(size)
    given = np.random.default_rng(0).random((size, size, size, CHANNELS), dtype="float32")
    whole = current().compiled(lambda y: operator @ y)

    def at_once():
        return keras.ops.convert_to_numpy(whole(keras.ops.convert_to_tensor(given[np.newaxis])))[0]

    expected, made = at_once(), np.zeros_like(given)
    with tempfile.TemporaryDirectory() as folder:
        ways = {"array": (given, made)}
        for name in COMPRESSORS:
            source, target = (volume(Path(folder, f"{name} {side}.zarr"), size, name) for side in ("x", "y"))
            source[:] = given
            ways[name] = source, target
        for _, target in ways.values():
            plan = ka.apply_blocks(operator, given, target, memory=memory).plan
            np.testing.assert_allclose(target[:], expected, rtol=0, atol=1e-4)

        def in_blocks(way):
            return lambda: ka.apply_blocks(operator, *ways[way], memory=memory)

        def copied(name):
            source, target = ways[name]

            def copy():
                for block in plan:
                    target[block.write] = source[block.write]

            return copy

        functions = {"at once": at_once, **{way: in_blocks(way) for way in ways}}
        functions |= {f"copy {name}": copied(name) for name in COMPRESSORS}
        times, processor = ({name: [] for name in functions} for _ in range(2))
        generator = random.Random(0)
        for _ in range(turns):
            for name in generator.sample(list(functions), len(functions)):
                before = time.process_time()
                times[name].append(time_of(functions[name]))
                processor[name].append(time.process_time() - before)
    found = {name: {"best": min(each), "median": statistics.median(each)} for name, each in times.items()}
    for name, each in processor.items():
        found[name]["processor"] = min(each)
    return {"size": size, "memory": memory, "turns": turns, "block": list(plan.block), "times": found}
