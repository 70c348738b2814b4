"""Processes that share what their parent has imported, but no framework that has begun to compute."""

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 240


def start(function: Callable[..., Any], *arguments: Any, out: Path) -> int:
    """Call a function in a new process, write what it returns as JSON, and give the number of the process."""
    child = os.fork()
    if child:
        return child
    signal.alarm(SECONDS)
    status = 1
    try:
        out.write_text(json.dumps(function(*arguments)))
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def wait(child: int) -> int:
    """The exit status of a process, or the negative number of the signal that ended it."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
