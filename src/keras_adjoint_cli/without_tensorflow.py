"""Keep Keras from importing TensorFlow beside another backend.

It does so, taking seconds and printing, only to ask whether some value is one of TensorFlow's.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

TYPES_ASKED_FOR = ("TensorShape", "DType", "TypeSpec")  # by Keras, of every value that it serialises


class StandIn(ModuleType):
    """TensorFlow for tests of a value's type; for everything else TensorFlow is imported after all."""

    def __getattr__(self, name: str) -> Any:
        if name in TYPES_ASKED_FOR and sys.modules.get(self.__name__, self) is self:
            return type(name, (), {})  # as long as TensorFlow is not imported, no value is of its types
        return getattr(importlib.import_module(self.__name__), name)


def keep_tensorflow_out() -> None:
    """Have Keras take a stand-in for TensorFlow, unless that is the backend, or is imported already, or is missing.

    Keras imports TensorFlow when it needs it first, and keeps what it gets, also after this.
    """
    import keras

    needed = keras.backend.backend() == "tensorflow" or "tensorflow" in sys.modules
    if not needed and importlib.util.find_spec("tensorflow") is not None:
        sys.modules["tensorflow"] = StandIn("tensorflow")
        try:
            keras.saving.serialize_keras_object(object)
        finally:
            del sys.modules["tensorflow"]
