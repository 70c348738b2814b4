"""`adjoint(model)` on random graphs, wired by Hypothesis."""

import keras
from hypothesis import given
from hypothesis import strategies as st

import keras_adjoint as ka

L = keras.layers
SHAPE = (5, 4, 3)

# From any tensors of one shape to one of the same shape.
ONE = {
    "convolution": lambda: L.Conv2D(3, 3, padding="same", bias_initializer="ones"),
    "depthwise": lambda: L.DepthwiseConv2D(3, padding="same"),
    "pooling": lambda: L.AveragePooling2D(2, 1, padding="same"),
    "there and back": lambda: keras.Sequential(
        [keras.Input(SHAPE), L.Flatten(), L.Dense(4), L.Dense(60), L.Reshape(SHAPE)]
    ),
    "scaled": lambda: lambda x: x * 0.5 + 1.0,
    "shifted": lambda: lambda x: L.Cropping2D(((1, 0), (0, 1)))(L.ZeroPadding2D(((0, 1), (1, 0)))(x)),
}
TWO = {
    "added": lambda: L.Add(),
    "subtracted": lambda: L.Subtract(),
    "averaged": lambda: L.Average(),
    "joined": lambda: lambda xs: L.Conv2D(3, 1)(L.Concatenate()(xs)),
    "arithmetic": lambda: lambda xs: xs[0] - 2.0 * xs[1],
}


@st.composite
def models(draw):
    """A model of up to eight calls, among them calls of a layer that was called before."""
    inputs = [keras.Input(SHAPE) for _ in range(draw(st.integers(1, 2)))]
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
    return keras.Model(inputs, outputs)


@given(models())
def test_the_adjoint_of_a_random_graph_passes_the_adjoint_test(model):
    report = ka.check_adjoint(model, trials=1)
    assert report, report
    assert ka.adjoint(model).count_params() <= model.count_params()
