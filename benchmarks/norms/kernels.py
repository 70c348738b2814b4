"""The layers whose norms are compared, with weights as Keras makes them, small enough for a dense decomposition."""

from dataclasses import dataclass, field

import keras
import numpy as np

L = keras.layers
SAME = {"padding": "same"}


@dataclass(frozen=True)
class Kernel:
    """A layer with the shape of its input, without the batch axis."""

    name: str
    layer_class: type
    shape: tuple
    options: dict = field(default_factory=dict)
    positive: bool = False
    has_weights: bool = True

    def build(self):
        keras.utils.set_random_seed(0)
        layer = self.layer_class(**self.options, **({"use_bias": False} if self.has_weights else {}))
        layer.build((None, *self.shape))
        for weight in layer.weights if self.positive else ():
            weight.assign(np.abs(keras.ops.convert_to_numpy(weight)))
        return layer


def without_weights(name, layer_class, shape, **options):
    return Kernel(name, layer_class, shape, options, has_weights=False)


def image(name, shape, filters, taps, layer_class=L.Conv2D, positive=False, **options):
    return Kernel(name, layer_class, shape, {"filters": filters, "kernel_size": taps, **options}, positive)


KERNELS = (
    image("3×3", (10, 10, 8), 16, 3, **SAME),
    image("3×3, valid", (12, 12, 3), 16, 3),
    image("3×3, positive", (10, 10, 8), 8, 3, positive=True, **SAME),
    image("5×4, stride 2", (14, 14, 4), 8, (5, 4), strides=2, **SAME),
    image("7×7, stride 2", (16, 16, 3), 16, 7, strides=2, **SAME),
    image("7×7, stride 3", (19, 19, 2), 16, 7, strides=3),
    image("2×2, stride 2", (12, 12, 4), 8, 2, strides=2),
    image("1×1", (5, 5, 24), 24, 1),
    image("1×1, stride 2", (9, 9, 8), 16, 1, strides=2),
    image("3×3, dilated 3", (12, 12, 4), 4, 3, dilation_rate=3, **SAME),
    image("3×3, 4 groups", (8, 8, 12), 16, 3, groups=4, **SAME),
    Kernel("3×3, depthwise, stride 2", L.DepthwiseConv2D, (11, 11, 6), {"kernel_size": 3, "strides": 2, **SAME}),
    image("3×3, separable", (8, 8, 10), 10, 3, L.SeparableConv2D, **SAME),
    image("9, causal", (60, 8), 12, 9, L.Conv1D, padding="causal"),
    image("16, stride 8", (400, 1), 16, 16, L.Conv1D, strides=8),
    image("3×3×3", (6, 6, 6, 2), 4, 3, L.Conv3D, **SAME),
    image("4×4, stride 2, transposed", (6, 6, 8), 4, 4, L.Conv2DTranspose, strides=2, **SAME),
    image("5, stride 3, transposed", (40, 8), 4, 5, L.Conv1DTranspose, strides=3),
    Kernel("dense", L.Dense, (300,), {"units": 200}),
    Kernel("dense, at each step", L.Dense, (20, 24), {"units": 16}),
    without_weights("average pooling, 3×3, stride 2", L.AveragePooling2D, (15, 15, 4), pool_size=3, strides=2, **SAME),
    without_weights("up-sampling, 2×2, bilinear", L.UpSampling2D, (10, 10, 4), size=2, interpolation="bilinear"),
)
LARGE = image("3×3, 64→64, 224 × 224", (224, 224, 64), 64, 3, **SAME)
