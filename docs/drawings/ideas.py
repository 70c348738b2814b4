"""Drawings of what cannot be seen in a row of numbers: the tie, the mirror, and the form that derivatives come from."""

from canvas import EDGE, SOFT, TAPS, Drawing


def tie():
    """One variable, two readers, one copy in the file."""
    drawing = Drawing(
        "tie",
        262,
        "A convolution of the encoder holds the kernel. Its adjoint in the decoder has the convolution as its source and reads "
        "the kernel there at every call. The file stores the kernel once, and with the adjoint a reference to its source.",
    )
    for left, title, line in ((10, "conv", "A x + b"), (270, "conv_adjoint", "Aᵀ y")):
        drawing.box(left, 10, 180, 62)
        drawing.text(left + 90, 29, title, bold=True)
        drawing.text(left + 90, 54, line)
    drawing.box(145, 118, 170, 36, TAPS[0], filled=True)
    drawing.text(230, 136, "one kernel", "#ffffff", bold=True, size=18)
    drawing.line((100, 74), (190, 116), TAPS[0], width=3)
    drawing.text(78, 96, "holds", SOFT, size=14)
    drawing.line((360, 74), (270, 116), TAPS[0], width=3, dashed=True)
    drawing.text(330, 104, "reads at every call", SOFT, size=14, anchor="start")
    drawing.line((266, 41), (194, 41), EDGE, arrow=True)
    drawing.text(230, 26, "source", SOFT, size=14)
    drawing.box(10, 192, 440, 62, dashed=True)
    drawing.text(22, 210, "model.keras", SOFT, anchor="start", size=14)
    drawing.text(22, 236, "conv: kernel, bias", anchor="start")
    drawing.text(438, 236, "conv_adjoint: reference to conv", anchor="end")
    return drawing


def mirror():
    """An encoder and its mirror, layer by layer."""
    drawing = Drawing(
        "mirror",
        272,
        "The encoder goes down from the image over the layers first, pool and second to the code. Its mirror comes up from the "
        "code over second_adjoint, pool_spread and first_adjoint to output_activation. Each adjoint reads the kernel of the "
        "layer beside it. Pooling and the activation at the end are decided by policies.",
    )
    rows = (
        ("image", "output_activation", "policy"),
        ("first", "first_adjoint", "kernel"),
        ("pool", "pool_spread", "policy"),
        ("second", "second_adjoint", "kernel"),
    )
    for number, (left, right, kind) in enumerate(rows):
        top = 10 + 54 * number
        policy = kind == "policy"
        drawing.box(10, top, 160, 36)
        drawing.text(90, top + 18, left, bold=True)
        drawing.box(290, top, 160, 36, TAPS[1] if policy else TAPS[0], dashed=policy)
        drawing.text(370, top + 18, right, bold=True)
        if not policy:
            drawing.line((170, top + 18), (290, top + 18), TAPS[0], width=4)
        elif left != "image":
            drawing.line((170, top + 18), (290, top + 18), TAPS[1], dashed=True)
        if left != "image":
            drawing.text(230, top + 7, "one kernel" if kind == "kernel" else "policy", SOFT, size=14)
        drawing.line((90, top + 37), (90, top + 53), arrow=True)
        drawing.line((370, top + 53), (370, top + 37), arrow=True)
    drawing.box(10, 226, 440, 36)
    drawing.text(230, 244, "code", bold=True)
    return drawing


def form():
    """The form ⟨A x, y⟩ and its three gradients."""
    drawing = Drawing(
        "form",
        252,
        "A triangle with x, the kernel K and y at its corners, and the form in its middle. Its gradient by y is the forward, "
        "by x the adjoint, by K the gradient of the kernel.",
    )
    corners = {"K": (230, 34), "x": (56, 186), "y": (404, 186)}
    for a, b in (("K", "x"), ("x", "y"), ("y", "K")):
        drawing.line(corners[a], corners[b], width=1.5)
    drawing.text(230, 136, "⟨A x, y⟩", bold=True, size=20)
    says = {"K": "gradient of the kernel", "x": "Aᵀ y, the adjoint", "y": "A x, the forward"}
    for number, (name, (x, y)) in enumerate(corners.items()):
        drawing.box(x - 20, y - 20, 40, 40, TAPS[number], filled=True, round_by=20)
        drawing.text(x, y, name, "#ffffff", bold=True, size=18)
    drawing.text(258, 30, f"by K: {says['K']}", anchor="start", size=14)
    drawing.text(10, 228, f"by x: {says['x']}", anchor="start", size=14)
    drawing.text(450, 228, f"by y: {says['y']}", anchor="end", size=14)
    return drawing


DRAWINGS = (tie, mirror, form)
