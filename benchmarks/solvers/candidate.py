"""One library on one problem: the loosest tolerance with which it reaches an error, its time, and its memory."""

import time

import keras
import numpy as np

from benchmarks.solvers.problem import RIDGE

TOLERANCES = [10.0 ** (-exponent / 4) for exponent in range(2, 25)]


class Candidate:
    """A library in this process.

    Args:
        make: A function of (operator, ridge, tolerance) that returns a function of y.
        problem: The problem.
    """

    def __init__(self, make, problem):
        self.make, self.problem = make, problem
        self.y = keras.ops.convert_to_tensor(problem.y)
        self.solve = None

    def reach(self, error):
        """(the error it comes to, whether that is small enough), and be ready to be timed with that tolerance."""
        for tolerance in TOLERANCES:
            self.solve = self.make(self.problem.operator, RIDGE, tolerance)
            found = self.problem.error(self.solve(self.y))
            if found <= error:
                return found, True
        return found, False

    def seconds(self):
        """The time of one solve of the batch."""
        start = time.perf_counter()
        keras.ops.convert_to_numpy(self.solve(self.y))  # which waits for it
        return time.perf_counter() - start

    def mebibytes(self):
        """What it holds beside y; `None` where nothing says that of a whole solve.

        Of programs of JAX it is the workspace that the compiler says, of PyTorch the most that was allocated at once.
        """
        if hasattr(self.solve, "lower"):
            return self.solve.lower(self.y).compile().memory_analysis().temp_size_in_bytes / 2**20
        if keras.backend.backend() == "torch":
            return _allocated(lambda: self.solve(self.y)) / 2**20
        return None


def _allocated(function):
    """The most bytes that PyTorch held at once while the function ran."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(np.cumsum(changes), default=0)
