"""Standard output and error, whose readers may stop before the end, as `head` does, and whose disk may be full."""

import io
import os
import sys
from typing import Any

from keras_adjoint_cli.errors import UNUSABLE, OutputLost, print_error


class Pipe(io.FileIO):
    """A file descriptor to write to; what is written after its reader has stopped is lost without an error.

    Attributes:
        lost: Why something could not be written, or "".
        tells: Whether other errors are raised. Where standard error is lost, there is nowhere to say so.
    """

    lost = ""
    tells = True

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes
        except OSError as error:
            if not self.tells:
                return memoryview(data).nbytes
            Pipe.lost = str(error.strerror)
            raise OutputLost(Pipe.lost) from error


def tolerate_readers_that_stop() -> None:
    """Let the command go on to its end, with the exit status of its work, when nobody reads or could read what it prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the process began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for as long as the process lives
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.flush()
            pipe = Pipe(os.dup(stream.fileno()), "w")
            pipe.tells = name == "stdout"
            raw = io.BufferedWriter(pipe)
            errors = "replace" if name == "stdout" else stream.errors
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, errors, line_buffering=name == "stderr"))
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # the help has letters that some terminals have not


def flush_output() -> None:
    """Write what is left to write, or say in one line why that, or what came before, could not be written."""
    lost = Pipe.lost
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, OutputLost) as error:
        lost = Pipe.lost or str(error)
    if lost:
        sys.stdout = None  # or Python would try once more, and show a traceback
        print_error(f"standard output cannot be written to: {lost}")
        sys.exit(UNUSABLE)
