"""Measurements in a process of their own, since some operations of backends crash or never end in half precision."""

import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

PATIENCE = 180  # seconds for one measurement


def survived(function, arguments):
    """Yield (argument, `function(argument)`) one after the other, and `None` for a result that killed its process, twice."""
    worker = new_worker()
    try:
        for argument in arguments:
            for _ in range(2):  # the measurement before may have broken the process that this one dies in
                try:
                    result = worker.submit(partial(on_time, function), argument).result()
                    break
                except BrokenProcessPool:
                    result = None
                    worker.shutdown()
                    worker = new_worker()
            yield argument, result
    finally:
        worker.shutdown()


def on_time(function, argument):
    """`function(argument)`, or the end of the process: a call into a backend that hangs hears no exception."""
    signal.alarm(PATIENCE)
    try:
        return function(argument)
    finally:
        signal.alarm(0)


def new_worker():
    """A process for one measurement after the other."""
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
