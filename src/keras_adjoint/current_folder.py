"""Keep `python -m keras_adjoint` from importing what lies in the current folder. Imports what Python has imported already.

Python puts the current folder first on `sys.path` for `-m`, so that a file `numpy.py` there would be run in place of NumPy.
"""

import os
import sys


def leave_out_current_folder(package: str) -> None:
    """Take the current folder off `sys.path` while `python -m` imports a package, unless the package itself is in it.

    Args:
        package: The `__file__` of the package.
    """
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:  # Python has "-m" there until it runs the module
        return
    named = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)]  # what stands before the module's own arguments
    names = (__package__, f"{__package__}.__main__")
    is_meant = named in names or named.startswith("-") and named.endswith(tuple(f"m{name}" for name in names))
    if is_meant and os.path.dirname(os.path.dirname(os.path.abspath(package))) != sys.path[0]:
        del sys.path[0]
