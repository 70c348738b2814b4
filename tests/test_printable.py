"""No character of a file or its name reaches the terminal that moves the cursor, sets a title or turns a line around."""

import json
import logging
import sys
import unicodedata

import keras
import numpy as np
import pytest
from command_line import run, run_in_new_process, saved
from keras import layers

from keras_adjoint_cli.printable import escape, printable, printable_output

pytestmark = pytest.mark.any_backend
# A title, a row that is wiped, a forged row, colours, a line turned around, a bell, a C1 control, a line separator.
EVIL = "a\x1b]0;title\x07b\x1b[2K\rc\nforged row\x1b[32md\u202egpj\u2066\u200f\x9b2J\u2028e"
WHOLE = [chr(code) for code in range(sys.maxunicode + 1)]


def is_harmless(text):
    return all(one == "\n" or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in text)


def test_every_character_of_unicode():
    assert is_harmless(printable("".join(WHOLE), kept="\n"))
    assert printable("größer ≥ 3 × 4 → ⟨A x, y⟩ 日本語 🎉\n") == "größer ≥ 3 × 4 → ⟨A x, y⟩ 日本語 🎉\n"
    assert printable("\x1b[2K\u202e\udce9") == r"\x1b[2K\u202e\udce9"
    assert escape("a\nb[red]") == r"a\nb\[red]"


def test_what_others_print_while_a_command_runs(capsys):
    with printable_output():
        print(EVIL)
        sys.stderr.writelines([EVIL, EVIL])
        logging.lastResort.handle(logging.makeLogRecord({"msg": EVIL, "levelno": logging.ERROR}))
    out, err = capsys.readouterr()
    assert is_harmless(out) and is_harmless(err) and r"\x1b[2K" in out + err
    print("\x1b")
    assert capsys.readouterr().out == "\x1b\n"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A model whose layers have the name above, and files of a name like it."""
    folder = tmp_path_factory.mktemp("printable")
    image = keras.Input((6, 6, 2), name=EVIL + "i")
    features = layers.Conv2D(2, 3, name=EVIL)(image)
    folded = layers.Conv2D(2, 3, activation="relu", name=EVIL + "2")(features)
    file = saved(keras.Model(image, layers.LSTM(2, name=EVIL + "3")(layers.Reshape((4, 2))(folded))), folder)
    file = file.rename(folder / f"{EVIL}.keras")
    np.savez(folder / f"{EVIL}.npz", **{EVIL: np.zeros((3, 3, 2, 2), "float32")})
    (folder / f"{EVIL}.py").write_text(
        "import keras, numpy as np\n"
        'conv = keras.layers.Conv2D(4, 3, strides=2, name="\u202e\x1b[31m")  # \u202e\x1b[2K\n'
        'up = keras.layers.Conv2DTranspose(4, 3, strides=2, weights=[conv.kernel.T], name="\u202e\x1b[31m")  # \x1b[1A\n',
        encoding="utf-8",
    )
    return folder


def commands(folder):
    model, arrays, script = (folder / f"{EVIL}{suffix}" for suffix in (".keras", ".npz", ".py"))
    out = folder / f"out{EVIL}"
    yield "inspect", model
    yield "check", model
    yield "spectrum", model
    yield "spectrum", model, "--layer", "\x1b[2K\u202e"
    yield "spectrum", model, "--size", "\x1b[2K\u202e"
    yield "doctor", model
    yield "doctor", script
    yield "mirror", model, "-o", f"{out}.keras", "--policy", "activation=\x1b[2K"
    yield "mirror", model, "-o", f"{out}.keras", "--every-layer"
    yield "report", model, "-o", f"{out}.html"
    yield "kernel", arrays, "-o", f"{out}.npy", "--kind", "flip"
    yield "kernel", arrays, "-o", f"{out}2.npy", "--key", "\x1b[2K\u202e"
    yield "deconv", model, folder / "\x1b.png", "--layer", "\x1b[2K", "-o", f"{out}.png"
    yield "inspect", folder / f"missing{EVIL}.keras"
    yield "inspect", model, "--import", "\x1b[2K\u202e"
    yield "inspect", model, "--batch", "\x1b[2K\u202e"
    yield ("\x1b[2K\u202e",)


def test_names_in_every_command(named):
    for command in commands(named):
        result = run(*command)
        assert is_harmless(result.stdout) and is_harmless(result.stderr), (command, result.output)
        assert not any(line.startswith("forged") for line in result.output.splitlines()), (command, result.output)


def test_a_report_turns_no_line_around_and_runs_nothing(named):
    out = named / "page.html"
    assert run("report", named / f"{EVIL}.keras", "-o", out, "--force").exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert is_harmless(page) and "forged row" in page and "\\u202e" in page


def test_json_stays_exact(named):
    result = run("inspect", named / f"{EVIL}.keras", "--json")
    assert is_harmless(result.stdout)
    assert EVIL in [layer["layer"] for layer in json.loads(result.stdout)["layers"]]


def test_the_traceback_of_debug_is_printable(named):
    file = named / f"missing{EVIL}.keras"
    ran = run_in_new_process("-c", "from keras_adjoint_cli import main; main()", "inspect", file, "--debug")
    assert "Traceback" in ran.stderr and is_harmless(ran.stderr) and ran.returncode == 1, ran.stderr
