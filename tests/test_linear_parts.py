"""`adjoint(model, linear_part=True)`: the adjoint of a model as if it had no activations."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from operators_of_models import assert_adjoint_of, assert_close, matrix, saved_and_loaded

import keras_adjoint as ka


def encoder(*, activations):
    """A network with activations of every kind, or none of them."""

    def last(name):
        return name if activations else None

    def behind(function):
        return function if activations else lambda x: x

    keras.utils.set_random_seed(1)
    x = keras.Input((7, 6, 2))
    y = L.Conv2D(3, 3, strides=2, activation=last("relu"), bias_initializer="ones")(x)
    y = behind(L.ReLU())(behind(L.Activation("tanh"))(behind(ops.gelu)(y)))
    y = L.TimeDistributed(L.Dense(2, activation=last("elu")))(y)
    y = L.Add()([y, keras.Sequential([keras.Input(y.shape[1:]), L.Dense(2, activation=last("softmax"))])(y)])
    return keras.Model(x, behind(keras.activations.swish)(y), name="encoder")


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_adjoint_of_the_model_without_activations(tied, tmp_path):
    model, linear = encoder(activations=True), encoder(activations=False)
    linear.set_weights(model.get_weights())
    adjoint = ka.adjoint(model, linear_part=True, tied=tied, name="back")
    assert adjoint.name == "back"
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 2)).astype("float32")
    assert_adjoint_of(adjoint, linear, [x])
    assert_adjoint_of(saved_and_loaded(adjoint, tmp_path / "adjoint.keras"), linear, [x])
    assert ka.is_tied(adjoint, model) is tied


@pytest.mark.any_backend
def test_its_own_adjoint_is_the_linear_part_and_not_the_model():
    x = keras.Input((4,))
    model = keras.Model(x, L.ReLU()(L.Dense(3, use_bias=False)(x)))
    again = ka.adjoint(ka.adjoint(model, linear_part=True))
    assert again is not model
    assert_close(matrix(again, [(4,)]), ops.convert_to_numpy(model.layers[1].kernel).T)


@pytest.mark.any_backend
def test_what_is_no_activation_is_refused_as_without_the_option():
    x = keras.Input((4, 4, 2))
    with pytest.raises(ka.NoRuleError, match=r"needs? switches|switches are fixed.*Received: "):
        ka.adjoint(keras.Model(x, L.MaxPooling2D()(x)), linear_part=True)
    with pytest.raises(ka.NoRuleError, match=r"cannot be left out.*Received: "):
        ka.adjoint(keras.Model(x, keras.activations.glu(L.Dense(4)(x))), linear_part=True)


@pytest.mark.any_backend
@pytest.mark.parametrize("make", [lambda: L.SimpleRNN(3), L.LayerNormalization], ids=["recurrent", "normalisation"])
def test_what_is_not_left_out_is_said_of_a_layer_without_a_rule(make):
    layer = make()
    x = keras.Input((4, 2))
    model = keras.Model(x, layer(x))
    for source in (layer, model):
        with pytest.raises(ka.NoRuleError, match=r"nothing inside of another layer\. No adjoint .*Received: "):
            ka.adjoint(source, linear_part=True)
        with pytest.raises(ka.NoRuleError) as error:
            ka.adjoint(source)
        assert "linear_part" not in str(error.value)


@pytest.mark.any_backend
def test_the_error_of_a_model_with_activations_names_the_option_which_works():
    model = encoder(activations=True)
    with pytest.raises(ka.NoRuleError, match="Pass `linear_part=True` to leave out every activation of the model"):
        ka.adjoint(keras.Sequential([keras.Input((4,)), L.Dense(3, activation="relu")]))
    with pytest.raises(ValueError, match=r"takes `tied`, `name` and `linear_part` alone.*Received: bias"):
        ka.adjoint(model, bias="own", linear_part=True)
