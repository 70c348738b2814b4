"""Models that are deeper than Python's stack lets Keras build.

Keras follows a graph from its outputs to its inputs by recursion, one frame for each call, so it stops at about 980 calls
in a row. An autoencoder is twice as deep as its encoder.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_adjoint.keras_internals import Functional

CALLS = 150  # in a graph, from which on a model that mirrors it may become too deep: each has several layers there
FRAMES = 20_000  # calls of Python functions by Python functions take none of the C stack

_LIMIT = threading.RLock()


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Inside, Keras may follow graphs of thousands of calls in a row. The limit is that of all threads, so one enters."""
    with _LIMIT:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, FRAMES))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class DeepModel(Functional):
    """A Functional model of any depth, also where it is read from a file.

    Args:
        *args: See `keras.Model`.
        **kwargs: See `keras.Model`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with deep_recursion():
            super().__init__(*args, **kwargs)  # Keras goes by these names when it reads a file
