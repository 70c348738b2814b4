"""The encoders whose autoencoders are exported."""

import keras
import numpy as np

import keras_adjoint as ka

L = keras.layers


def convolutions(width=8):
    """Strided convolutions, batch normalisation, and a dense code."""
    image = keras.Input((29, 31, 3))
    x = L.Conv2D(width, 5, strides=2, padding="same")(image)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, L.Dense(10)(L.Flatten()(x)), name="convolutions")


def convolution(width=8):
    """One convolution, whose kernel is nearly all there is to store."""
    image = keras.Input((9, 8, width // 2))
    return keras.Model(image, L.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(image), name="convolution")


def dense(width=8):
    """One dense layer."""
    features = keras.Input((32 * width,))
    return keras.Model(features, L.Dense(width, use_bias=False)(features), name="dense")


def pooling(width=8):
    """The same with max pooling."""
    image = keras.Input((29, 31, 3))
    x = L.Conv2D(width, 5, strides=2, padding="same")(image)
    x = L.MaxPooling2D(2)(L.ReLU()(L.BatchNormalization()(x)))
    x = L.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, L.Dense(10)(L.Flatten()(x)), name="pooling")


def memory(width=8):
    """The same with overlapping max pooling and a gate, both of which the decoder remembers."""
    image = keras.Input((29, 31, 3))
    x = L.Conv2D(width, 5, strides=2, padding="same")(image)
    x = L.ReLU()(L.BatchNormalization()(x))
    gate = L.Conv2D(width, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.MaxPooling2D(3, 2)(L.Multiply()([x, gate]))
    x = L.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, L.Dense(10)(L.Flatten()(x)), name="memory")


def branches(width=8):
    """Convolutions of other kinds, side by side, added and concatenated."""
    image = keras.Input((16, 14, 4))
    x = L.ZeroPadding2D(1)(L.Conv2D(width, 3, padding="same", groups=2)(image))
    x = L.DepthwiseConv2D(3, strides=2)(x)
    left = L.SeparableConv2D(width, 3, padding="same")(x)
    right = L.AveragePooling2D(3, 1, padding="same")(L.Conv2D(width, 3, dilation_rate=2, padding="same")(x))
    x = L.Concatenate()([L.Add()([left, right]), L.Activation("tanh")(right)])
    x = L.MaxPooling2D(3, 2, padding="same")(x)
    return keras.Model(image, L.Dense(6)(L.GlobalAveragePooling2D()(x)), name="branches")


# The policies that each is mirrored by.
REMEMBERING = {"pooling": "switches", "gates": "recorded", "activation": "gradient"}
MODELS = {convolutions: {}, pooling: {}, memory: REMEMBERING, branches: {}}
KERNELS = {"convolution": convolution, "dense": dense}


def autoencoder(make, width=8, **options):
    """(encoder, its autoencoder), with random numbers in all of their weights."""
    encoder = make(width)
    model = ka.autoencoder(encoder, **MODELS.get(make, {}), **options)
    randomize(model)
    return encoder, model


def randomize(model):
    """Small random weights, with positive variances."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "int" not in str(weight.dtype):
            value = 0.1 * generator.normal(size=weight.shape)
            weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)


def layer_by_layer():
    """Pairs of a title and an autoencoder around one layer with its policy, or around a few."""
    for title, shape, layers, policies in LAYERS:
        image = keras.Input(shape)
        encoder = keras.Model(image, layers(image))
        model = ka.autoencoder(encoder, **policies)
        randomize(model)
        yield title, encoder, model


def after(x, *layers):
    for layer in layers:
        x = layer(x)
    return x


def merged(x, merge):
    return merge([L.Conv2D(3, 1)(x), L.Conv2D(3, 3, padding="same")(x)])


IMAGE = (9, 8, 4)
LAYERS = (
    ("Conv1D, causal", (12, 3), lambda x: L.Conv1D(4, 3, strides=2, padding="causal")(x), {}),
    ("Conv2D", IMAGE, lambda x: L.Conv2D(6, 3, strides=2, padding="same")(x), {}),
    ("Conv2D, square kernel", IMAGE, lambda x: L.Conv2D(4, 3, strides=2, padding="same")(x), {}),
    ("Conv2D, dilated", IMAGE, lambda x: L.Conv2D(6, 3, dilation_rate=2)(x), {}),
    ("Conv2D, grouped", IMAGE, lambda x: L.Conv2D(6, 3, strides=2, groups=2)(x), {}),
    ("Conv3D", (5, 6, 5, 2), lambda x: L.Conv3D(3, 3, strides=2, padding="same")(x), {}),
    ("Conv2DTranspose", IMAGE, lambda x: L.Conv2DTranspose(3, 3, strides=2, padding="same")(x), {}),
    ("DepthwiseConv2D", IMAGE, lambda x: L.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(x), {}),
    ("SeparableConv2D", IMAGE, lambda x: L.SeparableConv2D(6, 3, padding="same")(x), {}),
    ("Dense", (7,), lambda x: L.Dense(5)(x), {}),
    ("Dense, square kernel", (7,), lambda x: L.Dense(7)(x), {}),
    ("Dense, several axes", (5, 7), lambda x: L.Dense(5)(x), {}),
    ("EinsumDense", (5, 7), lambda x: L.EinsumDense("abc,cd->abd", output_shape=(None, 4))(x), {}),
    (
        "Flatten, Reshape, Permute",
        (4, 6, 2),
        lambda x: after(x, L.Permute((2, 1, 3)), L.Reshape((8, 6)), L.Flatten()),
        {},
    ),
    ("ZeroPadding2D, Cropping2D", IMAGE, lambda x: after(x, L.ZeroPadding2D(2), L.Cropping2D(1)), {}),
    ("UpSampling2D", IMAGE, lambda x: L.UpSampling2D(2)(x), {}),
    ("AveragePooling2D", IMAGE, lambda x: L.AveragePooling2D(3, 2, padding="same")(x), {}),
    ("MaxPooling2D by spread", IMAGE, lambda x: L.MaxPooling2D(2)(x), {}),
    ("MaxPooling2D by switches", IMAGE, lambda x: L.MaxPooling2D(3, 2)(x), {"pooling": "switches"}),
    ("MaxPooling3D by switches", (5, 4, 6, 2), lambda x: L.MaxPooling3D(2)(x), {"pooling": "switches"}),
    ("GlobalAveragePooling2D", IMAGE, lambda x: L.GlobalAveragePooling2D()(x), {}),
    ("GlobalMaxPooling2D by switches", IMAGE, lambda x: L.GlobalMaxPooling2D()(x), {"pooling": "switches"}),
    ("BatchNormalization", IMAGE, lambda x: L.BatchNormalization()(x), {"norm": "inverse"}),
    ("ReLU by gradient", IMAGE, lambda x: after(x, L.ReLU(), L.Conv2D(3, 3)), {"activation": "gradient"}),
    (
        "Multiply by recorded gate",
        IMAGE,
        lambda x: L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid")(x)]),
        {"gates": "recorded"},
    ),
    ("Add", IMAGE, lambda x: merged(x, L.Add()), {}),
    ("Concatenate", IMAGE, lambda x: merged(x, L.Concatenate()), {}),
)
