"""The rule "checkerboard": a stride that does not divide the kernel of a transposed convolution.

Output position p collects the taps t with t·dilation ≡ p modulo the stride. Where the stride does not divide the kernel,
some positions collect more taps than their neighbours, in the pattern of a checkerboard (Odena, Dumoulin and Olah 2016,
"Deconvolution and Checkerboard Artifacts").
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint.doctor.models.context import ModelContext
from keras_adjoint.doctor.rules import CHECKERBOARD
from keras_adjoint.doctor.scripts.values import CallEvent, Layer
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.models.text import size_text

if TYPE_CHECKING:
    from keras_adjoint.doctor.scripts.flow import Script

L = keras.layers


@dataclass(frozen=True)
class Coverage:
    """The fewest and the most taps that an output position collects, away from the edges."""

    least: int
    most: int

    @property
    def is_even(self) -> bool:
        return self.least == self.most

    @property
    def ratio(self) -> float | None:
        """How many times more taps some positions collect than others; `None` if others collect none."""
        return self.most / self.least if self.least else None

    def __str__(self) -> str:
        if self.ratio is None:
            return f"some output positions collect taps, at most {self.most}, and others none, so that they hold the bias alone"
        return (
            f"an output position collects between {self.least} and {self.most} taps, some {self.ratio:.3g} times as many as "
            f"their neighbours"
        )

    def figures(self) -> dict[str, Any]:
        return {"least_taps": self.least, "most_taps": self.most, "ratio": self.ratio}


def coverage(taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Coverage:
    """The `Coverage` of a kernel; one number per axis in each argument."""
    counts = [taps_by_phase(*axis) for axis in zip(taps, strides, dilation, strict=True)]
    return Coverage(math.prod(map(min, counts)), math.prod(map(max, counts)))


def taps_by_phase(taps: int, stride: int, dilation: int) -> list[int]:
    """How many taps reach each of `stride` neighbouring output positions."""
    count = Counter(tap * dilation % stride for tap in range(taps))
    return [count[phase] for phase in range(stride)]


def even_taps(taps: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The smallest kernel that is no smaller than `taps` and that the strides divide."""
    return tuple(-(-count // stride) * stride for count, stride in zip(taps, strides, strict=True))


def find_in_model(context: ModelContext) -> Iterator[Finding[Any]]:
    """A finding for every transposed convolution, adjoints included, that covers its output unevenly."""
    for place, layer in context.layers:
        if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
            owner, subject = layer, "it"
        elif isinstance(layer, AdjointConv):
            owner, subject = layer.source, f"its source `{layer.source.name}`"
        else:
            continue
        taps, strides = tuple(owner.kernel_size), tuple(owner.strides)
        covered = coverage(taps, strides, owner.dilation_rate)
        if not covered.is_even:
            yield Finding(
                place=place,
                rule=CHECKERBOARD.name,
                severity=NOTE,
                what=f"its stride {size_text(strides)} does not divide its kernel {size_text(taps)}",
                effect=str(covered),
                fix=(
                    f"give {subject} a kernel of {size_text(even_taps(taps, strides))} and train again, or enlarge by "
                    f"`UpSampling` and convolve at stride 1"
                ),
                figures=covered.figures(),
            )


def find_in_script(script: "Script") -> Iterator[Finding[Any]]:
    """A finding for every new `Conv*Transpose` that covers its output unevenly, as far as its options are literals."""
    for event in script.events:
        layer = event.result if isinstance(event, CallEvent) else None
        if not isinstance(event, CallEvent) or not isinstance(layer, Layer) or layer.family != "ConvTranspose":
            continue
        taps, strides = layer.per_axis("kernel_size", None), layer.per_axis("strides", 1)
        dilation = layer.per_axis("dilation_rate", 1)
        if taps is None or strides is None or dilation is None or min(*taps, *strides, *dilation) < 1:
            continue
        covered = coverage(taps, strides, dilation)
        if not covered.is_even:
            even = even_taps(taps, strides)
            written = str(even[0] if len(set(even)) == 1 else even)
            node, _ = event.keywords.get("kernel_size") or event.arguments[1]
            yield Finding(
                place=script.place(event.node),
                rule=CHECKERBOARD.name,
                severity=NOTE,
                what=f"the stride {size_text(strides)} does not divide the kernel {size_text(taps)}",
                effect=str(covered),
                fix=(
                    f"`kernel_size={written}`, or `UpSampling{layer.rank}D` with a convolution at stride 1 (by hand: "
                    f"either is another network)"
                ),
                figures=covered.figures(),
                code=script.lines_after(script.edit(node, written)),
            )
