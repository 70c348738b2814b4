"""`adjoint(model)` on graphs that are wired at random by Hypothesis, and the adjoint of the adjoint that was saved."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint

L = keras.layers
SHAPE = (5, 4, 3)


def nested(structure):
    """A function of two tensors that calls a nested model of two inputs with them, in one of the ways that Keras allows."""
    first, second = keras.Input(SHAPE, name="zz"), keras.Input(SHAPE, name="aa")
    outputs = {"u": L.Conv2D(3, 1)(first), "b": ops.flip(second, axis=1)}
    inputs = [first, second] if structure == "list by name" else {"zz": first, "aa": second}
    model = keras.Model(inputs, outputs if structure == "dictionaries" else [outputs["b"], outputs["u"]])

    def call(xs):
        named = {"aa": xs[1], "zz": xs[0]}
        found = model(inputs=named) if structure == "keyword" else model(named)
        b, u = (found["b"], found["u"]) if structure == "dictionaries" else found
        return b - 0.5 * u

    return call


def shared_there_and_back():
    return keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(4), L.Dense(60), L.Reshape(SHAPE)])


@keras.saving.register_keras_serializable(package="test_random_graphs")
class Differences(L.Layer):
    """A linear layer without a rule."""

    def call(self, x):
        return x - ops.roll(x, 1, axis=1)


# From any tensors of one shape to one of the same shape.
ONE = {
    "convolution": lambda: L.Conv2D(3, 3, padding="same", bias_initializer="ones"),
    "depthwise": lambda: L.DepthwiseConv2D(3, padding="same"),
    "pooling": lambda: L.AveragePooling2D(2, 1, padding="same"),
    "there and back": shared_there_and_back,
    "scaled": lambda: lambda x: x * 0.5 + 1.0,
    "scaled by channel": lambda: lambda x: x * np.array([1.0, -2.0, 0.5], "float32"),
    "shifted": lambda: lambda x: L.Cropping2D(((1, 0), (0, 1)))(L.ZeroPadding2D(((0, 1), (1, 0)))(x)),
    "keyword": lambda: lambda x: L.Dense(3)(inputs=ops.add(x1=x, x2=1.0)),
    "adjoint": lambda: adjoint_of_built(L.Conv2D(3, 3, padding="same", activation="relu")),
    "adjoint of adjoint": lambda: ka.adjoint(adjoint_of_built(L.Dense(3, bias_initializer="ones"))),
    "split and swapped": lambda: lambda x: ops.concatenate(ops.split(x, [1, 3], axis=1)[::-1], axis=1),
    "a part of a split": lambda: lambda x: ops.pad(ops.split(x, 2, axis=2)[1], [[0, 0], [0, 0], [0, 2], [0, 0]]),
    "unstacked": lambda: lambda x: ops.stack(ops.unstack(x, axis=-1)[::-1], axis=-1),
    "sliced": lambda: lambda x: ops.pad(x[:, 1:4, ::2], [[0, 0], [2, 0], [1, 1], [0, 0]], constant_values=3.0),
    "one of an axis": lambda: lambda x: x - x[:, 2][:, None],
    "ellipsis": lambda: lambda x: x[..., 1:2] + x,
    "moved": lambda: lambda x: ops.reshape(ops.moveaxis(ops.swapaxes(x, 1, 2), 3, 1), (-1, *SHAPE)),
    "transposed": lambda: lambda x: ops.transpose(ops.transpose(x, (0, 3, 1, 2)), (0, 2, 3, 1)),
    "mean": lambda: lambda x: x - ops.mean(x, axis=(1, 2), keepdims=True),
    "sum": lambda: lambda x: ops.expand_dims(ops.sum(x, axis=2), 2) + x,
    "automatic": lambda: Differences(),
}
TWO = {
    "added": lambda: L.Add(),
    "subtracted": lambda: L.Subtract(),
    "averaged": lambda: L.Average(),
    "joined": lambda: lambda xs: L.Conv2D(3, 1)(L.Concatenate()(xs)),
    "arithmetic": lambda: lambda xs: xs[0] - 2.0 * xs[1],
    "nested, list by name": lambda: nested("list by name"),
    "nested, keyword": lambda: nested("keyword"),
    "nested, dictionaries": lambda: nested("dictionaries"),
}


def adjoint_of_built(layer):
    layer.build((None, *SHAPE))
    return linear_adjoint(layer)


@st.composite
def models(draw):
    """A model of up to eight calls, among them calls of a layer that was called before."""
    inputs = [keras.Input(SHAPE, name=name) for name in ("x", "a")[: draw(st.integers(1, 2))]]
    tensors, made = list(inputs), []
    for _ in range(draw(st.integers(1, 8))):
        if made and draw(st.booleans()):
            count, layer = draw(st.sampled_from(made))
        else:
            count = draw(st.sampled_from([1, 2]))
            layer = draw(st.sampled_from(list((ONE if count == 1 else TWO).values())))()
            if isinstance(layer, L.Layer):
                made.append((count, layer))
        read = [draw(st.sampled_from(tensors)) for _ in range(count)]
        tensors.append(layer(read[0] if count == 1 else read))
    outputs = [tensors[-1], *draw(st.lists(st.sampled_from(tensors), max_size=2))]
    structures = draw(st.sampled_from(["lists", "dictionaries"]))
    if structures == "dictionaries":
        named = {f"{number}": output for number, output in enumerate(outputs)}
        return keras.Model({x.name: x for x in sorted(inputs, key=lambda x: x.name)}, named)
    return keras.Model(inputs, outputs)


@given(models())
def test_the_adjoint_of_a_random_graph_passes_the_adjoint_test(model):
    report = ka.check_adjoint(model, trials=1)
    assert report, report
    assert ka.adjoint(model).count_params() <= model.count_params()


@pytest.mark.in_turn("torch")
@settings(max_examples=30)
@given(models())
def test_the_adjoint_of_a_loaded_adjoint_of_a_random_graph_is_the_graph(model):
    adjoint = ka.adjoint(model)
    with tempfile.TemporaryDirectory() as folder:
        adjoint.save(Path(folder) / "adjoint.keras")
        loaded = keras.saving.load_model(Path(folder) / "adjoint.keras", safe_mode=False)
    again = ka.adjoint(loaded)
    for forward, backward in ((loaded, again), (again, adjoint)):
        report = ka.check_adjoint(forward, backward, trials=1)
        assert report, report
