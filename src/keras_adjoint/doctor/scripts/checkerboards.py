"""Transposed convolutions whose stride does not divide their kernel, where both are literals."""

from keras_adjoint.doctor.coverage import coverage, even_taps, times
from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint.doctor.scripts.events import Called
from keras_adjoint.doctor.scripts.values import Layer

NAME = "checkerboard"


def find(script):
    """A finding for every new `Conv*Transpose` that covers its output unevenly."""
    for event in script.events:
        layer = event.result if isinstance(event, Called) else None
        if not isinstance(layer, Layer) or layer.family != "ConvTranspose":
            continue
        taps, strides = layer.per_axis("kernel_size", None), layer.per_axis("strides", 1)
        dilation = layer.per_axis("dilation_rate", 1)
        if None in (taps, strides, dilation) or min(*taps, *strides, *dilation) < 1:
            continue
        covered = coverage(taps, strides, dilation)
        if not covered.is_even:
            even = even_taps(taps, strides)
            written = str(even[0] if len(set(even)) == 1 else even)
            keywords = {keyword.arg: keyword.value for keyword in event.node.keywords}
            node = keywords.get("kernel_size") or event.node.args[1]
            yield Finding(
                place=script.place(event.node),
                illness=NAME,
                severity=NOTE,
                what=f"the stride {times(strides)} does not divide the kernel {times(taps)}",
                effect=str(covered),
                fix=(
                    f"`kernel_size={written}`, or `UpSampling{layer.rank}D` with a "
                    f"convolution at stride 1 (by hand: either is another network)"
                ),
                figures=covered.figures(),
                code=script.lines_after(script.replace(node, written)),
            )
