"""Convolutions of real networks, as their papers and reference implementations have them."""

from dataclasses import dataclass

from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Convolution, Window


@dataclass(frozen=True)
class Geometry:
    """One convolution layer at the size that it has in its network.

    Attributes:
        name: The network, and what tells the layer from its others.
        sizes: Spatial sizes of the input.
        channels: Channels of the input.
        filters: Channels of the output.
        taps: Kernel size, one number per axis or one for all.
        stride: The same.
        batch: Number of samples.
        padding: "same", "valid" or "causal".
        dilation: One number for all axes.
        groups: Number of groups; as many as channels for a depthwise convolution.
    """

    name: str
    sizes: tuple
    channels: int
    filters: int
    taps: int | tuple
    stride: int | tuple = 1
    batch: int = 1
    padding: str = "same"
    dilation: int = 1
    groups: int = 1

    @property
    def kernel_size(self):
        return _per_axis(self.taps, len(self.sizes))

    @property
    def strides(self):
        return _per_axis(self.stride, len(self.sizes))

    @property
    def convolution(self):
        windows = [
            Window(t, s, self.dilation, self.padding) for t, s in zip(self.kernel_size, self.strides, strict=True)
        ]
        return Convolution(tuple(w.at(size) for w, size in zip(windows, self.sizes, strict=True)), self.groups)

    @property
    def x_shape(self):
        return (self.batch, *self.sizes, self.channels)

    @property
    def y_shape(self):
        return (self.batch, *(axis.outputs for axis in self.convolution.axes), self.filters)

    @property
    def kernel_shape(self):
        return (*self.kernel_size, self.channels // self.groups, self.filters)

    def problem(self, dtype="float32"):
        """The adjoint of this convolution, as algorithms see it."""
        return Problem(self.convolution, self.batch, self.channels, self.filters, dtype=dtype)

    def __str__(self):
        def word(numbers):
            return "×".join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))

        extra = [f"s{word(self.strides)}"] * (set(self.strides) != {1}) + [f"d{self.dilation}"] * (self.dilation > 1)
        extra += [f"g{self.groups}"] * (self.groups > 1)
        sizes = f"{self.batch}·{word(self.sizes)}"
        return f"{self.name}: k{word(self.kernel_size)} {' '.join(extra)} {self.channels}→{self.filters} {sizes}"


def _per_axis(number, rank):
    return (number,) * rank if isinstance(number, int) else tuple(number)


G = Geometry
GEOMETRIES = (
    # --- 2-D
    G("ResNet stem", (224, 224), 3, 64, 7, 2),
    G("ResNet conv2", (56, 56), 64, 64, 3, batch=4),
    G("ResNet conv3, down", (56, 56), 128, 128, 3, 2, batch=4),
    G("ResNet shortcut", (56, 56), 256, 512, 1, 2, batch=4),
    G("ResNet conv5", (7, 7), 512, 512, 3, batch=32),
    G("VGG block 1", (224, 224), 64, 64, 3),
    G("VGG block 3", (56, 56), 256, 256, 3),
    G("VGG block 5", (14, 14), 512, 512, 3, batch=8),
    G("ConvNeXt stem", (224, 224), 3, 96, 4, 4, batch=4),
    G("ConvNeXt depthwise, stage 1", (56, 56), 96, 96, 7, batch=4, groups=96),
    G("ConvNeXt down", (56, 56), 96, 192, 2, 2, batch=4),
    G("ConvNeXt depthwise, stage 4", (7, 7), 768, 768, 7, batch=16, groups=768),
    G("ViT-B/16", (224, 224), 3, 768, 16, 16, batch=8, padding="valid"),
    G("ViT-H/14", (224, 224), 3, 1280, 14, 14, batch=2, padding="valid"),
    G("DCGAN, first", (64, 64), 3, 64, 4, 2, batch=64),
    G("DCGAN, third", (16, 16), 128, 256, 4, 2, batch=64),
    G("DCGAN, last", (4, 4), 512, 1, 4, batch=128, padding="valid"),
    G("pix2pix, second", (128, 128), 64, 128, 4, 2),
    G("pix2pix, inner", (8, 8), 512, 512, 4, 2),
    G("PatchGAN, last", (31, 31), 512, 1, 4),
    G("U-Net, outer", (282, 282), 64, 64, 3, padding="valid"),
    G("U-Net, inner", (28, 28), 512, 1024, 3, padding="valid"),
    G("Inception 1×7", (17, 17), 128, 128, (1, 7), batch=8),
    G("Inception 7×1", (17, 17), 192, 192, (7, 1), batch=8),
    G("Inception, reduction", (35, 35), 288, 384, 3, 2, batch=4, padding="valid"),
    G("DeepLab, block 4", (33, 33), 512, 512, 3, dilation=2),
    G("DeepLab, ASPP 6", (33, 33), 1024, 256, 3, dilation=6),
    G("DeepLab, ASPP 12", (33, 33), 1024, 256, 3, dilation=12),
    G("MobileNet depthwise", (112, 112), 32, 32, 3, batch=4, groups=32),
    G("MobileNet depthwise, down", (112, 112), 64, 64, 3, 2, batch=4, groups=64),
    G("MobileNet depthwise, late", (14, 14), 512, 512, 3, batch=32, groups=512),
    G("MobileNetV3 depthwise, down", (56, 56), 72, 72, 5, 2, batch=4, groups=72),
    G("ResNeXt", (56, 56), 128, 128, 3, batch=2, groups=32),
    G("ResNeXt, down", (56, 56), 256, 256, 3, 2, batch=2, groups=32),
    # --- 1-D
    G("wav2vec, first", (16000,), 1, 512, 10, 5, padding="valid"),
    G("wav2vec, second", (3199,), 512, 512, 3, 2, padding="valid"),
    G("wav2vec, positions", (49,), 768, 768, 128, groups=16),
    G("EnCodec, first", (24000,), 1, 32, 7, padding="causal"),
    G("EnCodec, down 2", (24000,), 32, 64, 4, 2, padding="causal"),
    G("EnCodec, down 8", (600,), 256, 512, 16, 8, padding="causal"),
    G("CREPE, first", (1024,), 1, 1024, 512, 4, batch=16),
    G("CREPE, second", (128,), 1024, 128, 64, batch=4),
    G("WaveNet, dilation 2", (16000,), 64, 64, 2, padding="causal", dilation=2),
    G("WaveNet, dilation 512", (16000,), 64, 64, 2, padding="causal", dilation=512),
    # --- 3-D
    G("3-D U-Net", (32, 32, 32), 32, 32, 3),
    G("3-D U-Net, down", (32, 32, 32), 32, 64, 2, 2),
    G("C3D", (8, 28, 28), 64, 128, 3),
    G("R(2+1)D, spatial", (8, 56, 56), 64, 144, (1, 3, 3), (1, 2, 2)),
    # A clip of 4 frames, since the native adjoint of 32 takes minutes in JAX.
    G("ViViT tubelets", (4, 112, 112), 3, 768, (2, 16, 16), (2, 16, 16), padding="valid"),
)
