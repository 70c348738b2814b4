"""`adjoint(model)` is the exact adjoint of a linear model, however its layers are wired."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, matrix
from keras import ops
from layer_list import KERAS, randomize

import keras_adjoint as ka
from keras_adjoint.layers.tied import linear_part
from keras_adjoint.models.graph import trace
from keras_adjoint.testing.pairs import Packing, packed

L = keras.layers


def image(*shape):
    return keras.Input(shape, dtype="float64")


def sequential():
    return keras.Sequential([image(9, 8, 2), L.Conv2D(3, 3, strides=2, padding="same"), L.Flatten(), L.Dense(4)])


def a_tensor_read_twice():
    x = image(6, 5, 2)
    y = L.Conv2D(3, 3, padding="same")(x)
    return keras.Model(x, L.Subtract()([L.Conv2D(3, 1)(y), y]))


def a_layer_called_twice():
    x = image(6, 5, 3)
    conv = L.Conv2D(3, 3, padding="same")
    return keras.Model(x, conv(conv(x)))


def a_layer_called_at_two_sizes():
    x = image(9, 8, 2)
    conv = L.Conv2D(2, 3, strides=2, padding="same")
    return keras.Model(x, conv(conv(x)))


def one_tensor_added_to_itself():
    x = image(
        4,
    )
    y = L.Dense(3)(x)
    return keras.Model(x, L.Add()([y, y]))


def branches_joined():
    x = image(6, 5, 2)
    branches = [L.Conv2D(2, 1)(x), L.DepthwiseConv2D(3, padding="same")(x), L.AveragePooling2D(3, 1, padding="same")(x)]
    return keras.Model(x, L.Concatenate()([*branches, x]))


def several_inputs_and_outputs():
    x, z = image(6, 5, 2), image(6)
    y = L.Add()([L.Conv2D(3, 3, padding="same")(x), L.Reshape((1, 1, 3))(L.Dense(3)(z))])
    return keras.Model([x, z], [L.Flatten()(y), y, L.Dense(2)(z)])


def the_same_output_twice():
    x = image(
        4,
    )
    y = L.Dense(3)(x)
    return keras.Model(x, [y, y, x])


def nested():
    x = image(6, 5, 2)
    inner = keras.Sequential([image(6, 5, 2), L.Conv2D(2, 3, padding="same"), L.BatchNormalization()])
    y = inner(x)
    return keras.Model(x, L.Add()([inner(y), y]))


def nested_in_nested():
    x, inner_x = image(7, 6, 2), keras.Input((None, None, 2), dtype="float64")  # the sizes come from outside
    inner = keras.Model(inner_x, L.Conv2D(2, 3, strides=2, padding="same")(inner_x))
    middle_x = image(7, 6, 2)
    middle = keras.Model(middle_x, [inner(middle_x), L.Conv2D(1, 1)(middle_x)])
    small, large = middle(x)
    return keras.Model(x, [inner(small), large])


def operations_between():
    x, z = image(4, 3, 2), image(4, 3, 2)
    y = 2.0 * L.Conv2D(2, 1)(x) - z / 4.0 + 3.0
    y = ops.concatenate([-y, 1.0 - y, ops.transpose(ops.reshape(y, (-1, 3, 4, 2)), (0, 2, 1, 3))], axis=-1)
    return keras.Model(
        [x, z], [ops.expand_dims(ops.squeeze(L.Conv2D(1, 1)(y), -1), 1), y * np.ones((1, 1, 1, 6)) * 0.5]
    )


def channels_first():
    x = image(3, 4, 5)
    y = L.Permute((2, 3, 1))(L.UpSampling2D(2, data_format="channels_first")(x))
    return keras.Model(x, L.Conv2D(2, 3, strides=3)(y))


def an_unused_input():
    x, z = image(4), image(2, 3)
    return keras.Model([x, z], [L.Dense(3)(x), L.Dense(2)(x)])


def an_input_listed_twice():
    """What Keras is given for it first has no part in the result."""
    x, z = image(4), image(3)
    return keras.Model([x, z, x], [L.Dense(3)(x), L.Dense(2)(z)])


MODELS = [
    sequential, a_tensor_read_twice, a_layer_called_twice, a_layer_called_at_two_sizes, one_tensor_added_to_itself,
    branches_joined, several_inputs_and_outputs, the_same_output_twice, nested, nested_in_nested, operations_between,
    channels_first, an_input_listed_twice,
]  # fmt: skip


@pytest.fixture(autouse=True)
def double_precision():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def made(make):
    model = make()
    for layer in model._flatten_layers(include_self=False):
        if layer.weights and not isinstance(layer, keras.Model):
            randomize(layer)
    return model


def packing_of(tensors):
    shapes = [tuple(tensor.shape) for tensor in tensors]
    return Packing(shapes), None if len(shapes) > 1 else shapes[0][1:]


def matrices(model, adjoint):
    """Dense matrices of a model's linear part and of another model from its outputs to its inputs."""
    inputs, x_shape = packing_of(model.inputs)
    outputs, y_shape = packing_of(model.outputs)
    several_x, several_y = (inputs if x_shape is None else None), (outputs if y_shape is None else None)
    a = matrix(packed(linear_part(model), several_x, several_y), x_shape or inputs.shape[1:], "float64")
    b = matrix(packed(adjoint, several_y, several_x), y_shape or outputs.shape[1:], "float64")
    return a, b


