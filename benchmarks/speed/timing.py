"""Times of several functions side by side: interleaved, so that a drift of the machine meets all of them alike."""

import random
import statistics
import time
from dataclasses import dataclass

PATIENCE = 60  # seconds, after which fewer repeats must do
WITNESSES, NEAR = 3, 1.02  # a best time counts once so many repeats came so near to it, itself among them
EXTENSION = 3  # times what was asked for, after which a best time counts as it is


@dataclass(frozen=True)
class Times:
    """Seconds of the best and the median repeat, and the spread: the distance of the quartiles over the median."""

    best: float
    median: float
    spread: float


def time_of(function):
    """Seconds that a function without arguments takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(functions, *, seconds=1.0, fewest=5, timer=time_of):
    """Time functions in turns, until each has run for about `seconds`, `fewest` times, and near its best more than once.

    A processor that is shared runs faster for moments. One that only one of two functions met would be their ratio. And
    a function gets its memory as the one before left it, in pages that are there or not, so that the order is drawn anew
    for every turn.

    Args:
        functions: A dictionary of functions without arguments.
        seconds: Time for each of them.
        fewest: Least number of repeats.
        timer: What runs one of the functions and says how long it took.

    Returns:
        A dictionary of `Times`.
    """
    once = {name: timer(function) for name, function in functions.items()}
    together = max(sum(once.values()), 1e-9)
    patience = max(1, int(PATIENCE / together))
    rounds = min(max(fewest, min(200, int(seconds * len(functions) / together))), patience)
    most = min(EXTENSION * rounds, patience)
    samples = {name: [once[name]] for name in functions}
    generator = random.Random(0)
    for turn in range(most):
        if turn >= rounds and all(map(_has_witnesses, samples.values())):
            break
        for name in generator.sample(list(functions), len(functions)):
            samples[name].append(timer(functions[name]))
    return {name: _summary(found) for name, found in samples.items()}


def _has_witnesses(samples):
    return sorted(samples)[:WITNESSES][-1] <= NEAR * min(samples)


def _summary(samples):
    low, median, high = statistics.quantiles(samples, n=4)
    return Times(min(samples), median, (high - low) / median)
