"""The rule "checkerboard" in scripts."""

from collections.abc import Iterator
from typing import Any

from keras_adjoint.doctor.checkerboards import coverage, even_taps
from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint.doctor.rules import CHECKERBOARD
from keras_adjoint.doctor.scripts.flow import Script
from keras_adjoint.doctor.scripts.values import CallEvent, Layer
from keras_adjoint.models.text import size_text


def find_checkerboards(script: Script) -> Iterator[Finding[Any]]:
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
