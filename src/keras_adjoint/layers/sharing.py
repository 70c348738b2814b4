"""Have Keras write the identity of a shared layer into every file that holds the layer twice.

Keras recognises a layer that it meets a second time while it writes a file, and then adds a `shared_object_id` to
both of the layer's configs. Functional models return copies of their configs, so for a layer inside a nested model the
first config is out of reach by then: the file has one id without a partner, and does not load. If the
layer is announced to Keras from the start as one that it has met before, every config gets the id.
"""

import functools
from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.layers.files import announce, is_announced


def share(layer: Layer) -> None:
    """Give `layer` an identity in every file that it is written to from now on.

    Keras asks a layer for its config just before it looks the layer up among those it has met, which makes the
    layer's own `get_config` the one place where it can be announced in time.
    """
    if is_announced(layer):
        return
    get_config = layer.get_config

    @functools.wraps(get_config)
    def announce_and_get_config() -> dict[str, Any]:
        announce(layer)
        return get_config()

    announce_and_get_config.announces = True  # type: ignore[attr-defined]
    layer.get_config = announce_and_get_config


def copy_value(new: keras.Variable, old: keras.Variable) -> None:
    """Give one variable the value of another, in memory of its own.

    JAX would let the two share a buffer, which training either of them gives up.
    """
    new.assign(keras.ops.convert_to_numpy(old))
