"""Small models that break one rule each, ways to change them, and what the doctor finds in them."""

import keras
import numpy as np
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.doctor.rules import examine_model

CONV = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
CONV_TRANSPOSE = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}


def found(model, rule, origin=None):
    """The findings of one rule."""
    findings = [finding for finding in examine_model(model, origin) if finding.rule == rule.name]
    assert {finding.severity for finding in findings} <= set(rule.severities)
    return findings


def places(model, rule, origin=None):
    return [finding.place for finding in found(model, rule, origin)]


def trained(model):
    """The model with random numbers in all of its weights, none of them where it began."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(0.1 + np.abs(generator.normal(size=weight.shape)))
    return model


def give(target, source, rearrange=lambda kernel: kernel):
    """Hand the values of one layer's kernel to another layer, as loading a lost tie does."""
    target.kernel.assign(rearrange(ops.convert_to_numpy(source.kernel)))


def chain(shape, *steps, name="model"):
    """A Functional model of layers one after the other."""
    x = y = keras.Input(shape)
    for step in steps:
        y = step(y)
    return keras.Model(x, y, name=name)


def autoencoder(size=(8, 8), channels=3, filters=5, taps=4, strides=2, activation="relu", data_format=None):
    """A convolution and a transposed one of the same hyper-parameters, called `conv` and `back`."""
    rank = len(size)
    shape = (channels, *size) if data_format == "channels_first" else (*size, channels)
    options = {"strides": strides, "padding": "same", "data_format": data_format}
    conv = CONV[rank](filters, taps, activation=activation, name="conv", **options)
    back = CONV_TRANSPOSE[rank](channels, taps, activation="sigmoid", name="back", **options)
    return trained(chain(shape, conv, back))


def lost_tie(**options):
    """The decoder's kernel was the encoder's before the model was saved."""
    model = autoencoder(**options)
    give(model.get_layer("back"), model.get_layer("conv"))
    return model


def nested_lost_tie(decoder_of=keras.Sequential):
    """The same with an encoder and a decoder as models of their own."""
    flat = lost_tie()
    encoder = chain((8, 8, 3), flat.get_layer("conv"), name="encoder")
    code = keras.Input(encoder.output.shape[1:])
    back = flat.get_layer("back")
    if decoder_of is keras.Sequential:
        decoder = keras.Sequential([code, back], name="decoder")
    else:
        decoder = keras.Model(code, back(code), name="decoder")
    return chain((8, 8, 3), encoder, decoder)


def dense_pair():
    """Two matrices, the second the transpose of the first."""
    first, second = layers.Dense(7, activation="tanh", name="first"), layers.Dense(11, name="second")
    model = trained(chain((11,), first, second))
    give(second, first, np.transpose)
    return model


def copied_layer():
    """A layer and its copy in one model, equal in all but their names."""
    one, other = (layers.Conv2D(4, 3, padding="same", name=name) for name in ("one", "other"))
    model = trained(chain((8, 8, 4), one, layers.ReLU(), other))
    other.set_weights(one.get_weights())
    return model


def constant_kernel():
    """An operation with the kernel of a layer as a constant."""
    first = layers.Dense(7, name="first")
    x = keras.Input((11,))
    y = first(x)
    model = trained(keras.Model(x, y))
    return keras.Model(x, ops.matmul(y, ops.convert_to_numpy(model.get_layer("first").kernel).T.copy()))


def adjoint_pair(layer_class, **options):
    """Two plain convolutions, the second with the kernel that computes the adjoint of the first."""
    conv, back = (layer_class(name=name, padding="same", **options) for name in ("conv", "back"))
    model = trained(chain((8, 8, 4), conv, back))
    if layer_class is layers.DepthwiseConv2D:
        give(back, conv, lambda kernel: kernel[::-1, ::-1].copy())
    else:
        give(back, conv, lambda kernel: ka.transpose_kernel(kernel, "conv", groups=options["groups"]))
    return model


def embeddings(**options):
    """A language model's tied embeddings (Press and Wolf 2017), which a file has untied."""
    words, back = layers.Embedding(20, 6, name="words"), layers.Dense(20, name="back", **options)
    x = keras.Input((3,), dtype="int32")
    model = trained(keras.Model(x, back(layers.Dense(6, name="dense")(words(x)))))
    back.kernel.assign(ops.transpose(words.embeddings))
    return model


def named_inputs():
    """Inputs and outputs by name, one layer called twice."""
    one, other = keras.Input((8, 8, 3), name="one"), keras.Input((8, 8, 3), name="other")
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    back = layers.Conv2DTranspose(3, 3, padding="same", name="back")
    both = {"sum": back(conv(one) + conv(other)), "one": back(conv(one))}
    model = trained(keras.Model({"one": one, "other": other}, both))
    give(back, conv)
    return model


def in_half_precision():
    """Computes in float16 and keeps its kernels in float32."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return lost_tie()
    finally:
        keras.config.set_dtype_policy("float32")
