"""`keras-adjoint kernel`: the same arrays as the library makes, in every kind of file, and nothing else touched."""

import json
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from command_line import complains, run
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend
GENERATOR = np.random.default_rng(0)
KERNEL = GENERATOR.normal(size=(6, 5, 3, 4)).astype("float32")  # OHWI
ARRAYS = {
    "conv.weight": KERNEL,
    "conv.bias": np.arange(6.0),
    "dense.weight": np.ones((2, 3), "float16"),
    "steps": np.array(7),
}
EXPECTED = ka.convert_layout(KERNEL, "OHWI", "HWIO")
LAYOUTS = ("--from", "OHWI", "--to", "HWIO")


def write(arrays, file):
    if file.suffix == ".npz":
        np.savez(file, **arrays)
    elif file.suffix == ".safetensors":
        save_file(arrays, file)
    else:
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, file)
    return file


def read(file):
    if file.suffix == ".npz":
        return dict(np.load(file))
    if file.suffix == ".safetensors":
        return load_file(file)
    return {name: tensor.numpy() for name, tensor in torch.load(file, weights_only=True).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("target", [".npz", ".safetensors", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("source", [".npz", ".safetensors", ".pt"])
def test_every_kind_of_file_becomes_every_other(source, target, tmp_path):
    file, out = write(ARRAYS, tmp_path / f"in{source}"), tmp_path / f"out{target}"
    result = run("kernel", file, "-o", out, *LAYOUTS)
    assert result.exit_code == 0, result.output
    assert_same(read(out), {**ARRAYS, "conv.weight": EXPECTED})
    assert "3 arrays carried over unchanged: 1 with 0 axes, 1 with 1 axis, 1 with 2 axes" in result.stdout


def test_a_single_array(tmp_path):
    np.save(tmp_path / "in.npy", KERNEL)
    assert run("kernel", tmp_path / "in.npy", "-o", tmp_path / "out.npy", *LAYOUTS).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), EXPECTED)


@pytest.mark.parametrize("kind", ["conv_transpose", "conv", "flip", "swap_spatial", "swap_channels"])
def test_kinds_groups_and_layouts_together(kind, tmp_path):
    """The layout is converted first; the kind and its groups are those of the library in the new layout."""
    file = write({"kernel": KERNEL}, tmp_path / "in.npz")
    options = [*LAYOUTS, "--kind", kind, "--groups", 2]
    assert run("kernel", file, "-o", tmp_path / "out.npz", *options).exit_code == 0
    expected = ka.transpose_kernel(EXPECTED, kind, layout="HWIO", groups=2)
    np.testing.assert_array_equal(read(tmp_path / "out.npz")["kernel"], expected)


def test_channels(tmp_path):
    kernels = {"one": GENERATOR.normal(size=(3, 4, 6)), "two": GENERATOR.normal(size=(3, 3, 4, 6))}
    file = write(kernels, tmp_path / "in.npz")
    options = ["--in-channels", 2, "--out-channels", 3, "--method", "average"]
    assert run("kernel", file, "-o", tmp_path / "out.npz", *options).exit_code == 0
    found = read(tmp_path / "out.npz")
    for name, layout in (("one", "WIO"), ("two", "HWIO")):  # without a layout, Keras' own for the number of axes
        expected = ka.adapt_channels(kernels[name], in_channels=2, out_channels=3, method="average", layout=layout)
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("source", [".safetensors", ".pt"])
@pytest.mark.parametrize("target", [".safetensors", ".pt"])
def test_bfloat16_stays_bfloat16(source, target, tmp_path):
    tensors = torch.from_numpy(KERNEL).bfloat16()
    file, out = tmp_path / f"in{source}", tmp_path / f"out{target}"
    if source == ".pt":
        torch.save({"kernel": tensors}, file)
    else:
        save_file({"kernel": KERNEL.astype(ml_dtypes.bfloat16)}, file)
    assert run("kernel", file, "-o", out, *LAYOUTS, "--kind", "flip").exit_code == 0
    expected = ka.transpose_kernel(EXPECTED, "flip").astype(ml_dtypes.bfloat16)
    if target == ".pt":
        found = torch.load(out, weights_only=True)["kernel"]
        assert found.dtype == torch.bfloat16
        np.testing.assert_array_equal(found.float().numpy(), expected.astype("float32"))
    else:
        found = load_file(out)["kernel"]
        assert found.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(found, expected)


def test_numbers_may_have_another_order_of_bytes(tmp_path):
    np.save(tmp_path / "in.npy", KERNEL.astype(KERNEL.dtype.newbyteorder()))
    for suffix in (".npy", ".safetensors", ".pt"):
        assert run("kernel", tmp_path / "in.npy", "-o", tmp_path / f"out{suffix}", *LAYOUTS).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), EXPECTED)
    np.testing.assert_array_equal(load_file(tmp_path / "out.safetensors")["array"], EXPECTED)
    np.testing.assert_array_equal(torch.load(tmp_path / "out.pt", weights_only=True), EXPECTED)


