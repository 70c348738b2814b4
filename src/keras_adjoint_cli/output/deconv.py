"""What `keras-adjoint deconv` has seen, for people and for programs."""

from rich.markup import escape

from keras_adjoint.models.text import size_text
from keras_adjoint_cli.output.console import make_console, print_json
from keras_adjoint_cli.output.tables import print_table


def report(model, photograph, file, seen, *, as_json):
    """Print the features and what was written."""
    if as_json:
        print_json(as_data(model, photograph, file, seen))
        return
    console = make_console()
    rows = [
        (str(number), str(one.channel), f"{one.strength:.3g}", size_text(one.unit), place(one.box))
        for number, one in enumerate(seen.features, 1)
    ]
    columns = ("number", "channel", "strength", "unit", "pixels: left, top, width × height")
    print_table(console, columns, rows, numbers=("number", "channel", "strength"))
    height, width = seen.photograph.shape[:2]
    low, high = seen.range
    console.print(f"The model saw {width} × {height} pixels from {low:g} to {high:g}; --range says otherwise.")
    console.print(f"Wrote {escape(str(file))}", soft_wrap=True)


def as_data(model, photograph, file, seen):
    """A dictionary for JSON."""
    features = [
        {"channel": one.channel, "unit": one.unit, "strength": one.strength, "box": one.box} for one in seen.features
    ]
    return {
        "model": str(model),
        "photograph": str(photograph),
        "file": str(file),
        "layer": seen.layer,
        "range": seen.range,
        "size": seen.photograph.shape[:2],
        "features": features,
    }


def place(box):
    top, left, bottom, right = box
    return f"{left}, {top}, {right - left} × {bottom - top}"
