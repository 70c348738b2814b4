"""The call stack: how many functions of ours an eager call crosses on its way to the backend's operation."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_adjoint as ka
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Convolution, Window

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks.speed.frames import files, frames

MOST_FRAMES, MOST_FILES = 15, 6


def crossed(layer, shape, **options):
    """The frames of an eager call of the adjoint, printed for those who run this with `-s`."""
    y = layer(keras.ops.convert_to_tensor(np.ones(shape, "float32")))
    found = frames(ka.adjoint(layer, **options), y)
    print(
        f"\n{len(found)} frames in {len(files(found))} files:", *(f"  {file}: {name}" for file, name in found), sep="\n"
    )
    return found


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False), (1, 16, 16, 4)),
        (lambda: layers.Conv2D(8, 3, padding="same"), (8, 28, 28, 16)),
        (lambda: layers.Conv2D(8, 5, strides=2), (2, 28, 28, 3)),
    ],
    ids=["stride 2", "stride 1", "valid"],
)
@pytest.mark.parametrize("algorithm", [None, "native", "subpixel"])
def test_a_convolution_crosses_few_frames(layer, shape, algorithm):
    found = crossed(layer(), shape, algorithm=algorithm)
    assert len(found) <= MOST_FRAMES and len(files(found)) <= MOST_FILES


def test_a_dense_layer_crosses_few_frames():
    found = crossed(layers.Dense(3), (2, 5))
    assert len(found) <= 9 and len(files(found)) <= 4  # two of which are Keras' notes that it is built and was called


def test_the_plan_of_a_call_is_made_once(monkeypatch):
    from keras_adjoint.layers import conv

    made, prepared = [], conv.prepared_adjoint
    monkeypatch.setattr(conv, "prepared_adjoint", lambda *problem: made.append(problem) or prepared(*problem))
    source = layers.Conv2D(4, 3, strides=2)
    decode = None
    for shape in ((1, 9, 9, 2), (1, 9, 9, 2), (2, 9, 9, 2), (1, 9, 9, 2)):
        y = source(np.ones(shape, "float32"))
        decode = decode or ka.adjoint(source)
        decode(y)
    assert len(made) == 2


@pytest.mark.parametrize(
    "make", [lambda: layers.Conv2D(4, 3, strides=2), lambda: layers.AveragePooling2D(3, 2)], ids=["conv", "pool"]
)
def test_the_sizes_of_a_source_are_looked_up_once(monkeypatch, make):
    source = make()
    source(keras.Input((9, 9, 2)))
    y = source(np.ones((1, 9, 9, 2), "float32"))
    decode = ka.adjoint(source)
    decode(y)
    asked, recorded = [], type(decode).recorded_shapes
    monkeypatch.setattr(type(decode), "recorded_shapes", lambda layer: asked.append(layer) or recorded(layer))
    decode(y)
    assert not asked
    source(keras.Input((9, 9, 2)))  # which might have been of another size
    decode(y)
    assert asked == [decode]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "copied"])
def test_the_rule_is_looked_up_once(monkeypatch, tied):
    from keras_adjoint.layers import registry

    asked, nearest = [], registry.nearest_class
    monkeypatch.setattr(registry, "nearest_class", lambda *arguments: asked.append(arguments) or nearest(*arguments))
    source = layers.Conv2D(4, 3)
    source.build((None, 9, 9, 2))
    ka.adjoint(source, tied=tied)
    assert len(asked) == 1


def test_the_work_of_a_candidate_is_computed_once(monkeypatch):
    from dataclasses import replace

    from keras_adjoint.ops.algorithms import choose

    asked = []

    def counting(algorithm):
        work = lambda problem: asked.append(algorithm.name) or algorithm.work(problem)  # noqa: E731
        return replace(algorithm, work=work)

    monkeypatch.setattr(choose, "BY_NAME", {name: counting(one) for name, one in choose.BY_NAME.items()})
    choose.choose(Problem(Convolution((Window(3, 2).at(9), Window(3, 2).at(9))), 1, 4, 8))
    assert len(asked) == len(set(asked)) > 1


def test_a_plan_is_made_anew_when_the_source_records_another_size():
    source = layers.Conv2D(4, 3, strides=2)
    source.build((None, 9, 9, 2))
    decode = ka.adjoint(source)
    y = np.ones((1, 4, 4, 4), "float32")
    assert decode(y).shape == (1, 9, 9, 2)
    source(keras.Input((10, 10, 2)))
    with pytest.raises(ka.SizeError, match="9 or 10"):
        decode(y)


@pytest.mark.parametrize("name", ["subpixel", "phases"])
def test_a_plan_is_made_anew_for_another_algorithm(name, monkeypatch):
    from helpers import record_algorithms

    ran = record_algorithms(monkeypatch)
    source = layers.Conv2D(4, 3, strides=2)
    y = source(np.ones((1, 9, 9, 2), "float32"))
    decode = ka.adjoint(source)
    decode(y)
    decode.algorithm = name
    decode(y)
    assert ran[-1] == name and len(ran) == 2
