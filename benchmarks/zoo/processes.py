"""Rows measured in processes of their own."""

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.zoo.rows import FAILED
from benchmarks.zoo.worker import MARK

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # Keras may import TensorFlow beside another backend

# On JAX a loaded model is the program of the saved one, which need not be compiled twice.
KEEP_PROGRAMS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def measured(cases):
    """Yield (case, row) for each case, from one process; from another one if that dies on the way."""
    waiting = list(cases)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**QUIET, **KEEP_PROGRAMS, "JAX_COMPILATION_CACHE_DIR": folder, **os.environ}
        while waiting:
            command = [sys.executable, "-m", "benchmarks.zoo.worker", *(case.key for case in waiting)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
                for line in process.stdout:
                    if line.startswith(MARK):
                        yield waiting.pop(0), json.loads(line.removeprefix(MARK))
            if waiting:
                yield (case := waiting.pop(0)), died(case, process.returncode)


def died(case, code):
    """The row of a case that a process did not survive."""
    row = {"family": case.family, "network": case.network, "top": case.top, "size": list(case.size)}
    return {**row, "verdict": FAILED, "problems": [f"the process ended with {code} before the row was done"]}
