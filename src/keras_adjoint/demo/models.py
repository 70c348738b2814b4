"""A small strided convolutional autoencoder, with a tied and with an untied decoder for the same encoder."""

import keras
from keras import layers

import keras_adjoint as ka
from keras_adjoint.demo.photographs import PATCH

STAGES = (
    # filters, taps, stride
    (16, 5, 2),
    (32, 3, 2),
    (16, 3, 1),
)
ACTIVATION = "elu"


def make_encoder():
    """Linear convolutions with activations as layers of their own, so that the former have adjoints."""
    photograph = keras.Input((PATCH, PATCH, 3), name="photograph")
    features = photograph
    for number, (filters, taps, stride) in enumerate(STAGES, 1):
        if number > 1:
            features = layers.Activation(ACTIVATION)(features)
        features = layers.Conv2D(filters, taps, strides=stride, padding="same", name=f"conv{number}")(features)
    return keras.Model(photograph, features, name="encoder")


def convolutions(encoder):
    return [layer for layer in encoder.layers if isinstance(layer, layers.Conv2D)]


def tied(conv, features):
    """One stage back, tied: the adjoint of the encoder's own layer."""
    return ka.adjoint(conv, bias="own", name=f"adjoint_of_{conv.name}")(features)


def untied(conv, features):
    """One stage back, untied: a transposed convolution with a kernel of its own, and what is too much cropped.

    Cropped in front, where the kernels of odd size stay centred on what they reconstruct.
    """
    *sizes, channels = conv.input.shape[1:]
    back = layers.Conv2DTranspose(channels, conv.kernel_size, strides=conv.strides, padding=conv.padding)(features)
    surplus = [(found - wanted, 0) for found, wanted in zip(back.shape[1:-1], sizes, strict=True)]
    return layers.Cropping2D(surplus)(back) if any(map(any, surplus)) else back


def make_decoder(encoder, stage_back):
    """The encoder's stages undone in reverse order by `stage_back(conv, features)`."""
    code = keras.Input(encoder.output.shape[1:], name="code")
    features = code
    for conv in reversed(convolutions(encoder)):
        if features is not code:
            features = layers.Activation(ACTIVATION)(features)
        features = stage_back(conv, features)
    return keras.Model(code, features, name="decoder")


def make_autoencoder(stage_back, *, seed):
    """(autoencoder, encoder, decoder). The same seed gives the same encoder, whatever the decoder."""
    keras.utils.set_random_seed(seed)
    encoder = make_encoder()
    decoder = make_decoder(encoder, stage_back)
    photograph = keras.Input(encoder.input.shape[1:], name="photograph")
    return keras.Model(photograph, decoder(encoder(photograph)), name="autoencoder"), encoder, decoder


def for_size(encoder, decoder, size):
    """The same layers, hence the same kernels, for photographs of another size."""
    photograph = keras.Input((*size, 3))
    features = photograph
    for layer in (*encoder.layers[1:], *decoder.layers[1:]):
        features = layer(features)
    return keras.Model(photograph, features)
