"""How much memory a process takes while it does something, as Linux counts it."""

import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def grown(run):
    """By how many bytes the process grew at its peak, while `run()` ran, beyond what it held before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs have freed would be used again without growing
    before = _bytes("VmRSS")
    CLEAR.write_text("5", encoding="ascii")  # from here on the peak is counted anew
    run()
    return _bytes("VmHWM") - before


def _bytes(name):
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def in_a_process(module, *arguments):
    """What `python -m module arguments…` prints last, read as JSON."""
    output = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])
