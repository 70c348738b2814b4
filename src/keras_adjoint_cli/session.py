"""What surrounds the work of every command: an end in one line whatever happens, a time limit, and the import of Keras."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from keras_adjoint_cli.errors import (
    FAILED,
    TIMED_OUT,
    UNUSABLE,
    Failed,
    OutputLost,
    Unusable,
    message_of,
    print_error,
    print_traceback,
)
from keras_adjoint_cli.interruption import INTERRUPTED, interruptible, not_interruptible
from keras_adjoint_cli.printable import printable_output
from keras_adjoint_cli.progress import clear_line, progress, write_raw

BACKENDS = ("tensorflow", "jax", "torch")
GRACE = 3.0  # seconds for the work to clean up in, after the time limit


class TimedOut(BaseException):
    """The time limit is over. No library takes it for an error of its own."""


NO_PART_OF_A_FILE = "no file is left half-written"  # as by most commands


@contextmanager
def session(*, debug: bool = False, timeout: float | None = None, left: str = NO_PART_OF_A_FILE) -> Iterator[None]:
    """Let a command work, and turn every exception into one line and an exit status.

    Args:
        debug: Whether to show where exceptions come from.
        timeout: Seconds after which the work is stopped, if any.
        left: What a run that is stopped leaves behind.
    """
    try:
        with printable_output(), time_limit(timeout, left), interruptible():
            yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        if debug:
            print_traceback(error)
        print_error(f"interrupted; {left}")
        raise typer.Exit(INTERRUPTED) from error
    except TimedOut as error:
        print_error(out_of_time(timeout, left))
        raise typer.Exit(TIMED_OUT) from error
    except OutputLost as error:
        raise typer.Exit(UNUSABLE) from error
    except Exception as error:
        if debug:
            raise
        print_error(message_of(error))
        raise typer.Exit(FAILED if isinstance(error, Failed) else UNUSABLE) from error


# --- Keras


def start_keras() -> None:
    """Import Keras and the library, or say in one line why that cannot be."""
    from keras_adjoint import import_library
    from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out

    if "keras" not in sys.modules:
        check_backend()
    try:
        with progress("Importing Keras"), not_interruptible():
            import_library()
            keep_tensorflow_out()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise Unusable(f"Keras cannot be imported: {type(error).__name__}: {reason}") from error


def check_backend() -> None:
    """Raise an `Unusable` unless the backend that Keras will use exists and is installed."""
    from keras_adjoint.default_backend import configured_backend, is_installed, settle_backend

    settle_backend()
    asked = os.environ.get("KERAS_BACKEND")
    backend = asked or configured_backend()
    installed = [name for name in BACKENDS if is_installed(name)]
    if not installed:
        raise Unusable('No backend of Keras is installed. Install one: pip install "keras-adjoint[jax]"')
    if backend not in BACKENDS:
        raise Unusable(
            f"The backends are {', '.join(BACKENDS)}, of which {', '.join(installed)} can be imported here. "
            f"Received: {'KERAS_BACKEND=' if asked else 'in keras.json '}{backend}"
        )
    if backend not in installed:
        raise Unusable(
            f'{backend} is not installed: pip install "keras-adjoint[{backend}]", or use {" or ".join(installed)}. '
            f"Received: KERAS_BACKEND={backend}"
        )


# --- the time limit


def out_of_time(timeout: float | None, left: str) -> str:
    return f"stopped after {timeout:g} s, the time limit; {left}"


@contextmanager
def time_limit(seconds: float | None, left: str = NO_PART_OF_A_FILE) -> Iterator[None]:
    """Raise `TimedOut` in what runs inside after some seconds; end the process if that does not help."""
    if seconds is None or seconds > threading.TIMEOUT_MAX:  # centuries
        yield
        return
    main, ended, alarm = threading.main_thread(), threading.Event(), getattr(signal, "SIGALRM", None)

    def watch() -> None:
        if ended.wait(seconds):
            return
        if alarm is not None and main.ident is not None:
            signal.pthread_kill(main.ident, alarm)
            if ended.wait(GRACE):
                return
        clear_line()
        write_raw(f"keras-adjoint: {out_of_time(seconds, left)}\n")
        os._exit(TIMED_OUT)

    before = None if alarm is None else signal.signal(alarm, give_up)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        if alarm is not None:
            signal.signal(alarm, before)


def give_up(signum: int, frame: FrameType | None) -> None:
    raise TimedOut
