"""The adjoint of an adjoint is the source where that is the very operator, and otherwise a new layer that is."""

import keras
import numpy as np
import pytest
from encoders import assert_close, chain, values
from helpers import matrix
from keras import ops
from layer_list import KERAS, randomize
from test_graph import matrices

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.tied import linear_part

pytestmark = pytest.mark.any_backend

L = keras.layers

PLAIN = {
    "dense": (lambda: L.Dense(4, use_bias=False), (6,)),
    "convolution": (lambda: L.Conv1D(4, 3, strides=2, use_bias=False), (9, 2)),
    "permute": (lambda: L.Permute((2, 1)), (3, 4)),
    "padding": (lambda: L.ZeroPadding1D(2), (5, 2)),
    "average pooling": (lambda: L.AveragePooling1D(2), (7, 2)),
    "time distributed": (lambda: L.TimeDistributed(L.Dense(4, use_bias=False)), (3, 6)),
}
WITH_MORE = {
    "bias": (lambda: L.Dense(4), (6,)),
    "activation": (lambda: L.Conv1D(4, 3, strides=2, use_bias=False, activation="relu"), (9, 2)),
    "bias and activation": (lambda: L.Conv2D(3, 3, padding="same", activation="tanh"), (5, 4, 2)),
    "batch normalisation": (L.BatchNormalization, (4, 3)),
    "rescaling": (lambda: L.Rescaling(2.0, offset=1.0), (4, 3)),
    "bias, time distributed": (lambda: L.TimeDistributed(L.Dense(4)), (3, 6)),
    "bias, spectral normalisation": (lambda: L.SpectralNormalization(L.Dense(4)), (6,)),
}


def built(make, shape):
    layer = make()
    layer.build((None, *shape))
    if layer.weights:
        randomize(layer)
    return layer


@pytest.mark.every_backend
@pytest.mark.parametrize("make, shape", PLAIN.values(), ids=PLAIN)
def test_a_source_without_bias_and_activation_comes_back(make, shape):
    layer = built(make, shape)
    assert ka.adjoint(ka.adjoint(layer)) is layer


@pytest.mark.parametrize("make, shape", WITH_MORE.values(), ids=WITH_MORE)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "copied"])
def test_of_any_other_source_its_linear_part_comes_back(make, shape, tied):
    layer = built(make, shape)
    adjoint = linear_adjoint(layer)
    second = ka.adjoint(adjoint, tied=tied)
    assert second is not layer
    third = ka.adjoint(second)
    outputs = tuple(layer.compute_output_shape((None, *shape))[1:])
    expected = matrix(linear_part(layer), shape, "float32")
    for operator in (second, ka.adjoint(third)):
        assert_close(matrix(operator, shape, "float32"), expected)
    assert_close(matrix(third, outputs, "float32"), expected.T)


@pytest.mark.parametrize("make, shape", {**PLAIN, **WITH_MORE}.values(), ids={**PLAIN, **WITH_MORE})
def test_a_copy_owns_everything(make, shape):
    layer = built(make, shape)
    second = ka.adjoint(linear_adjoint(layer), tied=False)
    assert not {id(variable) for variable in second.variables} & {id(variable) for variable in layer.variables}


