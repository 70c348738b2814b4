"""The command `keras-adjoint`.

`app` has the subcommands. Each has its options and its help in `commands`, its work in `actions`, and what it prints in
`output`, in files of its name; `files` reads and writes models, arrays and scripts, and `session` surrounds the work.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

running = False  # whether this process is the command, which imports Keras once it needs it


def main() -> None:
    """Run the command, or say how to install what it needs."""
    global running
    running = True
    from keras_adjoint_cli.interruption import INTERRUPTED, stop_on_interrupt

    stop_on_interrupt()
    import importlib.util

    sys.excepthook = print_traceback  # typer keeps what is there when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend
    if importlib.util.find_spec("typer") is None:  # the other package for the terminal, rich, comes with Keras
        print('The command line needs typer: pip install "keras-adjoint[cli]"', file=sys.stderr)
        sys.exit(2)
    from keras_adjoint_cli.errors import TIMED_OUT
    from keras_adjoint_cli.streams import flush_output, tolerate_readers_that_stop

    tolerate_readers_that_stop()
    try:
        from keras_adjoint_cli.app import app

        app()
    except SystemExit as end:
        if end.code in (INTERRUPTED, TIMED_OUT):  # threads of a backend are in the middle of something, and may crash
            flush_output()
            os._exit(end.code)
        raise
    finally:
        flush_output()


def print_traceback(kind: type[BaseException], error: BaseException, where: "TracebackType | None") -> None:
    """Print what `--debug` asks for, without control characters."""
    import traceback

    from keras_adjoint_cli.printable import printable

    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, where))))
