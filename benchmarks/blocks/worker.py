"""One application in a process of its own, so that what it holds can be measured.

`python -m benchmarks.blocks.worker IN OUT OPTIONS` applies the adjoint to the volume IN, writes OUT, and prints what it held
beyond the imports, as JSON. OPTIONS are those of `apply_blocks`, as JSON.
"""

import json
import sys

import keras
import numpy as np
import zarr

import keras_adjoint as ka
from benchmarks.blocks.problem import adjoint_of_size, error_at
from benchmarks.speed.resident import grown

PLACES = 200  # at which the result is compared with the sum that it is


def main():
    """Measure, and print."""
    source, target, options = sys.argv[1:]
    given, made = zarr.open_array(source, mode="r"), zarr.open_array(target, mode="r+")
    print(json.dumps(applied(given, made, json.loads(options))))


def applied(given, made, options):
    """What applying the adjoint held and took, and how far the result is off at some positions."""
    size = given.shape[0]
    operator = adjoint_of_size(size)
    keras.ops.convert_to_numpy(operator.variables()[0])
    runs = []
    held = grown(lambda: runs.append(ka.apply_blocks(operator, given, made, **options)))
    (done,) = runs
    places = np.random.default_rng(0).integers(0, size, (PLACES, 3)).tolist()
    block = done.plan.block[0]
    edges = [0, min(block - 1, size - 1), min(block, size - 1), size - 1]
    places += [[a, b, c] for a in edges for b in edges for c in edges]
    return {
        "held": held,
        "seconds": done.seconds,
        "block": list(done.plan.block),
        "blocks": done.blocks,
        "error": error_at(operator, given, made, places),
    }


if __name__ == "__main__":
    main()
