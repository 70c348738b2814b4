"""What the library costs beside the arithmetic: its import, and eager calls of small layers."""

import statistics
import subprocess
import sys

import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.speed.frames import files, frames
from benchmarks.speed.timing import interleaved
from keras_adjoint.ops.backend import current

IMPORT = """
import sys, time
import keras
start = time.perf_counter()
import keras_adjoint
print(time.perf_counter() - start)
"""

IMPORTS = 7  # of which the median counts
#            side and channels of x, filters, batch
LAYERS = {
    "4 → 8 channels, 16 × 16, batch 1": (16, 4, 8, 1),
    "16 → 32 channels, 28 × 28, batch 32": (28, 16, 32, 32),
}


def measure(seconds):
    """Yield milliseconds of the import beyond Keras' own, and eager calls beside those of layers that call the operation."""
    imports = [
        float(subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout)
        for _ in range(IMPORTS)
    ]
    yield "import_ms", 1e3 * statistics.median(imports)
    for name, layer in LAYERS.items():
        yield name, eager(*layer, seconds)


class Direct(keras.layers.Layer):
    """The least that a Keras layer can be: it calls the backend's operation on a kernel."""

    def __init__(self, tied, y):
        super().__init__()
        sizes = tied.resolve(tuple(y.shape[1:-1]))
        self.transpose = current().transposed_convolution(tied.convolution(sizes))
        self.kernel = tied.source.kernel

    def call(self, y):
        return self.transpose(y, keras.ops.convert_to_tensor(self.kernel))


def eager(side, channels, filters, batch, seconds):
    """One call of `adjoint(conv)`, with the algorithm of the layer that it is compared with, and one of Keras' own."""
    conv = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)
    y = conv(np.ones((batch, side, side, channels), "float32"))
    tied = ka.adjoint(conv, algorithm="native")
    direct = Direct(tied, y)
    stock = keras.layers.Conv2DTranspose(channels, 3, strides=2, padding="same", use_bias=False)
    layers = {"tied": tied, "direct": direct, "stock": stock}
    runs = {name: lambda layer=layer: current().wait(layer(y)) for name, layer in layers.items()}
    for run in runs.values():
        run()
    times = interleaved(runs, seconds=seconds, fewest=200)
    crossed = frames(tied, y)
    return {
        "frames": len(crossed),
        "files": len(files(crossed)),
        "call_us": 1e6 * times["tied"].median,
        "direct_us": 1e6 * times["direct"].median,
        "stock_us": 1e6 * times["stock"].median,
        "ratio": times["tied"].median / times["direct"].median,
        "spread": max(times["tied"].spread, times["direct"].spread),
    }
