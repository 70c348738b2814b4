"""What `keras-adjoint apply` wrote, for people and for programs."""

from pathlib import Path
from typing import Any

import keras

from keras_adjoint.blocks.apply import Applied
from keras_adjoint_cli.actions.apply import Options
from keras_adjoint_cli.console import make_console, plural, say
from keras_adjoint_cli.printable import escape


def as_data(file: Path, array: Path, output: Path, done: Applied, options: Options) -> dict[str, Any]:
    """A dictionary for JSON."""
    return {
        "input": str(file),
        "array": str(array),
        "output": str(output),
        "backend": keras.backend.backend(),
        "adjoint": options.adjoint,
        "array_shape": done.plan.in_shape,
        "output_shape": done.plan.out_shape,
        "block": done.plan.block,
        "blocks": done.blocks,
        "computed": done.computed,
        "seconds": round(done.seconds, 3),
    }


def show(array: Path, output: Path, done: Applied, options: Options) -> None:
    """Print what was done."""
    size = "×".join(map(str, done.plan.block)) or "everything"
    before = "" if done.computed == done.blocks else f", {done.blocks - done.computed:,} of them before this run"
    shapes = " to ".join("×".join(map(str, shape)) for shape in (done.plan.in_shape, done.plan.out_shape))
    say(
        make_console(),
        f"Wrote {escape(str(output))}, {'the adjoint' if options.adjoint else 'the model'} applied to {escape(str(array))}, "
        f"{shapes}, in {plural(done.blocks, 'block')} of {size}{before}.",
    )
