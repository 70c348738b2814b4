"""Which rule holds for a layer: subclasses, what they replace, and rules that users register."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_adjoint as ka
from keras_adjoint.layers.computation import computing_methods
from keras_adjoint.layers.registry import RULES

pytestmark = pytest.mark.any_backend


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


# --- what a subclass replaces


class DoubledSum(L.Add):
    def _merge_function(self, inputs):
        return 2 * super()._merge_function(inputs)


class OwnCausalPadding(L.Conv1D):
    def _compute_causal_padding(self):
        return 1


class OwnResizing(L.UpSampling2D):
    def _resize_images(self, *arguments, **options):
        return 2 * super()._resize_images(*arguments, **options)


class DoubledQuantised(L.Dense):
    def quantized_call(self, *arguments, **options):
        return 2 * super().quantized_call(*arguments, **options)


@pytest.mark.parametrize(
    "layer, replaced",
    [
        (lambda: DoubledSum(), "_merge_function"),
        (lambda: OwnCausalPadding(2, 3, padding="causal"), "_compute_causal_padding"),
        (lambda: OwnResizing(2), "_resize_images"),
        (lambda: DoubledQuantised(3), "quantized_call"),
    ],
)
def test_a_subclass_that_replaces_what_call_reaches_does_not_inherit_the_rule(layer, replaced):
    with pytest.raises(ka.NoRuleError, match=f"replaces the computation of `.*` by its own `{replaced}`"):
        ka.adjoint(layer())


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_whose_call_was_replaced_is_not_read_as_its_graph(nested):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    inside = model.call
    model.call = lambda x, **options: 2 * inside(x, **options)
    x = keras.Input((3,))
    model = keras.Model(x, model(x)) if nested else model
    matrix = keras.ops.convert_to_numpy(model(np.eye(3)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ka.adjoint(model)(np.eye(2))), matrix.T, rtol=1e-6)


class DoubledCall(keras.Model):
    def __call__(self, *arguments, **options):
        return 2 * super().__call__(*arguments, **options)


class DoubledModel(keras.Model):
    def call(self, x):
        return 2 * super().call(x)


def doubled_by(model_class):
    x = keras.Input((3,))
    return model_class(x, L.Dense(2)(x))


def around(model):
    x = keras.Input((3,))
    return keras.Model(x, model(x))


@pytest.mark.parametrize("model_class", [DoubledCall, DoubledModel])
def test_a_model_that_computes_more_than_its_graph_is_not_read_as_its_graph(model_class):
    model = doubled_by(model_class)
    outer = around(model)
    for each in (model, outer):
        matrix = keras.ops.convert_to_numpy(each(np.eye(3)))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ka.adjoint(each)(np.eye(2))), matrix.T, rtol=1e-6)
    with pytest.raises(ValueError, match="with a `call` of its own"):
        ka.untie(model)


@pytest.mark.parametrize("make", [ka.operator, ka.untie], ids=lambda make: make.__name__)
def test_no_graph_is_made_anew_around_a_layer_with_more_around_its_call(make):
    """Keras would record the doubling a second time."""
    with pytest.raises(ka.NoRuleError, match="Keras records .* Received: DoubledCall.__call__"):
        make(around(doubled_by(DoubledCall)))


def test_models_with_a_call_of_their_own_are_operators_and_are_copied_whole():
    model = doubled_by(DoubledModel)
    x = np.eye(3, dtype="float32")
    matrix = keras.ops.convert_to_numpy(model(x))
    for computed in (ka.operator(model) @ x, ka.untie(around(model))(x)):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(computed), matrix, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="hooks are PyTorch's")
def test_what_forward_hooks_make_of_a_layer_is_not_its_rule():
    doubling = {
        "register_forward_hook": lambda layer, given, made: 2 * made,
        "register_forward_pre_hook": lambda layer, given: (2 * given[0],),
    }
    for register, hook in doubling.items():
        layer = built(L.Dense(2), 3)
        model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
        for each in (layer, model):
            getattr(each, register)(hook)
            matrix = keras.ops.convert_to_numpy(each(np.eye(3, dtype="float32")))
            np.testing.assert_allclose(keras.ops.convert_to_numpy(ka.adjoint(each)(np.eye(2))), matrix.T, rtol=1e-6)
    encoder = keras.Sequential([keras.Input((3,)), L.Dense(2, activation="relu")])
    encoder.layers[0].register_forward_hook(lambda layer, given, made: None)
    with pytest.raises(ka.NoRuleError, match="has forward hooks.*remove them first"):
        ka.mirror(encoder)


def test_every_method_that_computes_counts_for_every_layer_with_a_rule():
    """By introspection, so that a Keras that calls it otherwise is followed."""
    for parent in RULES:
        for name in computing_methods(parent):
            replacing = type("Replacing", (parent,), {name: lambda self, *arguments: None, "name": "replacing"})
            layer = replacing.__new__(replacing)
            with pytest.raises(ka.NoRuleError, match=f"`{parent.__name__}` by its own `{name}`"):
                ka.layers.registry.rule_for(layer)


def test_computing_methods_are_those_behind_helpers_properties_and_parents():
    class Base(L.Layer):
        def call(self, x):
            return self.twice(x)

        def twice(self, x):
            return [self.factor * value for value in x]

        @property
        def factor(self):
            return self.constant()

        @staticmethod
        def constant():
            return 2.0

        def unrelated(self):
            return 3.0

    class Derived(Base):
        def call(self, x):
            return super().call(x)

    assert computing_methods(Derived) >= {"call", "twice", "factor", "constant"}
    assert "unrelated" not in computing_methods(Derived)


class Doubling(L.Layer):
    def call(self, x):
        return self.double(x)

    def double(self, x):
        return 2.0 * x


@pytest.fixture
def without_rule(monkeypatch):
    """`Doubling` has no rule before and after the test."""
    monkeypatch.setitem(RULES, Doubling, None)
    del RULES[Doubling]


def test_a_subclass_of_a_layer_with_a_registered_rule_is_held_to_its_helpers(without_rule):

    class Tripling(Doubling):
        def double(self, x):
            return 3.0 * x

    ka.register_rule(Doubling)(lambda source: Doubling())
    assert isinstance(ka.adjoint(built(Doubling(), 3)), Doubling)
    with pytest.raises(ka.NoRuleError, match="`Doubling` by its own `double`"):
        ka.layers.registry.rule_for(built(Tripling(), 3))
    assert ka.check_adjoint(built(Tripling(), 3))  # by the automatic adjoint


class StandardizedConv(L.Conv2D):
    """Computes with a kernel of zero mean."""

    @property
    def kernel(self):
        kernel = super().kernel
        return kernel - keras.ops.mean(kernel, axis=(0, 1, 2), keepdims=True)


def test_a_subclass_that_computes_its_kernel_is_followed():
    assert ka.check_adjoint(built(StandardizedConv(4, 3), 6, 6, 2))


# --- a subclass with a kernel of its own


class OwnKernelDense(L.Dense):
    def build(self, input_shape):
        self._kernel = self.add_weight(shape=(input_shape[-1], self.units), name="mine")
        self.bias = None
        self.built = True


class OwnKernelConv(L.Conv2D):
    kernel = None

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(*self.kernel_size, input_shape[-1], self.filters), name="mine")
        self.bias = None
        self.built = True


class OwnKernelDepthwise(L.DepthwiseConv2D):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(*self.kernel_size, input_shape[-1], self.depth_multiplier), name="mine")
        self.bias = None
        self.built = True


class OwnKernelTranspose(L.Conv2DTranspose):
    kernel = None

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(*self.kernel_size, self.filters, input_shape[-1]), name="mine")
        self.bias = None
        self.built = True


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: OwnKernelTranspose(4, 3, strides=2, use_bias=False), (6, 5, 3)),
        (lambda: OwnKernelTranspose(4, (3, 2), dilation_rate=2, use_bias=False), (6, 5, 3)),
        (lambda: OwnKernelDense(4, use_bias=False), (3,)),
        (lambda: OwnKernelConv(4, 3, use_bias=False), (6, 5, 3)),
        (lambda: OwnKernelDepthwise(3, use_bias=False), (6, 5, 3)),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_subclass_that_makes_its_own_kernel_has_an_adjoint(layer, shape, tied):
    source = layer()
    y = source(np.ones((1, *shape), "float32"))
    strided = len(shape) > 1 and not isinstance(source, L.Conv2DTranspose)
    decode = ka.adjoint(source, tied=tied, **({"output_size": shape[:2]} if strided else {}))
    assert decode(y).shape == (1, *shape)
    assert ka.check_adjoint(source, decode, input_shape=(1, *shape))


# --- rules of users


def graph_with(layer_class):
    inputs = keras.Input((3,))
    return keras.Model(inputs, L.Dense(2)(layer_class(name="doubling")(inputs)))


RULES_OF_USERS = {
    "no options": lambda source: Doubling(),
    "a name": lambda source, name=None: Doubling(name=name),
    "any options": lambda source, **options: Doubling(**options),
    "the layer itself": lambda source: source,
    "a fixed name": lambda source: Doubling(name="doubling"),
}


@pytest.mark.parametrize("rule", RULES_OF_USERS)
def test_a_rule_works_however_it_takes_its_options(rule, without_rule):
    ka.register_rule(Doubling)(RULES_OF_USERS[rule])
    model = graph_with(Doubling)
    decoder = ka.mirror(model, bias="none")
    weight, y = keras.ops.convert_to_numpy(model.layers[-1].kernel), np.ones((1, 2), "float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(decoder(y)), 2 * y @ weight.T, rtol=1e-6)
    assert ka.check_adjoint(model)
    if rule != "the layer itself":
        layer = built(Doubling(), 3)
        assert ka.adjoint(layer, name="halving").name == "halving"


def test_a_rule_that_does_not_take_an_option_refuses_it(without_rule):
    ka.register_rule(Doubling)(lambda source: Doubling())
    with pytest.raises(ValueError, match=r"takes no `bias`; it takes name\. Received: bias='own'"):
        ka.adjoint(built(Doubling(), 3), bias="own")


# --- options


@pytest.mark.parametrize("value", ["no", 1, None, np.array([True])])
def test_tied_is_a_boolean(value):
    with pytest.raises(ValueError, match="`tied` must be `True` or `False`. Received: tied="):
        ka.adjoint(built(L.Dense(3), 2), tied=value)
    with pytest.raises(ValueError, match="`tied` must be `True` or `False`. Received: tied="):
        ka.mirror(dense_model(), tied=value)
    with pytest.raises(ValueError, match="`tied` must be `True` or `False`. Received: tied="):
        ka.autoencoder(dense_model(), tied=value)


def dense_model():
    return keras.Sequential([keras.Input((3,)), L.Dense(2)])


def test_numpy_booleans_and_integers_are_options():
    source = built(L.Dense(3), 2)
    assert ka.adjoint(source, tied=np.False_).source is not source
    assert ka.adjoint(source, tied=np.True_).source is source
    for channels in (np.int64(4), np.uint8(4), np.array(4)):
        assert ka.adjoint(source, channels=channels)(np.ones((1, 3), "float32")).shape == (1, 4)


@pytest.mark.parametrize("channels", [True, np.True_, "4", 4.0, np.float32(4), -1, (4,), np.array([4])])
def test_channels_is_an_integer(channels):
    with pytest.raises(ValueError, match="`channels` must be a positive integer. Received: channels="):
        ka.adjoint(built(L.Dense(3), 2), channels=channels)


@pytest.mark.parametrize("name", ["", "a/b", 5, b"name"])
def test_a_name_is_one_that_keras_takes(name):
    for make in (lambda: ka.adjoint(built(L.Dense(3), 2), name=name), lambda: ka.mirror(dense_model(), name=name)):
        with pytest.raises(ValueError, match="`name` must be a string without a slash. Received: name="):
            make()


@pytest.mark.parametrize("result", [None, L.Dense, lambda y: 2 * y], ids=["nothing", "a class", "a function"])
def test_a_rule_that_returns_no_layer_is_refused_with_what_it_returned(result, without_rule):
    ka.register_rule(Doubling)(lambda source: result)
    with pytest.raises(ka.NoRuleError, match="must return the layer .* Received: "):
        ka.adjoint(built(Doubling(), 3))


def test_what_is_no_layer_class_has_no_rule_and_what_is_no_function_is_none():
    for value in (int, 3):
        with pytest.raises(ValueError, match="takes a layer class.* Received: layer_class="):
            ka.register_rule(value)

    class Doubled(L.Layer):
        pass

    with pytest.raises(ValueError, match="A rule is a function .* Received: 3"):
        ka.register_rule(Doubled)(3)
    assert Doubled not in RULES
