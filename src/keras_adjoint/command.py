"""Whether this process is the command `keras-adjoint`, which imports Keras once it needs it. Imports nothing."""

import re
import sys


def runs_the_command() -> bool:
    """Whether the command line has started this process."""
    return getattr(sys.modules.get("keras_adjoint_cli"), "running", False) or started_by_name()


def started_by_name() -> bool:
    """Whether this is `python -m keras_adjoint`, which imports the package before the command in it."""
    if sys.argv[:1] != ["-m"]:  # as long as Python looks for the module
        return False
    return re.fullmatch(r"(-\w*m)?keras_adjoint", sys.orig_argv[-len(sys.argv)]) is not None
