"""What applying the adjoint to volumes of several sizes holds, each in a process of its own."""

import json
import tempfile
from pathlib import Path

from benchmarks.blocks.problem import CHANNELS, volume
from benchmarks.speed.resident import in_a_process


def rows(sizes, memory, compressor="uncompressed"):
    """For every size, one after the other: what was held beyond the imports, in bytes, and the seconds that it took."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "x.zarr"), Path(folder, "y.zarr")
            volume(source, size, compressor, filled=True)
            volume(target, size, compressor)
            options = json.dumps({"memory": memory})
            row = in_a_process("benchmarks.blocks.worker", str(source), str(target), options)
        found.append({"size": size, "volume": 4 * CHANNELS * size**3, "memory": memory, **row})
    return found
