"""Whether this process is the command `keras-adjoint`, which imports Keras once it needs it, and nothing from where it is.

Imports nothing that Python has not imported before: for `-m` the current folder stands first on `sys.path`, so that a file
`re.py` there would be run in place of Python's own.
"""

import os
import sys

NAMES = ("keras_adjoint", "keras_adjoint.__main__")


def runs_the_command() -> bool:
    """Whether the command line has started this process."""
    return getattr(sys.modules.get("keras_adjoint_cli"), "running", False) or started_by_name()


def started_by_name() -> bool:
    """Whether this is `python -m keras_adjoint`, which imports the package before the command in it."""
    if sys.argv[:1] != ["-m"]:  # as long as Python looks for the module
        return False
    named = sys.orig_argv[-len(sys.argv)]  # what stands before the module's own arguments
    return named in NAMES or named.startswith("-") and named.endswith(tuple(f"m{name}" for name in NAMES))


def leave_out_current_folder(package: str) -> None:
    """Take the current folder off `sys.path` where `python -m` has put it, unless the package itself is in it.

    Args:
        package: The `__file__` of the package.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(package)))
    if started_by_name() and not sys.flags.safe_path and sys.path[0] != home:
        del sys.path[0]
