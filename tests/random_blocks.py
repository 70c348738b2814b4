"""Convolutional models that Hypothesis puts together, of layers that can be applied in blocks, with branches."""

import keras
from helpers import DATA_FORMATS
from hypothesis import strategies as st
from layer_list import TRANSPOSES, randomize

L = keras.layers
SIZES = {1: [(23,), (16,)], 2: [(13, 10), (9, 16)], 3: [(7, 6, 5)]}
ACTIVATIONS = [None, "relu", "gelu"]


class Drawing:
    """Tensors of a model that is being drawn."""

    def __init__(self, draw, rank, data_format):
        self.draw, self.rank, self.data_format = draw, rank, data_format
        self.words = []

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def make(self, name, *args, **options):
        self.words.append(f"{name}{self.rank}D{args} {options}")
        layer_class = getattr(L, f"{name}{self.rank}D")
        known = {"data_format": self.data_format} if self.takes_format(name) else {}
        return layer_class(*args, **known, **options)

    def takes_format(self, name):
        return self.rank > 1 or name not in ("Cropping", "UpSampling")

    @property
    def axis(self):
        return 1 if self.data_format == "channels_first" else -1

    # --- what is called

    def convolved(self, x):
        padding = self.one_of(["same", "valid", "causal"] if self.rank == 1 and self.axis == -1 else ["same", "valid"])
        taps, stride = self.one_of([1, 2, 3, 4]), self.one_of([1, 1, 2, 3])
        dilation = self.one_of([1, 2]) if stride == 1 else 1
        options = {
            "padding": padding,
            "strides": stride,
            "dilation_rate": dilation,
            "activation": self.one_of(ACTIVATIONS),
        }
        return self.make("Conv", 2, taps, bias_initializer="ones", **options)(x)

    def transposed(self, x):
        options = {
            "padding": self.one_of(["same", "valid"] if TRANSPOSES else ["valid"]),
            "strides": self.one_of([1, 2, 3]),
        }
        return self.make("Conv", 2, 3, **options)(x) if self.rank > 3 else self.transpose(x, options)

    def transpose(self, x, options):
        self.words.append(f"Conv{self.rank}DTranspose {options}")
        layer_class = getattr(L, f"Conv{self.rank}DTranspose")
        return layer_class(2, 3, data_format=self.data_format, bias_initializer="ones", **options)(x)

    def pooled(self, x):
        sizes = x.shape[2:] if self.axis == 1 else x.shape[1:-1]
        if min(sizes) < 3:  # PyTorch pools no windows larger than the tensor
            return x
        kind, padding = self.one_of(["MaxPooling", "AveragePooling"]), self.one_of(["same", "valid"])
        return self.make(kind, self.one_of([2, 3]), self.one_of([1, 2]), padding=padding)(x)

    def upsampled(self, x):
        if not self.takes_format("UpSampling") and self.axis == 1:
            return x
        more = {"interpolation": self.one_of(["nearest", "bilinear"])} if self.rank == 2 else {}
        return self.make("UpSampling", 2, **more)(x)

    def padded(self, x):
        return self.make("ZeroPadding", 2)(x)

    def cropped(self, x):
        return x if not self.takes_format("Cropping") and self.axis == 1 else self.make("Cropping", 1)(x)

    def normalised(self, x):
        return L.BatchNormalization(axis=self.axis)(x)

    def branched(self, x):
        y = self.make("Conv", x.shape[self.axis], 3, padding="same", activation="relu")(x)
        return L.Add()([x, y]) if self.one_of([True, False]) else L.Concatenate(axis=self.axis)([y, x])

    STAGES = (convolved, convolved, transposed, pooled, upsampled, padded, cropped, normalised, branched)

    def call(self, x):
        """One more stage, unless it makes nothing of a small tensor, or a large one."""
        try:
            y = self.one_of(self.STAGES)(self, x)
        except ValueError:
            return x
        sizes = [size for axis, size in enumerate(y.shape) if axis and axis != self.axis % len(y.shape)]
        return y if min(sizes) > 0 and max(sizes) < 40 else x


@st.composite
def models(draw, ranks=(1, 3)):
    """(model, what it is made of), with weights at random."""
    rank = draw(st.integers(*ranks))
    drawing = Drawing(draw, rank, draw(st.sampled_from(DATA_FORMATS)))
    sizes = drawing.one_of(SIZES[rank])
    x = tensor = keras.Input((*sizes, 2) if drawing.axis == -1 else (2, *sizes), dtype="float32")
    for _ in range(draw(st.integers(1, 4))):
        tensor = drawing.call(tensor)
    model = keras.Model(x, tensor)
    for layer in model.layers:
        randomize(layer)
    return model, drawing.words