def test_a_dtype_that_numpy_files_forget_is_refused(tmp_path):
    file = tmp_path / "in.safetensors"
    save_file({"kernel": KERNEL.astype(ml_dtypes.bfloat16)}, file)
    complains(run("kernel", file, "-o", tmp_path / "out.npz", *LAYOUTS), "do not store the dtype bfloat16 of kernel")
    assert list(tmp_path.iterdir()) == [file]


def test_state_dicts_keep_their_structure_and_whatever_is_no_array(tmp_path):
    checkpoint = {"epoch": 3, "model": {"conv.weight": torch.from_numpy(KERNEL)}, "schedule": {}, "losses": [0.5, 0.25]}
    torch.save(checkpoint, tmp_path / "in.pth")
    assert run("kernel", tmp_path / "in.pth", "-o", tmp_path / "out.pth", *LAYOUTS).exit_code == 0
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    np.testing.assert_array_equal(found["model"].pop("conv.weight").numpy(), EXPECTED)
    assert found == {"epoch": 3, "model": {}, "schedule": {}, "losses": [0.5, 0.25]}
    result = run("kernel", tmp_path / "in.pth", "-o", tmp_path / "out.npz", *LAYOUTS, "--json")
    assert json.loads(result.stdout)["left_out"] == ["epoch", "schedule", "losses"]


def test_the_text_beside_the_arrays_is_kept(tmp_path):
    save_file({"kernel": KERNEL}, tmp_path / "in.safetensors", metadata={"format": "pt"})
    assert run("kernel", tmp_path / "in.safetensors", "-o", tmp_path / "out.safetensors", *LAYOUTS).exit_code == 0
    with safe_open(tmp_path / "out.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_keys_and_patterns(tmp_path):
    arrays = {"a.weight": KERNEL, "b.weight": KERNEL, "b.bias": np.zeros(6), "c.weight": KERNEL}
    file = write(arrays, tmp_path / "in.npz")
    for keys, rearranged in ((["a.weight"], {"a.weight"}), (["b.*", "c.weight"], {"b.weight", "c.weight"})):
        options = [option for key in keys for option in ("--key", key)]
        result = run("kernel", file, "-o", tmp_path / "out.npz", "--force", *LAYOUTS, *options)
        assert result.exit_code == 0, result.output
        assert_same(read(tmp_path / "out.npz"), arrays | dict.fromkeys(rearranged, EXPECTED))


def test_a_name_that_numpy_itself_does_not_take(tmp_path):
    save_file({"file": KERNEL}, tmp_path / "in.safetensors")
    assert run("kernel", tmp_path / "in.safetensors", "-o", tmp_path / "out.npz").exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "out.npz")["file"], KERNEL)


def test_names_that_differ_by_the_ending_of_numpy_are_two_arrays(tmp_path):
    both = {"a": KERNEL, "a.npy": np.zeros(3)}
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        for name, array in both.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.save(entry, array)
    assert run("kernel", tmp_path / "in.npz", "-o", tmp_path / "out.safetensors").exit_code == 0
    assert_same(load_file(tmp_path / "out.safetensors"), both)


