"""How tests call the command, and what they ask of its errors."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

from typer.testing import CliRunner

from keras_adjoint_cli.app import app


def run(*arguments, **environment):
    """The command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


# Of a process of its own: it starts soonest with this backend, and takes seconds with the others.
SOONEST = {"KERAS_BACKEND": "jax"}


def run_in_new_process(*command, without=(), **environment):
    """A Python in a process of its own; variables in `without` are unset there."""
    known = {name: value for name, value in (os.environ | SOONEST).items() if name not in without}
    return subprocess.run([sys.executable, *map(str, command)], env=known | environment, capture_output=True, text=True)


def run_all_in_new_process(*commands, **environment):
    """The results of commands, one after the other in one new process."""
    script = """
import json, sys
from typer.testing import CliRunner
from keras_adjoint_cli.app import app
results = [CliRunner().invoke(app, arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in results]))
"""
    arguments = json.dumps([[str(argument) for argument in command] for command in commands])
    ran = run_in_new_process("-c", script, arguments, **environment)
    assert ran.returncode == 0, ran.stderr
    return [
        SimpleNamespace(exit_code=status, stdout=stdout, stderr=stderr)
        for status, stdout, stderr in json.loads(ran.stdout.splitlines()[-1])
    ]


def saved(model, folder, name="model.keras"):
    file = folder / name
    model.save(file)
    return file


def complains(result, about, status=2):
    """One line on standard error, nothing on standard output, and the exit status."""
    assert result.exit_code == status, result.output
    assert about in result.stderr
    assert result.stderr.startswith("keras-adjoint: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
