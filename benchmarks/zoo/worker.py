"""A process that measures some rows and prints each as a line of JSON, so that what they filled is free when it ends.

Used by `benchmarks.zoo.processes`: `python -m benchmarks.zoo.worker KEY...`.
"""

import gc
import json
import sys
import tempfile
from pathlib import Path

import keras

import keras_adjoint as ka
from benchmarks.zoo.networks import cases
from benchmarks.zoo.rows import measure

MARK = "ROW "  # before what is meant for the parent; backends print, too


def main(keys):
    """Measure the rows of these keys in turn."""
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            if case.key in keys:
                print(MARK + json.dumps(measure(case, Path(folder))), flush=True)


def warm_up():
    """What a process does once, when Keras and the library build their first models, is no part of any row."""
    picture = keras.Input((9, 9, 3))
    features = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(picture)
    network = keras.Model(picture, keras.layers.MaxPooling2D()(keras.layers.BatchNormalization()(features)))
    ka.mirror(network)
    ka.autoencoder(network)
    gc.freeze()  # what lives from here on need not be looked through again between the rows


if __name__ == "__main__":
    main(sys.argv[1:])
