"""How much memory each algorithm takes beside x and y, over the larger of the two.

Each runs in a process of its own, on tensors so large that they outweigh what the process holds otherwise. JAX says also what
XLA plans: `memory_analysis` of the compiled program.
"""

import json
import sys

import keras
import numpy as np
from keras import ops

from benchmarks.speed.geometries import Geometry
from benchmarks.speed.operators import backend_tools
from benchmarks.speed.resident import grown, in_a_process
from keras_adjoint.ops.algorithms.choose import BY_NAME, candidates

GEOMETRIES = (
    Geometry("stem", (512, 512), 3, 32, 7, 2, batch=32),
    Geometry("down", (256, 256), 32, 64, 3, 2, batch=32),
    Geometry("stride 1", (256, 256), 32, 32, 3, batch=32),
    Geometry("patches", (512, 512), 8, 256, 8, 8, batch=32),
    Geometry("dilated", (256, 256), 32, 32, 3, batch=32, dilation=2),
    Geometry("grouped", (256, 256), 32, 32, 3, batch=32, groups=4),
    Geometry("depthwise", (256, 256), 32, 32, 5, batch=32, groups=32),
    Geometry("sound", (480000,), 1, 32, 16, 8, batch=32),
)


def rows():
    """Yield (geometry, {algorithm: {"resident": ratio, "planned": ratio, "considered": bool}}) for the algorithms that fit."""
    for geometry in GEOMETRIES:
        problem = geometry.problem()
        names = [name for name, algorithm in BY_NAME.items() if algorithm.fits(problem)]
        yield (
            geometry.name,
            {
                name: {
                    **in_a_process("benchmarks.speed.workspace", geometry.name, name),
                    "considered": BY_NAME[name] in candidates(problem),
                }
                for name in names
            },
        )


def main(geometry_name, algorithm_name):
    """Print the ratios of one algorithm as JSON."""
    geometry = next(geometry for geometry in GEOMETRIES if geometry.name == geometry_name)
    algorithm = BY_NAME[algorithm_name]
    larger = 4 * max(np.prod(geometry.x_shape), np.prod(geometry.y_shape))
    y, kernel = (ops.ones(shape, "float32") for shape in (geometry.y_shape, geometry.kernel_shape))

    def compute(y, kernel):
        return algorithm.apply(y, kernel, geometry.convolution)

    found = {}
    if keras.backend.backend() == "jax":
        import jax

        planned = jax.jit(compute).lower(y, kernel).compile().memory_analysis().temp_size_in_bytes
        found["planned"] = planned / larger
    # One sample first: what a backend needs for any run is not counted, and there is little for it to keep and use again.
    backend_tools().timed(compute, y[:1], kernel)()
    found["resident"] = (grown(backend_tools().timed(compute, y, kernel)) - 4 * np.prod(geometry.x_shape)) / larger
    print(json.dumps({name: float(ratio) for name, ratio in found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
