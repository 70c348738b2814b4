"""A variable that is frozen by its own switch stays frozen in every copy, and no other one is frozen with it."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_adjoint as ka

L = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Weighted(L.Layer):
    """A linear layer without a rule."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")
        self.bias = self.add_weight(shape=(shape[-1],), name="bias")

    def call(self, x):
        return ops.cumsum(x * self.kernel, axis=-1) + self.bias


SOURCES = {
    "dense": (lambda: L.Dense(3), (5,)),
    "convolution": (lambda: L.Conv2D(3, 2, strides=2), (4, 4, 2)),
    "depthwise": (lambda: L.DepthwiseConv2D(2), (4, 4, 2)),
    "separable": (lambda: L.SeparableConv1D(3, 2), (6, 2)),
    "transposed": (lambda: L.Conv1DTranspose(3, 2), (6, 2)),
    "einsum": (lambda: L.EinsumDense("ab,bc->ac", output_shape=3), (5,)),
    "without a rule": (Weighted, (5,)),
}


def built(name, frozen):
    make, shape = SOURCES[name]
    layer = make()
    layer(keras.Input(shape))
    for variable in layer.weights:
        variable.trainable = variable.name not in frozen
    return layer


def kernels(layer):
    return {weight.name for weight in layer.trainable_weights if "kernel" in weight.name}


@pytest.mark.any_backend
@pytest.mark.parametrize("frozen", [(), ("kernel",), ("depthwise_kernel",), ("pointwise_kernel",)])
@pytest.mark.parametrize("name", SOURCES)
def test_the_kernels_of_an_adjoint_are_trained_as_those_of_its_source(name, frozen):
    source = built(name, frozen)
    expected = kernels(source)
    assert kernels(ka.adjoint(source)) == kernels(ka.adjoint(source, tied=False)) == expected
    again = built(name, frozen)
    model = ka.clone_tied(keras.Model(again.input, ka.adjoint(again)(again.output)))
    assert kernels(model) == expected


@pytest.mark.any_backend
@pytest.mark.parametrize("to", ["conv_transpose", "conv"])
@pytest.mark.parametrize("options", [{}, {"bias": "own"}, {"channels": 4}], ids=str)
@pytest.mark.parametrize("frozen", [(), ("kernel",), ("depthwise_kernel",), ("pointwise_kernel",)])
@pytest.mark.parametrize("name", ["dense", "convolution", "depthwise", "separable"])
def test_stock_layers_are_trained_as_what_they_stand_for(name, frozen, options, to):
    source = built(name, frozen)
    adjoint = ka.adjoint(source, **options)
    y = keras.Input(source.output.shape[1:])
    trained = ka.untie(keras.Model(y, adjoint(y)), to=to).trainable_weights
    own = [weight for weight in adjoint.trainable_weights if all(weight is not one for one in source.weights)]
    assert sum("kernel" in weight.name for weight in trained) == len(kernels(source)) + ("channels" in options)
    assert sum(weight.name == "bias" for weight in trained) == len([one for one in own if one.name == "bias"])


@pytest.mark.parametrize("frozen", ["variable", "layer"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("dense", {}), ("dense", {"bias": "own"}), ("convolution", {"bias": "own"}), ("without a rule", {})],
    ids=str,
)
def test_a_frozen_copy_is_trained_once_it_is_switched_on(name, options, frozen):
    source = built(name, {"kernel"} if frozen == "variable" else ())
    if frozen == "layer":
        source.trainable = False
    adjoint = ka.adjoint(source, tied=False, **options)
    for trainable in (True, False, True):
        adjoint.trainable = trainable
        assert len(kernels(adjoint)) == trainable
    assert not kernels(source)


@pytest.mark.any_backend
def test_a_kernel_that_is_trained_in_a_frozen_layer_is_trained_in_copies():
    source = built("dense", ())
    source.trainable = False
    source.kernel.trainable = True
    y = keras.Input((3,))
    model = keras.Model(y, ka.adjoint(source)(y))
    copied = keras.Model(y, ka.adjoint(source, tied=False)(y))
    for one in (model, copied, ka.clone_tied(model), ka.untie(model)):
        assert len(one.trainable_weights) == 1


@pytest.mark.any_backend
def test_training_a_copy_leaves_a_frozen_kernel():
    source = built("dense", ("kernel",))
    adjoint = ka.adjoint(source, tied=False, bias="own")
    y = keras.Input((3,))
    model = ka.untie(keras.Model(y, adjoint(y)))
    for one in (keras.Model(y, adjoint(y)), model):
        one.compile("sgd", "mse")
        before = ops.convert_to_numpy(source.kernel)
        one.fit(np.ones((4, 3)), np.ones((4, 5)), verbose=0)
        (kernel,) = [weight for weight in one.weights if "kernel" in weight.name]
        assert sorted(ops.convert_to_numpy(kernel).ravel()) == sorted(before.ravel())
        assert any(np.any(ops.convert_to_numpy(bias)) for bias in one.weights if bias.name == "bias")
