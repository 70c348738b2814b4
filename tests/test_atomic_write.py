"""Files are written in full or not at all, through no link, with the mode of what they replace."""

import os
import stat

import numpy as np
import pytest
from bad_models import good, pixels
from command_line import complains, run, run_in_new_process
from extent import EXHAUSTIVE

from keras_adjoint.atomic_write import atomic_write

pytestmark = pytest.mark.any_backend


def write(path, text="new"):
    with atomic_write(path) as beside:
        beside.write_text(text)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_there_in_full_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "file.txt"
    write(file, "first")
    with pytest.raises(ZeroDivisionError), atomic_write(file) as beside:
        beside.write_text("half of the sec")
        1 / 0  # noqa: B018
    assert file.read_text() == "first"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_leaves_its_mode(tmp_path, mode):
    file = tmp_path / "file.txt"
    file.write_text("old")
    file.chmod(mode)
    write(file)
    assert file.read_text() == "new" and mode_of(file) == mode


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_mode_that_the_mask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        write(tmp_path / "file.txt")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "file.txt") == 0o666 & ~mask


def test_while_it_is_written_nobody_else_can_open_or_plant_anything(tmp_path):
    """Names are drawn anew, and made only if they are free."""
    names = set()
    for _ in range(2):
        with atomic_write(tmp_path / "file.txt") as beside:
            assert beside.name == "file.txt" and beside.parent.parent == tmp_path
            assert mode_of(beside.parent) == 0o700 and not list(beside.parent.iterdir())
            assert str(os.getpid()) not in beside.parent.name
            names.add(beside.parent.name)
            beside.write_text("new")
    assert len(names) == 2


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_is_neither_followed_nor_replaced(tmp_path, there):
    link, precious = tmp_path / "link.txt", tmp_path / "precious.txt"
    if there:
        precious.write_text("precious")
    link.symlink_to(precious)
    with pytest.raises(FileExistsError, match="link.txt is a link, which is neither followed nor replaced"):
        write(link)
    assert link.is_symlink() and precious.exists() == there
    assert not there or precious.read_text() == "precious"


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="pipe is no regular file"):
        write(tmp_path / "pipe")
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_names_as_long_as_the_system_takes(tmp_path):
    file = tmp_path / f"{'n' * 251}.npy"
    write(file)
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


LINKED = {
    "to a file": (True, []),
    "to a file, with --force": (True, ["--force"]),
    "to nothing": (False, ["--force"]),
}


@pytest.mark.parametrize("there, options", LINKED.values(), ids=LINKED)
def test_commands_say_that_an_output_is_a_link(tmp_path, there, options):
    kernel, link, precious = tmp_path / "kernel.npy", tmp_path / "link.npy", tmp_path / "precious.npy"
    array_file(kernel)
    if there:
        precious.write_bytes(b"precious")
    link.symlink_to(precious)
    complains(run("kernel", kernel, "-o", link, *options), "is a link, which is neither followed nor replaced")
    assert link.is_symlink() and precious.exists() == there


def test_commands_write_to_names_of_250_letters_and_keep_modes(tmp_path):
    kernel, out = tmp_path / f"{'k' * 246}.npy", tmp_path / f"{'o' * 246}.npz"
    array_file(kernel)
    assert run("kernel", kernel, "-o", out).exit_code == 0
    out.chmod(0o600)
    assert run("kernel", kernel, "-o", out, "--force").exit_code == 0
    assert mode_of(out) == 0o600 and sorted(tmp_path.iterdir()) == [kernel, out]
    complains(run("kernel", kernel, "-o", tmp_path / f"{'o' * 300}.npz"), "cannot be written: File name too long.")


def array_file(file, channels=2):
    np.save(file, np.zeros((3, 3, channels, channels), "float32"))


FULL = """
import resource, signal, sys
from pathlib import Path
from keras_adjoint_cli.files.arrays import SUFFIXES as ARRAYS
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk, but for the number of the error
from keras_adjoint_cli.app import app
source, model, picture, *outputs = sys.argv[1:]
for output in outputs:
    command = ["kernel", source] if Path(output).suffix in ARRAYS else ["deconv", model, picture, "--layer", "conv"]
    try:
        app([*command, "-o", output])
    except SystemExit as error:
        assert error.code == 2, error
"""


def test_a_disk_that_is_full_is_named_by_the_file(tmp_path):
    array_file(tmp_path / "kernel.npy", 64)
    (tmp_path / "model.keras").write_bytes(good(".keras"))
    (tmp_path / "photo.png").write_bytes(pixels())
    inputs = [tmp_path / name for name in ("kernel.npy", "model.keras", "photo.png")]
    suffixes = (".npy", ".npz", ".safetensors", ".pt", ".pdf", ".svg")
    outputs = [tmp_path / f"out{suffix}" for suffix in (suffixes if EXHAUSTIVE else (".npz", ".safetensors", ".pdf"))]
    ran = run_in_new_process("-c", FULL, *inputs, *outputs)
    lines = [line for line in ran.stderr.splitlines() if line.startswith("keras-adjoint")]  # else Matplotlib's cache
    assert ran.returncode == 0 and len(lines) == len(outputs), ran.stderr
    for line, output in zip(lines, outputs, strict=True):
        assert line.startswith(f"keras-adjoint: {output} cannot be written: ") and line.endswith(".")
    assert sorted(tmp_path.iterdir()) == sorted(inputs)
