"""With `tied=False` an adjoint owns everything it computes with, the attributes of layers without weights among it."""

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
Y = np.array([[1.0, -2.0, 0.5, 3.0]], "float32")


class Scaled(L.Layer):
    """Scales by a number that can be set, and by weights if asked."""

    def __init__(self, factor=2.0, weighted=False, **options):
        super().__init__(**options)
        self.factor, self.weighted = factor, weighted

    def build(self, input_shape):
        if self.weighted:
            self.scale = self.add_weight(shape=(input_shape[-1],), name="scale", initializer="random_normal")

    def call(self, x):
        return self.factor * x * (self.scale if self.weighted else 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape


class Announced(Scaled):
    """The same with a config of what is set."""

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "weighted": self.weighted}


class TwoInputs(L.Layer):
    """a·w + b·w², which no config of a build tells the input shapes of."""

    def build(self, a_shape, b_shape):
        self.scale = self.add_weight(shape=(a_shape[-1],), name="scale", initializer="random_normal")

    def call(self, a, b):
        return a * self.scale + b * self.scale**2

    def compute_output_shape(self, a_shape, b_shape):
        return a_shape


class WithArray(L.Layer):
    """A product with an array that Keras has no config of."""

    def __init__(self, matrix, **options):
        super().__init__(**options)
        self.matrix = matrix

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


def called(layer, shape=(4,)):
    layer(keras.Input(shape))
    return layer


CHANGES = {
    "automatic": (lambda: called(Announced()), "factor", 7.0, Y),
    "automatic with weights": (lambda: called(Announced(weighted=True)), "factor", 7.0, Y),
    "rescaling": (lambda: called(L.Rescaling(2.0)), "scale", 7.0, Y),
    "average pooling": (lambda: called(L.AveragePooling1D(2), (5, 4)), "pool_size", (4,), np.stack([Y, Y], 1)[0][None]),
    "permute": (lambda: called(L.Permute((2, 1)), (4, 1)), "dims", (1, 2), Y[:, None]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_copy_keeps_its_attributes_when_those_of_the_layer_are_set_later(name):
    make, attribute, value, y = CHANGES[name]
    layer = make()
    owner = ka.adjoint(layer, tied=False)
    before = values(owner(y))
    setattr(layer, attribute, value)
    np.testing.assert_array_equal(values(owner(y)), before)


@pytest.mark.parametrize("weighted", [False, True], ids=["without weights", "with weights"])
def test_attributes_of_the_config_are_copied(weighted):
    layer = called(Announced(weighted=weighted))
    layer.factor = 3.0
    np.testing.assert_allclose(values(ka.adjoint(layer, tied=False)(Y)), values(layer(Y)), rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True], ids=["without weights", "with weights"])
@pytest.mark.parametrize("registered", [False, True], ids=["automatic", "by a registered rule"])
def test_a_copy_that_is_another_operator_is_refused(weighted, registered):
    class Own(Scaled):
        pass

    if registered:
        ka.register_rule(Own)(lambda source: L.Lambda(source.call))
    layer = called(Own(weighted=weighted))
    layer.factor = 3.0
    with pytest.raises(ka.TieError, match=r"is another operator: .* must be in `Own\.get_config`"):
        ka.adjoint(layer, tied=False)
    np.testing.assert_allclose(values(ka.adjoint(layer)(Y)), values(layer(Y)), rtol=1e-6)


def test_a_copy_that_no_config_makes_is_refused():
    layer = called(WithArray(np.eye(4, dtype="float32")))
    with pytest.raises(ka.TieError, match="No copy of `with_array.*` can be made .* Write a `get_config`"):
        ka.adjoint(layer, tied=False)


def test_a_copy_of_a_layer_of_several_arguments_knows_their_shapes():
    layer = TwoInputs()
    layer(keras.Input((4,)), keras.Input((4,)))
    owner = ka.adjoint(layer, tied=False)
    expected = [values(x) for x in ka.adjoint(layer)(Y)]
    layer.scale.assign(0 * layer.scale)
    for found, one in zip(owner(Y), expected, strict=True):
        np.testing.assert_array_equal(values(found), one)


def test_recorded_sizes_of_the_layer_are_those_of_the_copy():
    pool = called(L.MaxPooling1D(2, padding="same"), (7, 4))
    average = called(L.AveragePooling1D(2, padding="same"), (7, 4))
    assert ka.adjoint(average, tied=False)(np.ones((1, 4, 4))).shape == (1, 7, 4)
    encoder = keras.Sequential([keras.Input((7, 4)), pool])
    assert ka.mirror(encoder, tied=False)(np.ones((1, 4, 4))).shape == (1, 7, 4)
