"""Models that are deeper than Python's stack lets Keras build.

Keras follows a graph from its outputs to its inputs by recursion, one frame for each call, so it stops at about 980 calls
in a row. An autoencoder is twice as deep as its encoder.
"""

from typing import Any

import keras

from keras_adjoint.keras_internals import Functional
from keras_adjoint.recursion import deep_recursion

CALLS = 150  # in a graph, from which on a model that mirrors it may become too deep: each has several layers there


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
