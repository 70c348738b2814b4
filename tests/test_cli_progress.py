"""What is being done is said on a terminal, in one line that is gone afterwards; elsewhere nothing is."""

import io
import sys

import keras
import pytest
from command_line import saved
from keras import layers
from test_cli_terminal import in_a_terminal

from keras_adjoint_cli import progress
from keras_adjoint_cli.progress import BAR_AFTER, Line

pytestmark = pytest.mark.any_backend
MAIN = "import sys; sys.argv[0] = 'keras-adjoint'; from keras_adjoint_cli import main; main()"


@pytest.fixture
def line(monkeypatch):
    """A line that writes nothing by itself."""
    monkeypatch.setattr(progress, "SAID_AFTER", 60)
    made = []

    def make(*arguments):
        made.append(Line(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_the_line_says_what_is_done_then_for_how_long(line):
    loading, testing = line("Loading model.keras", None), line("Testing", 8)
    assert loading.text(1.0) == "Loading model.keras …"
    assert loading.text(75.0) == "Loading model.keras … 1:15"
    for _ in range(6):
        testing.advance()
    assert testing.text(1.0) == "Testing …"
    assert testing.text(BAR_AFTER) == "Testing " + "━" * 18 + "─" * 6 + " 6 of 8, 0:02"


def test_a_name_from_outside_cannot_move_the_cursor(line):
    assert line("Loading \x1b]0;title\x07\nmodel", None).text(1.0) == "Loading ?]0;title??model …"


def test_nothing_is_said_where_nobody_sees_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.progress("Loading", 3) as advance:
        advance()
    assert sys.stderr.getvalue() == ""


def test_a_terminal_sees_every_stage_and_keeps_none(tmp_path):
    file = saved(keras.Sequential([keras.Input((9, 8, 1)), layers.Conv2D(3, 3)]), tmp_path)
    printed = in_a_terminal([sys.executable, "-c", MAIN, "check", str(file)], TERM="xterm")
    assert "\rImporting Keras …" in printed
    written, _, table = printed.rpartition("\r ")
    assert "…" not in table and "1 layer: 1 ok" in table
