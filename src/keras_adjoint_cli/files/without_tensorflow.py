"""Let Keras not import TensorFlow beside another backend.

It does so, taking seconds and printing, only to ask whether some value is one of TensorFlow's.
"""

import sys
from contextlib import contextmanager


@contextmanager
def without_tensorflow():
    """Have Keras take TensorFlow for missing, unless it is there already."""
    import keras
    from keras.src.utils import module_utils

    if keras.backend.backend() == "tensorflow" or "tensorflow" in sys.modules:
        yield
        return
    module_utils.tensorflow._available = False
    try:
        yield
    finally:
        need_tensorflow()


def need_tensorflow():
    """Have Keras look for TensorFlow again, for a layer that computes with it."""
    from keras.src.utils import module_utils

    module_utils.tensorflow._available = None