@pytest.mark.every_backend
def test_the_linear_part_reads_the_kernel_of_today_and_is_saved_with_its_tie(tmp_path):
    dense = built(lambda: L.Dense(4, activation="relu"), (6,))
    x = keras.Input((6,))
    model = keras.Model(x, [dense(x), ka.adjoint(linear_adjoint(dense))(x)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded, ka.clone_tied(model)):
        first = next(layer for layer in each.layers if isinstance(layer, L.Dense))
        first.kernel.assign(3 * ops.convert_to_tensor(first.kernel))
        found = values(each(np.eye(6, dtype="float32"))[1])
        assert_close(found, values(first.kernel))


def test_a_mirror_of_a_mirror_has_neither_bias_nor_activation_of_the_encoder():
    encoder = chain(L.Dense(4, activation="relu"), shape=(6,))
    decoder = ka.mirror(encoder, bias="none", activation="linear")
    for again in (ka.adjoint(decoder), ka.mirror(decoder, bias="none", activation="linear")):
        assert_close(matrix(again, (6,), "float32"), values(encoder.layers[1].kernel).T)


def test_a_copied_adjoint_of_a_model_of_adjoints_owns_everything():
    dense = built(lambda: L.Dense(4, use_bias=False), (6,))
    x = keras.Input((4,))
    copy = ka.adjoint(keras.Model(x, ka.adjoint(dense)(x)), tied=False)
    assert len(copy.variables) == 1 and copy.variables[0] is not dense.kernel
    assert_close(matrix(copy, (6,), "float32"), values(dense.kernel).T)


def linear_model(**options):
    return keras.Sequential([keras.Input((6,)), L.Dense(4, use_bias=False, **options)])


def test_a_model_comes_back_from_its_tied_adjoint():
    model = linear_model()
    assert ka.adjoint(ka.adjoint(model)) is model


def test_a_model_does_not_come_back_from_a_copy():
    model = linear_model()
    adjoint = ka.adjoint(model, tied=False)
    for variable in adjoint.variables:
        variable.assign(3 * ops.convert_to_tensor(variable))
    assert_close(matrix(ka.adjoint(adjoint), (6,), "float32"), 3 * matrix(model, (6,), "float32"))


def test_a_model_that_was_changed_does_not_come_back():
    model = linear_model()
    expected = matrix(model, (6,), "float32")
    adjoint = ka.adjoint(model)
    model.add(L.Dense(3, use_bias=False))
    assert_close(matrix(ka.adjoint(adjoint), (6,), "float32"), expected)


def test_a_model_with_a_bias_or_a_constant_does_not_come_back():
    x = keras.Input((6,))
    biased = keras.Model(x, L.Dense(4, bias_initializer="ones")(x))
    for model in (biased, keras.Model(x, L.Dense(6, use_bias=False)(x) + 1.0)):
        again = ka.adjoint(ka.adjoint(model))
        assert again is not model
        assert not np.any(values(again(np.zeros((1, 6)))))
        assert_close(matrix(again, (6,), "float32"), matrix(linear_part(model), (6,), "float32"))


def unused_input():
    x, z = keras.Input((4,)), keras.Input((2, 3))
    return keras.Model([x, z], [L.Dense(3)(x), L.Dense(2)(x)])


def joined():
    x = keras.Input((4, 3))
    return keras.Model(x, L.Concatenate()([L.Dense(2)(x), x[:, ::2][:, :1] * np.ones((1, 4, 1)), 2.0 * x]))


@pytest.mark.skipif(KERAS < (3, 14), reason="Keras builds no model that does not read an input")
@pytest.mark.parametrize("make", [unused_input, joined], ids=["unused input", "joined"])
def test_what_was_made_and_loaded_can_be_made_again_to_any_depth(make, tmp_path):
    model = make()
    expected, _ = matrices(model, ka.adjoint(model))
    for _ in range(2):
        adjoint = ka.adjoint(model)
        adjoint.save(tmp_path / "adjoint.keras")
        model = ka.adjoint(keras.saving.load_model(tmp_path / "adjoint.keras"))
        found, transposed = matrices(model, adjoint)
        assert_close(found, expected)
        assert_close(transposed, expected.T)


@pytest.mark.every_backend
def test_unpooling_is_undone_by_its_switches():
    x = keras.Input((6, 2))
    pooled = ka.autoencoder(keras.Model(x, L.MaxPooling1D()(L.Dense(3)(x))), pooling="switches", bias="none")
    with pytest.raises(ka.NoRuleError, match="Max pooling is linear only once its switches are fixed"):
        ka.adjoint(pooled)
    again = ka.autoencoder(pooled, pooling="switches", bias="none")
    pictures = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
    dense = pooled.layers[1]
    kernel, y = values(dense.kernel), values(dense(pictures))
    kept = y * (y == np.maximum(y[:, 0::2], y[:, 1::2]).repeat(2, axis=1))
    switched = kept != 0
    coded = (values(pooled(pictures)) @ kernel) * switched  # up the adjoint again, at the same switches
    assert_close(values(again(pictures)), coded @ kernel.T)


@pytest.mark.every_backend
def test_what_is_no_adjoint_of_its_source_is_transposed_by_the_backend():
    dense = built(lambda: L.Dense(4), (6,))
    x = keras.Input((4,))
    adapted = ka.adjoint(dense, channels=5, bias="own")
    model = keras.Model(x, adapted(x))
    a, b = matrices(model, ka.adjoint(model))
    assert_close(b, a.T)
    a, b = matrices(model, ka.adjoint(adapted))
    assert_close(b, a.T)


def test_a_layer_that_is_added_later_is_in_new_adjoints_and_not_in_old_ones():
    model = linear_model()
    old, before = ka.adjoint(model), matrix(model, (6,), "float32")
    model.add(L.Dense(3, use_bias=False))
    assert_close(matrix(old, (4,), "float32"), before.T)
    assert_close(matrix(ka.adjoint(old), (6,), "float32"), before)
    assert_close(matrix(ka.adjoint(model), (3,), "float32"), matrix(model, (6,), "float32").T)


@pytest.mark.parametrize("mode", ["none", "own", "subtract", "repeat", "learned"])
def test_a_mirror_of_a_mirror_is_the_forward_layer_without_bias_at_every_mode_of_biases(mode):
    """What is the adjoint of an adjoint adds nothing, whatever bias the adjoint before it has."""
    encoder = chain(L.Dense(4), shape=(6,))
    randomize(encoder.layers[1])
    mirror = ka.mirror(encoder, bias=mode)
    twice = ka.mirror(mirror, bias=mode)
    assert ka.is_tied(twice, encoder) and not ka.is_tied(ka.mirror(mirror, bias=mode, tied=False), encoder)
    x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    assert_close(values(twice(x)), x @ values(encoder.layers[1].kernel))