def test_a_file_with_two_arrays_of_one_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for array in (KERNEL, np.zeros(3)):
            with archive.open("a.npy", "w") as entry:
                np.save(entry, array)
    complains(run("kernel", tmp_path / "in.npz", "-o", tmp_path / "out.npz"), "more than one array of the name a")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--from", "OHWI", "--to", "DWIO"], "must name the same axes"),
        (["--from", "ABCD"], "A layout names each axis"),
        (["--to", "HWIO"], "Say which layout the kernels have now"),
        (
            ["--from", "WIO"],
            "No array has 3 axes, as WIO has. The arrays there are: 1 with 0, 1 with 1, 1 with 2, 1 with 4",
        ),
        (["--kind", "transposed"], '`kind` must be one of "conv_transpose", "conv", "flip"'),
        (["--in-channels", "8", "--method", "copy"], '`method` must be one of "repeat", "average"'),
        (["--in-channels", "8", "--method", "average"], "conv.weight: `method='average'` cannot make more channels"),
        (["--in-channels", str(10**12)], "conv.weight: there is not enough memory for what the options make of it"),
        (["--groups", "2"], "--groups are those of a --kind"),
        (["--kind", "conv", "--groups", "3"], "`groups` must divide the filters"),
        (["--kind", "conv", "--key", "conv.wieght"], "no array of the name conv.wieght, but conv.weight"),
        (["--kind", "conv", "--key", "conv.bias"], "conv.bias: The layout names 4 axes"),
    ],
)
def test_wrong_options(options, answer, tmp_path):
    file = write(ARRAYS, tmp_path / "in.npz")
    complains(run("kernel", file, "-o", tmp_path / "out.npz", *options), answer)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"no arrays here, only words " * 9, "truncated"])
def test_files_that_hold_no_arrays(content, suffix, tmp_path):
    file = tmp_path / f"in{suffix}"
    if content == "truncated":
        np.save(file, KERNEL) if suffix == ".npy" else write(ARRAYS, file)
        content = file.read_bytes()[:-150]
    file.write_bytes(content)
    complains(run("kernel", file, "-o", tmp_path / "out.npz", *LAYOUTS), "in" + suffix)
    assert list(tmp_path.iterdir()) == [file]


def test_files_that_could_run_code_are_not_loaded(tmp_path):
    np.savez(tmp_path / "in.npz", kernel=np.array([{}], dtype=object))
    complains(run("kernel", tmp_path / "in.npz", "-o", tmp_path / "out.npz"), "could run code")
    torch.save(torch.nn.Conv2d(2, 3, 3), tmp_path / "in.pt")
    complains(run("kernel", tmp_path / "in.pt", "-o", tmp_path / "out.npz"), "could run code")


def test_places_that_cannot_be_used(tmp_path):
    file = write(ARRAYS, tmp_path / "in.npz")
    before = file.read_bytes()
    complains(run("kernel", file, "-o", file, "--force", *LAYOUTS), "never overwritten")
    complains(run("kernel", file, "-o", tmp_path / "missing" / "out.npz", *LAYOUTS), "There is no folder")
    complains(run("kernel", file, "-o", tmp_path / "out.txt", *LAYOUTS), ".npy, .npz, .safetensors")
    complains(run("kernel", tmp_path / "none.npz", "-o", tmp_path / "out.npz"), "There is no file")
    complains(run("kernel", tmp_path, "-o", tmp_path / "out.npz"), "Arrays are kept in files")
    complains(run("kernel", file, "-o", tmp_path / "out.npy", *LAYOUTS), "A .npy file holds one array, and there are 4")
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("module", "suffix"), [("safetensors", ".safetensors"), ("torch", ".pt")])
def test_a_missing_package_is_named(module, suffix, tmp_path, monkeypatch):
    file = write(ARRAYS, tmp_path / "in.npz")
    monkeypatch.setitem(sys.modules, module, None)
    complains(run("kernel", file, "-o", tmp_path / f"out{suffix}", *LAYOUTS), f"pip install {module}")


@pytest.mark.parametrize(
    ("kind", "size", "misfit"),
    [
        ("conv", 8, True),
        ("conv_transpose", 8, True),
        ("flip", 8, False),
        ("conv", 3, False),
        ("swap_spatial", 8, False),
    ],
)
@pytest.mark.parametrize("names", [("conv.weight", "conv.bias"), ("conv/kernel", "conv/bias")])
def test_a_bias_that_no_longer_fits_its_kernel_is_named(names, kind, size, misfit, tmp_path):
    kernel, bias = names
    arrays = {
        kernel: np.zeros((5, 5, 3, 8), "float32"),
        bias: np.zeros(size, "float32"),
        "other.bias": np.zeros(8, "float32"),
    }
    np.savez(tmp_path / "in.npz", **arrays)
    result = run("kernel", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--kind", kind)
    assert result.exit_code == 0, result.output
    line = f"{bias} no longer fits: it has 8 numbers, and the layer that its kernel is for has 3 channels of output"
    assert (line in result.stdout) == misfit and "other.bias no" not in result.stdout
