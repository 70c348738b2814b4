"""What all commands have in common: help, colour, completion, interruption."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile

import keras
import pytest
from command_line import SOONEST, run, run_in_new_process, saved
from keras import layers

from keras_adjoint.models.policy_names import NAMES
from keras_adjoint_cli.app import app
from keras_adjoint_cli.console import PrintableConsole, say
from keras_adjoint_cli.options import LARGEST_CONFIG
from keras_adjoint_cli.options import layers as complete_layers
from keras_adjoint_cli.options import policies as complete_policies

pytestmark = pytest.mark.any_backend
COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def model():
    image = keras.Input((9, 8, 1))
    block = keras.Sequential([keras.Input((7, 6, 3)), layers.Conv2D(3, 3, name="conv2")], name="block")
    return keras.Model(image, block(layers.Conv2D(3, 3, name="conv1")(image)))


def plain(text):
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", "", text).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_the_debug_option(command):
    text = plain(run(command, "--help").stdout)
    assert "Examples:" in text and f"keras-adjoint {command}" in text
    assert "--debug" in text


@pytest.mark.parametrize("command", ["inspect", "check", "spectrum", "mirror", "kernel", "deconv"])
def test_help_says_what_the_exit_status_means_and_there_is_json(command):
    text = plain(run(command, "--help").stdout)
    assert re.search("[Ee]xit status", text) and "--json" in text


def test_the_commands_are_listed():
    text = plain(run("--help").stdout)
    for command in COMMANDS:
        assert f" {command} " in text


def test_no_colour_outside_of_a_terminal_or_where_it_is_turned_off(tmp_path):
    file = saved(model(), tmp_path)
    assert "\x1b[" not in run("inspect", file).stdout
    script = """
import os
from keras_adjoint_cli.app import app
for wish in ("", "1"):
    os.environ["NO_COLOR"] = wish
    app(standalone_mode=False)
    print("end of the output")
"""
    coloured, colourless, _ = in_a_terminal([sys.executable, "-c", script, "inspect", str(file)], TERM="xterm").split(
        "end of the output"
    )
    assert "\x1b[32m" in coloured
    assert "conv1" in colourless and not re.search(r"\x1b\[[0-9;]*3[0-7]m", colourless)


def in_a_terminal(command, **environment):
    """What a command prints on a terminal of its own."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=os.environ | SOONEST | environment) as process:
        os.close(follower)
        output = b""
        while True:
            try:
                data = os.read(leader, 4096)
            except OSError:  # the terminal was closed at the other end
                break
            if not data:
                break
            output += data
    os.close(leader)
    assert process.returncode == 0, output.decode()
    return output.decode()


def test_sentences_go_on_at_a_space_and_long_words_stay_whole():
    stream = io.StringIO()
    console = PrintableConsole(file=stream, force_terminal=True, width=30, color_system=None)
    path = "a/path/that/is/longer/than/the/terminal.keras"
    say(console, f"  fix    [bold]either[/] of these two is another network: {path} as well", "short", indent=9)
    first, *others, path_line, last, short = stream.getvalue().splitlines()
    assert all(len(line) <= 30 and line == line.rstrip() for line in (first, *others, last))
    assert (path_line, last, short) == (" " * 9 + path, " " * 9 + "as well", "short")
    assert " ".join(" ".join((first, *others)).split()) == "fix either of these two is another network:"


def test_completion_of_policies():
    assert complete_policies("no") == ["norm="]
    assert complete_policies("norm:bn=") == [f"norm:bn={choice}" for choice in NAMES["norm"]]
    assert complete_policies("pooling=sw") == ["pooling=switches"]
    assert complete_policies("unknown=") == []


def test_completion_of_layers_reads_names_without_loading(tmp_path):
    class Context:
        args = ("photo.jpg", str(saved(model(), tmp_path)))

    assert complete_layers(Context, "") == ["conv1", "block", "conv2"]
    assert complete_layers(Context, "c") == ["conv1", "conv2"]
    (tmp_path / "model.keras").write_text("kernels")
    assert complete_layers(Context, "") == []
    Context.args = ()
    assert complete_layers(Context, "") == []


def test_completion_offers_no_name_that_a_shell_could_run_or_print_as_something_else(tmp_path):
    """Neither does it wait for a named pipe, or read a bomb."""
    file, evil = (
        tmp_path / "model.keras",
        ["$(touch evil)", "\\$(touch evil)", "`evil`", "a\x1b]0;b\x07", "a\nb", "a b", "--force"],
    )
    layers = [{"class_name": "Dense", "config": {"name": name}} for name in [*evil, "block/conv-1.a"]]

    def offered(layers, padding=""):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", json.dumps({"config": {"layers": layers}}) + padding)
        return complete_layers(Context, "")

    class Context:
        args = (str(tmp_path / "pipe.keras"), str(file))

    os.mkfifo(tmp_path / "pipe.keras")
    assert offered(layers) == ["block/conv-1.a"]
    assert offered([3]) == offered(layers, padding=" " * LARGEST_CONFIG) == []


def test_the_shell_is_offered_what_is_completed(tmp_path):
    """As bash asks for the words behind `keras-adjoint deconv FILE --layer c`."""
    file = saved(model(), tmp_path)
    words = f"keras-adjoint deconv {file} --layer c"
    environment = {"_KERAS_ADJOINT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
    script = "import sys; sys.argv = ['keras-adjoint']; from keras_adjoint_cli import main; main()"
    result = run_in_new_process("-c", script, **environment)
    assert result.stdout.split() == ["conv1", "conv2"], result.stderr


def test_control_c_ends_with_one_line_and_no_file(tmp_path):
    """Pressed while the model is written."""
    file, out = saved(model(), tmp_path), tmp_path / "out.keras"
    script = f"""
import signal, sys, time
import keras
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background does not have
def save(self, path):
    path.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
keras.Model.save = save
sys.argv = ["keras-adjoint", "mirror", {str(file)!r}, "-o", {str(out)!r}]
from keras_adjoint_cli import main
main()
"""
    environment = os.environ | SOONEST
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True, env=environment) as process:
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("keras-adjoint: interrupted")
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_that_stops_is_no_error(tmp_path):
    file = saved(model(), tmp_path)
    command = f"{sys.executable} -m keras_adjoint inspect {file} --json | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ | SOONEST)
    assert result.stdout == "{\n"
    assert "Traceback" not in result.stderr and "Errno" not in result.stderr