# What of Keras rounds float64 to float32 in the forward pass: batch normalisation on two backends, `Dense` on PyTorch, and the
# arithmetic of tensors with plain numbers, whose symbolic dtype is float32 everywhere.
ROUNDING = {"tensorflow": (), "jax": (L.BatchNormalization,), "torch": (L.BatchNormalization, L.Dense)}


def tolerance(model):
    operations = [call.operation for call in trace(model).calls]
    rounding = any(isinstance(operation, ROUNDING[BACKEND]) for operation in operations)
    return 1e-5 if rounding or not all(isinstance(operation, L.Layer) for operation in operations) else 1e-12


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_matrix_of_the_adjoint_of_a_model_is_the_transpose_of_its_matrix(make):
    model = made(make)
    a, b = matrices(model, ka.adjoint(model))
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a.T, rtol=0, atol=tolerance(model) * np.abs(a).max())


@pytest.mark.any_backend
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_the_adjoint_test_takes_whole_models(make):
    keras.config.set_floatx("float32")
    with_weights = made(make)
    report = ka.check_adjoint(with_weights)
    assert report, report


def test_a_wrong_decoder_of_several_tensors_fails_the_adjoint_test():
    keras.config.set_floatx("float32")
    model = made(several_inputs_and_outputs)
    wrong = ka.adjoint(model, tied=False)
    model.layers[-1].set_weights([2 * weight for weight in model.layers[-1].get_weights()])
    report = ka.check_adjoint(model, wrong)
    assert not report and len(report.input_shape) == 2 and len(report.output_shape) == 3


def test_a_layer_that_is_called_on_several_shapes_goes_back_to_each():
    """Of as many elements, so that only the graph tells which call is meant."""
    keras.config.set_floatx("float32")
    for layer in (L.Flatten(), L.Reshape((-1,))):
        xs = [keras.Input(shape) for shape in ((2, 6), (3, 4), (12,))]
        model = keras.Model(xs, [layer(x) for x in xs])
        assert ka.adjoint(model).output_shape == [(None, 2, 6), (None, 3, 4), (None, 12)]
        report = ka.check_adjoint(model)
        assert report, report


def test_the_adjoint_of_an_adjoint_is_the_model():
    x = image(4)
    model = keras.Model(x, L.Subtract()([L.Dense(3, use_bias=False)(x), x[:, 1:] * 2.0]))
    assert ka.adjoint(ka.adjoint(model)) is model


def test_the_adjoint_of_a_loaded_adjoint_computes_what_the_model_did(tmp_path):
    model = made(several_inputs_and_outputs)
    ka.adjoint(model).save(tmp_path / "adjoint.keras")
    loaded = keras.saving.load_model(tmp_path / "adjoint.keras")
    a, b = matrices(model, loaded)
    np.testing.assert_allclose(b, a.T, rtol=0, atol=tolerance(model) * np.abs(a).max())
    again = ka.adjoint(loaded)
    a, b = matrices(again, loaded)
    np.testing.assert_allclose(b, a.T, rtol=0, atol=tolerance(model) * np.abs(a).max())


def test_layers_are_shared_in_the_backward_pass_as_in_the_forward_pass():
    model = made(a_layer_called_twice)
    adjoint = ka.adjoint(model)
    assert len([layer for layer in adjoint.layers if layer.weights]) == 1
    assert adjoint.count_params() == model.count_params()
    assert ka.is_tied(adjoint, model) and not ka.is_tied(ka.adjoint(model, tied=False), model)


