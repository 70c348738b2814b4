"""A process with libraries that cannot be installed beside the others: `python -m benchmarks.solvers.worker FILE MODULE:NAMES`.

It reads the problem from the file and then does what lines of JSON ask for, [library, method of `Candidate`, arguments], and
answers each with a line of JSON.
"""

import importlib
import json
import sys

MARK = "ANSWER "  # before what is meant for the parent; libraries print, too


def main():
    """Answer until the input ends."""
    from benchmarks.solvers import problem

    path, libraries = sys.argv[1:]
    module, name = libraries.split(":")
    libraries = getattr(importlib.import_module(module), name)
    for answer in answers(problem.read(path), libraries, sys.stdin):
        print(MARK + json.dumps(answer), flush=True)


def answers(problem, libraries, lines):
    """What to answer to each line: {"found": value}, or {"failed": why}."""
    from benchmarks.solvers.candidate import Candidate

    candidates = {name: Candidate(make, problem) for name, make in libraries.items()}
    for line in lines:
        name, method, arguments = json.loads(line)
        try:
            yield {"found": getattr(candidates[name], method)(*arguments)}
        except Exception as error:  # whatever a library that does not fit raises, its row says
            yield {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


if __name__ == "__main__":
    main()
