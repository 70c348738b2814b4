"""How tests call the command, and what they ask of its errors."""

import os
import subprocess
import sys

from typer.testing import CliRunner

from keras_adjoint_cli.app import app


def run(*arguments, **environment):
    """The command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def run_in_new_process(*command, without=(), **environment):
    """A Python in a process of its own; variables in `without` are unset there."""
    known = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run([sys.executable, *map(str, command)], env=known | environment, capture_output=True, text=True)


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