@pytest.mark.skipif(KERAS < (3, 14), reason="Keras builds no such model")
def test_an_input_that_leads_nowhere_gets_zeros():
    model = an_unused_input()
    back = ka.adjoint(model)([np.ones((5, 3)), np.ones((5, 2))])
    assert [tuple(x.shape) for x in back] == [(5, 4), (5, 2, 3)]
    assert not np.any(ops.convert_to_numpy(back[1]))


def test_the_adjoint_reads_the_kernels_of_today():
    model = made(sequential)
    adjoint = ka.adjoint(model)
    for weight in model.trainable_weights:
        weight.assign(2 * ops.convert_to_tensor(weight))
    a, b = matrices(model, adjoint)
    np.testing.assert_allclose(b, a.T, rtol=0, atol=tolerance(model) * np.abs(a).max())


def test_operations_that_change_the_shape_of_a_tensor_of_one_unknown_size():
    keras.config.set_floatx("float32")
    x = keras.Input((None, 3))
    model = keras.Model(x, ops.expand_dims(L.Dense(4)(x), 1))
    report = ka.check_adjoint(model, input_shape=(2, 5, 3))
    assert report, report


# --- what is refused


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3)

    def call(self, x):
        return ops.relu(self.dense(x))


def around(layer, shape=(6, 5, 2)):
    x = keras.Input(shape)
    return keras.Model(x, layer(x), name="net")


@pytest.mark.parametrize(
    "layer, message",
    [
        (
            lambda: L.Conv2D(3, 3, activation="relu", name="conv"),
            "At `net/conv`: A layer with an activation is not linear",
        ),
        (lambda: L.LayerNormalization(name="norm"), "At `net/norm`: No adjoint is known for `LayerNormalization`"),
        (lambda: L.MaxPooling2D(name="pool"), "At `net/pool`: Max pooling is linear only once its switches are fixed"),
        (
            lambda: Subclassed(name="inner"),
            r"At `net/inner`: No adjoint is known for `Subclassed`.*not linear.*register_rule\(Subclassed\)",
        ),
        (lambda: ops.sin, "No adjoint is known for the operation `Sin` at `net/sin"),
        (lambda: lambda x: x * x, "product of two tensors is not linear.*Received: `net/multiply"),
        (lambda: lambda x: 1 / x, "Division by a tensor is not linear.*Received: `net/"),
    ],
    ids=["activation", "norm", "max pooling", "subclassed", "operation", "product", "quotient"],
)
def test_what_is_not_linear_is_named_with_its_place(layer, message):
    with pytest.raises(ka.NoRuleError, match=message):
        ka.adjoint(around(layer()))


def test_a_subclassed_model_that_is_not_linear_is_refused():
    model = Subclassed()
    model(keras.Input((4,)))
    with pytest.raises(ka.NoRuleError, match=r"No adjoint is known for `Subclassed`.*not linear"):
        ka.adjoint(model)


def test_an_unbuilt_sequential_is_refused():
    with pytest.raises(ka.NoRuleError, match="not built yet; call it once, or give it an `Input`"):
        ka.adjoint(keras.Sequential([L.Dense(3)]))


def test_a_sequential_that_keras_cannot_wire_is_refused_with_the_reason():
    class Shapeless(L.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([image(3, 2), L.TimeDistributed(Shapeless())])
    model(np.ones((1, 3, 2)))
    with pytest.raises(ka.NoRuleError, match="is built, but Keras cannot tell which shape.*`compute_output_shape`"):
        ka.adjoint(model)


def test_options_of_layers_are_refused_for_models():
    with pytest.raises(ValueError, match="takes `tied`, `name` and `linear_part` alone.*Received: bias"):
        ka.adjoint(sequential(), bias="own")
    assert ka.adjoint(sequential(), name="back").name == "back"


def test_a_rule_for_a_subclassed_model_is_used():
    class Registered(Subclassed):
        def call(self, x):
            return self.dense(x)

    @ka.register_rule(Registered)
    def registered(source, *, name=None):
        return ka.adjoint(source.dense, name=name)

    keras.config.set_floatx("float32")
    report = ka.check_adjoint(around(Registered(), (4,)))
    assert report, report
