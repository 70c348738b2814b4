"""Measurements in a process of their own, since some operations of backends do not survive in half precision."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context


def survived(function, arguments):
    """Yield (argument, `function(argument)`) one after the other, and `None` for a result that killed its process."""
    worker = new_worker()
    try:
        for argument in arguments:
            try:
                result = worker.submit(function, argument).result()
            except BrokenProcessPool:
                result = None
                worker.shutdown()
                worker = new_worker()
            yield argument, result
    finally:
        worker.shutdown()


def new_worker():
    """A process for one measurement after the other."""
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
