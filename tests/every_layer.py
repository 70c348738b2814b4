"""Every class in `keras.layers`, found by introspection, with what it takes to make one and to call it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

L = keras.layers
BACKEND = keras.backend.backend()

FEATURES = (4,)
SEQUENCE = (6, 3)
IMAGE = (6, 5, 3)
VOLUME = (4, 3, 4, 2)
BYTES = (8, 8, 3)  # an image of integers from 0 to 255


@dataclass(frozen=True)
class Use:
    """How a layer is made and called.

    Attributes:
        make: Makes it.
        inputs: The shape of its input, or a list of shapes, or, if it takes several arguments, a tuple of those.
        dtype: Of the inputs.
        below: Integers are from 0 to this.
        keywords: The further arguments of the call.
        only_on: The backends that have the layer.
        title: What is unusual about this use.
    """

    make: Callable[[], L.Layer]
    inputs: Any = IMAGE
    dtype: str = "float32"
    below: int = 2
    keywords: dict[str, Any] = field(default_factory=dict)
    only_on: tuple[str, ...] = ("tensorflow", "jax", "torch")
    title: str = ""

    def arguments(self, make_input):
        """The positional arguments of a call, with what `make_input` makes of a shape in the place of each tensor."""
        is_one = isinstance(self.inputs, list) or all(size is None or isinstance(size, int) for size in self.inputs)
        several = (self.inputs,) if is_one else self.inputs
        return [list(map(make_input, each)) if isinstance(each, list) else make_input(each) for each in several]


def use(layer_class, inputs, *args, call=None, dtype="float32", below=2, title="", only_on=None, **kwargs):
    limits = {} if only_on is None else {"only_on": only_on}
    return Use(lambda: layer_class(*args, **kwargs), inputs, dtype, below, call or {}, title=title, **limits)


@keras.saving.register_keras_serializable("every_layer")
def double(x):
    return 2 * x[..., ::-1] if BACKEND != "torch" else 2 * keras.ops.flip(x, axis=-1)


def torch_module():
    import torch

    return torch.nn.Linear(3, 2)


@keras.saving.register_keras_serializable(package="every_layer")
def jax_function(params, inputs):
    return inputs @ params["kernel"]


@keras.saving.register_keras_serializable(package="every_layer")
def jax_parameters(rng, inputs):
    return {"kernel": np.arange(6, dtype="float32").reshape(3, 2) - 2}


SHAPES = {1: SEQUENCE, 2: IMAGE, 3: VOLUME}
FIRST = "channels_first"

# What is not in this table is made without arguments and called on an image.
TABLE: dict[str, list[Use]] = {
    "Activation": [use(L.Activation, FEATURES, "relu"), use(L.Activation, FEATURES, "linear", title="linear")],
    # On TensorFlow Keras takes (samples, 1, 1) for a bias if an axis is as long as there are samples.
    "Add": [use(L.Add, [FEATURES, FEATURES]), use(L.Add, [(5, 4), (4,), (1, 1)], title="broadcast")],
    "Subtract": [use(L.Subtract, [FEATURES, FEATURES])],
    "Average": [use(L.Average, [FEATURES, FEATURES, FEATURES])],
    "Maximum": [use(L.Maximum, [FEATURES, FEATURES])],
    "Minimum": [use(L.Minimum, [FEATURES, FEATURES])],
    "Multiply": [use(L.Multiply, [FEATURES, FEATURES])],
    "Concatenate": [
        use(L.Concatenate, [FEATURES, FEATURES]),
        use(L.Concatenate, [(2, 3), (4, 3)], axis=1, title="axis 1"),
        use(L.Concatenate, [FEATURES, FEATURES], axis=0, title="samples"),
    ],
    "Dot": [use(L.Dot, [FEATURES, FEATURES], axes=1), use(L.Dot, [SEQUENCE, SEQUENCE], axes=(2, 2), title="matrices")],
    **{
        f"AdaptiveAveragePooling{rank}D": [
            use(getattr(L, f"AdaptiveAveragePooling{rank}D", None), shape, 2),
            use(
                getattr(L, f"AdaptiveAveragePooling{rank}D", None), shape, 2, data_format=FIRST, title="channels first"
            ),
        ]
        for rank, shape in SHAPES.items()
    },
    **{
        f"AdaptiveMaxPooling{rank}D": [use(getattr(L, f"AdaptiveMaxPooling{rank}D", None), shape, 2)]
        for rank, shape in SHAPES.items()
    },
    "AlphaDropout": [use(L.AlphaDropout, FEATURES, 0.5)],
    "Dropout": [use(L.Dropout, FEATURES, 0.5)],
    "GaussianDropout": [use(L.GaussianDropout, FEATURES, 0.5)],
    "GaussianNoise": [use(L.GaussianNoise, FEATURES, 0.5)],
    **{
        f"SpatialDropout{rank}D": [use(getattr(L, f"SpatialDropout{rank}D"), shape, 0.5)]
        for rank, shape in SHAPES.items()
    },
    "AdditiveAttention": [use(L.AdditiveAttention, [SEQUENCE, SEQUENCE])],
    "Attention": [
        use(L.Attention, [SEQUENCE, SEQUENCE]),
        use(L.Attention, [SEQUENCE, SEQUENCE], call={"return_attention_scores": True}, title="with its scores"),
    ],
    "MultiHeadAttention": [
        use(L.MultiHeadAttention, (SEQUENCE, SEQUENCE), 2, 3),
        use(L.MultiHeadAttention, (SEQUENCE, (4, 2), (4, 3)), 2, 3, title="query, value and key"),
        use(L.MultiHeadAttention, (SEQUENCE, SEQUENCE), 2, 3, call={"return_attention_scores": True}, title="scores"),
    ],
    "GroupQueryAttention": [use(L.GroupQueryAttention, (SEQUENCE, SEQUENCE), 2, 4, 2)],
    **{f"AveragePooling{rank}D": [use(getattr(L, f"AveragePooling{rank}D"), s, 2)] for rank, s in SHAPES.items()},
    **{f"MaxPooling{rank}D": [use(getattr(L, f"MaxPooling{rank}D"), s, 2)] for rank, s in SHAPES.items()},
    **{
        f"GlobalAveragePooling{rank}D": [use(getattr(L, f"GlobalAveragePooling{rank}D"), s)]
        for rank, s in SHAPES.items()
    },
    **{f"GlobalMaxPooling{rank}D": [use(getattr(L, f"GlobalMaxPooling{rank}D"), s)] for rank, s in SHAPES.items()},
    **{f"ZeroPadding{rank}D": [use(getattr(L, f"ZeroPadding{rank}D"), s)] for rank, s in SHAPES.items()},
    **{f"Cropping{rank}D": [use(getattr(L, f"Cropping{rank}D"), s)] for rank, s in SHAPES.items()},
    **{f"UpSampling{rank}D": [use(getattr(L, f"UpSampling{rank}D"), s)] for rank, s in SHAPES.items()},
    **{
        f"Conv{rank}D": [
            use(getattr(L, f"Conv{rank}D"), s, 2, 2, strides=2),
            use(getattr(L, f"Conv{rank}D"), s, 2, 2, activation="relu", title="with an activation"),
        ]
        for rank, s in SHAPES.items()
    },
    **{f"Conv{rank}DTranspose": [use(getattr(L, f"Conv{rank}DTranspose"), s, 2, 2)] for rank, s in SHAPES.items()},
    **{f"DepthwiseConv{rank}D": [use(getattr(L, f"DepthwiseConv{rank}D"), SHAPES[rank], 2)] for rank in (1, 2)},
    **{f"SeparableConv{rank}D": [use(getattr(L, f"SeparableConv{rank}D"), SHAPES[rank], 2, 2)] for rank in (1, 2)},
    **{
        f"ConvLSTM{rank}D": [use(getattr(L, f"ConvLSTM{rank}D"), (2, *s), 2, 2)]
        for rank, s in {1: (4, 2), 2: (4, 3, 2), 3: (3, 3, 3, 1)}.items()
    },
    "BatchNormalization": [use(L.BatchNormalization, SEQUENCE)],
    "Normalization": [use(L.Normalization, SEQUENCE, mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 2.0])],
    "Bidirectional": [
        use(lambda: L.Bidirectional(L.LSTM(2)), SEQUENCE),
        use(lambda: L.Bidirectional(L.GRU(2, return_sequences=True), merge_mode=None), SEQUENCE, title="two outputs"),
    ],
    "GRU": [use(L.GRU, SEQUENCE, 2), use(L.GRU, SEQUENCE, 2, return_state=True, title="with its state")],
    "LSTM": [use(L.LSTM, SEQUENCE, 2), use(L.LSTM, SEQUENCE, 2, return_state=True, title="with its state")],
    "SimpleRNN": [
        use(L.SimpleRNN, SEQUENCE, 2),
        use(L.SimpleRNN, SEQUENCE, 2, activation=None, return_sequences=True, title="linear"),
        use(L.SimpleRNN, SEQUENCE, 2, activation=None, go_backwards=True, return_state=True, title="linear, state"),
    ],
    "RNN": [use(lambda: L.RNN([L.GRUCell(3), L.SimpleRNNCell(2)]), SEQUENCE)],
    "GRUCell": [use(L.GRUCell, (FEATURES, [(2,)]), 2)],
    "SimpleRNNCell": [
        use(L.SimpleRNNCell, (FEATURES, [(2,)]), 2),
        use(L.SimpleRNNCell, (FEATURES, [(2,)]), 2, activation=None, title="linear"),
    ],
    "LSTMCell": [use(L.LSTMCell, (FEATURES, [(2,), (2,)]), 2)],
    "StackedRNNCells": [use(lambda: L.StackedRNNCells([L.SimpleRNNCell(2)]), (FEATURES, [(2,)]))],
    "CategoryEncoding": [use(L.CategoryEncoding, (3,), 4, dtype="int32", below=4)],
    "CenterCrop": [use(L.CenterCrop, IMAGE, 4, 3), use(L.CenterCrop, IMAGE, 8, 7, title="larger than its input")],
    "RandomCrop": [use(L.RandomCrop, IMAGE, 4, 3)],
    "Resizing": [
        use(L.Resizing, IMAGE, 3, 4),
        use(L.Resizing, IMAGE, 12, 10, interpolation="nearest", title="nearest"),
        use(L.Resizing, IMAGE, 4, 4, crop_to_aspect_ratio=True, title="cropped"),
        use(L.Resizing, IMAGE, 9, 9, pad_to_aspect_ratio=True, interpolation="bicubic", title="padded"),
    ],
    "Dense": [use(L.Dense, FEATURES, 3), use(L.Dense, SEQUENCE, 2, activation="tanh", title="with an activation")],
    "EinsumDense": [use(L.EinsumDense, SEQUENCE, "abc,cd->abd", (None, 2))],
    "Embedding": [
        use(L.Embedding, (3,), 5, 2, dtype="int32", below=5),
        use(L.Embedding, (3,), 5, 2, mask_zero=True, dtype="int32", below=5, title="masks zeros"),
    ],
    "ReversibleEmbedding": [
        use(getattr(L, "ReversibleEmbedding", None), (3,), 5, 2, dtype="int32", below=5),
        use(getattr(L, "ReversibleEmbedding", None), (3, 2), 5, 2, call={"reverse": True}, title="reversed"),
    ],
    "Flatten": [use(L.Flatten, SEQUENCE), use(L.Flatten, IMAGE, data_format=FIRST, title="channels first")],
    "GroupNormalization": [use(L.GroupNormalization, (5, 4), 2)],
    "Hashing": [use(L.Hashing, (3,), 4, dtype="int32", below=9)],
    "HashedCrossing": [use(L.HashedCrossing, [(1,), (1,)], 4, dtype="int32", below=9)],
    "IntegerLookup": [use(L.IntegerLookup, (3,), vocabulary=[3, 5, 7], dtype="int32", below=9)],
    "StringLookup": [use(L.StringLookup, (3,), vocabulary=["a", "b"], dtype="string")],
    "TextVectorization": [use(L.TextVectorization, (1,), vocabulary=["a", "b"], dtype="string")],
    "Discretization": [use(L.Discretization, FEATURES, bin_boundaries=[0.0, 1.0])],
    "Lambda": [
        use(L.Lambda, SEQUENCE, double),
        use(L.Lambda, SEQUENCE, lambda x: keras.ops.tanh(x), title="not linear"),
        use(L.Lambda, SEQUENCE, lambda x: {"a": x + 1, "b": [x, 2 * x]}, title="several outputs"),
    ],
    "Masking": [use(L.Masking, SEQUENCE), use(L.Masking, SEQUENCE, 1.0, title="masks ones")],
    "Permute": [use(L.Permute, IMAGE, (3, 1, 2))],
    "RepeatVector": [use(L.RepeatVector, FEATURES, 3)],
    "Reshape": [use(L.Reshape, SEQUENCE, (2, 9)), use(L.Reshape, SEQUENCE, (-1, 2), title="of unknown size")],
    "Rescaling": [use(L.Rescaling, BYTES, 1 / 255, offset=1.0)],
    "MelSpectrogram": [use(L.MelSpectrogram, (64,), 8, 16, 4, num_mel_bins=3, sampling_rate=100, max_freq=40)],
    "STFTSpectrogram": [
        use(L.STFTSpectrogram, (20, 1), mode=mode, frame_length=8, frame_step=4, title=mode)
        for mode in ("real", "imag", "log", "magnitude", "stft")
    ],
    "SpectralNormalization": [use(lambda: L.SpectralNormalization(L.Dense(3)), FEATURES)],
    "TimeDistributed": [
        use(lambda: L.TimeDistributed(L.Dense(2)), SEQUENCE),
        use(lambda: L.TimeDistributed(L.Conv1D(2, 2, activation="relu")), IMAGE, title="with an activation"),
        use(lambda: L.TimeDistributed(L.TimeDistributed(L.Dense(2))), IMAGE, title="twice"),
        use(lambda: L.TimeDistributed(L.BatchNormalization()), SEQUENCE, title="of a normalization"),
    ],
    "Wrapper": [],  # a base class
    "Pipeline": [
        use(lambda: L.Pipeline([L.Rescaling(2.0), L.Rescaling(0.5)]), IMAGE),
        use(lambda: L.Pipeline([L.RandomFlip(), L.CenterCrop(4, 3)]), IMAGE, title="augmentation"),
    ],
    "InputLayer": [],  # it is not called
    "JaxLayer": [
        Use(lambda: L.JaxLayer(jax_function, init_fn=jax_parameters), SEQUENCE, only_on=("jax",)),
    ],
    "FlaxLayer": [],  # of modules of a library that Keras does not need
    "TFSMLayer": [],  # of files
    "TorchModuleWrapper": [
        Use(lambda: L.TorchModuleWrapper(torch_module(), output_shape=(None, 6, 2)), SEQUENCE, only_on=("torch",))
    ],
    "AugMix": [use(L.AugMix, BYTES)],
    "ContrastLimitedAdaptiveHistogramEqualization": [
        use(getattr(L, "ContrastLimitedAdaptiveHistogramEqualization", None), BYTES)
    ],
    "Equalization": [],  # called on a symbolic tensor it gives back that very tensor, of which Keras makes no model
    "CutMix": [use(L.CutMix, BYTES)],
    "MaxNumBoundingBoxes": [use(L.MaxNumBoundingBoxes, BYTES, 3)],
    "RandomBrightness": [use(L.RandomBrightness, BYTES, 0.5)],
    "RandomContrast": [use(L.RandomContrast, BYTES, 0.5)],
    "RandomColorDegeneration": [use(L.RandomColorDegeneration, BYTES, 0.5)],
    "RandomHue": [use(L.RandomHue, BYTES, 0.5)],
    "RandomPosterization": [use(L.RandomPosterization, BYTES, 4)],
    "RandomRotation": [use(L.RandomRotation, BYTES, 0.5)],
    "RandomSaturation": [use(L.RandomSaturation, BYTES, 0.5)],
    "RandomSharpness": [use(L.RandomSharpness, BYTES, 0.5)],
    "RandomTranslation": [use(L.RandomTranslation, BYTES, 0.5, 0.5)],
    "RandomZoom": [use(L.RandomZoom, BYTES, 0.5)],
    "Solarization": [use(L.Solarization, BYTES)],
    "UnitNormalization": [use(L.UnitNormalization, FEATURES)],
}


def layer_classes():
    """The layer classes of this version of Keras by their names, without second names and base classes."""
    found = {}
    for name, one in inspect.getmembers(L, inspect.isclass):
        if issubclass(one, L.Layer) and one is not L.Layer:
            found[one] = name if name in TABLE or one not in found else found[one]
    return {name: one for one, name in found.items()}


def uses_of(name, layer_class):
    """The uses of a class on this backend: those in the table, else the class made without arguments."""
    return [each for each in TABLE.get(name, [Use(layer_class)]) if BACKEND in each.only_on]
