"""Which networks, at which sizes, with and without their classifiers."""

import math
from dataclasses import dataclass

import keras

ODD = (225, 219)  # no stride divides it, and a picture need not be square

# The smallest member of each family, and the height and width that it was designed for.
FAMILIES = {
    "VGG": ("VGG16", 224),
    "ResNet": ("ResNet50", 224),
    "ResNetV2": ("ResNet50V2", 224),
    "MobileNet": ("MobileNet", 224),
    "MobileNetV2": ("MobileNetV2", 224),
    "MobileNetV3": ("MobileNetV3Small", 224),
    "EfficientNet": ("EfficientNetB0", 224),
    "EfficientNetV2": ("EfficientNetV2B0", 224),
    "ConvNeXt": ("ConvNeXtTiny", 224),
    "DenseNet": ("DenseNet121", 224),
    "Inception": ("InceptionV3", 299),
    "InceptionResNet": ("InceptionResNetV2", 299),
    "Xception": ("Xception", 299),
    "NASNet": ("NASNetMobile", 224),
}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        family: A key of `FAMILIES`.
        network: Name of the function in `keras.applications`.
        top: Whether the classifier is part of the network.
        size: Height and width of the pictures.
    """

    family: str
    network: str
    top: bool
    size: tuple[int, int]

    @property
    def key(self):
        """What the row is filed under."""
        return f"{self.network}, {'with' if self.top else 'without'} top, {self.size[0]}x{self.size[1]}"

    def build(self):
        """The network with random weights, as Keras makes it."""
        make = getattr(keras.applications, self.network)
        return make(weights=None, include_top=self.top, input_shape=(*self.size, 3))


def let_signals_through(network):
    """Scale depthwise kernels to where a ReLU behind them keeps the size of what passes both.

    Keras' default initialises a kernel of shape `(*taps, channels, 1)` as if each output summed over all channels. After
    the thirteen such layers of a MobileNet nothing is left that float32 can hold, and every decoder would predict zeros.
    """
    for layer in network.layers:
        if isinstance(layer, (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)):
            kernel = getattr(layer, "depthwise_kernel", None)
            kernel = layer.kernel if kernel is None else kernel
            taps = math.prod(kernel.shape[:-2])
            kernel.assign(kernel * (math.sqrt(2 / taps) / keras.ops.std(kernel)))


def cases(families=FAMILIES):
    """All rows of some families."""
    return [
        Case(family, network, top, size)
        for family, (network, native) in FAMILIES.items()
        if family in families
        for top in (False, True)
        for size in ((native, native), ODD)
    ]
