"""Libraries in processes of their own, with the methods of `Candidate`."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import keras_adjoint
from benchmarks.solvers.worker import MARK

ROOT = Path(__file__).parents[2]


class NotMeasured(Exception):
    """Why a library has no row of numbers."""


class Peer:
    """A library in another process.

    Args:
        process: The process.
        name: Of the library.
    """

    def __init__(self, process, name):
        self.process, self.name = process, name

    def ask(self, method, *arguments):
        """What the other process answers.

        Raises:
            NotMeasured: If it could not.
        """
        try:
            print(json.dumps([self.name, method, arguments]), file=self.process.stdin, flush=True)
            line = next(line for line in self.process.stdout if line.startswith(MARK))
        except (OSError, StopIteration):
            raise NotMeasured(f"its process ended with {self.process.wait()}") from None
        answer = json.loads(line.removeprefix(MARK))
        if "failed" in answer:
            raise NotMeasured(answer["failed"])
        return answer["found"]

    def reach(self, error):
        return self.ask("reach", error)

    def seconds(self):
        return self.ask("seconds")

    def mebibytes(self):
        return self.ask("mebibytes")


@contextmanager
def worker(python, backend, path, libraries):
    """A process of `benchmarks.solvers.worker`, which ends with the context."""
    package = Path(keras_adjoint.__file__).parents[1]
    folders = [str(package), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [python or sys.executable, "-m", "benchmarks.solvers.worker", str(path), libraries]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(timeout=60)
