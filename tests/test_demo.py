"""The demo, with hardly any training: every fact that does not need a good reconstruction."""

import io
import json
import zipfile
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import skimage.data
from json_style import check_style
from rich.console import Console

import keras_adjoint as ka
from keras_adjoint.demo import models, training
from keras_adjoint.demo.job import as_data, run
from keras_adjoint.demo.models import PATCH, STAGES, make_autoencoder
from keras_adjoint.plots import photographs

pytestmark = pytest.mark.in_turn("jax")  # `make demo` runs on JAX


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def printed():
    return io.StringIO()


@pytest.fixture(scope="module")
def results(out, printed):
    return run(out, steps=2, seed=0, console=Console(file=printed, width=160))


def test_the_tied_autoencoder_is_smaller(results):
    tied, untied = results.tied, results.untied
    kernels = sum(int(np.prod(layer.kernel.shape)) for layer in tied.encoder.layers if hasattr(layer, "kernel"))
    assert untied.parameters - tied.parameters == kernels
    assert untied.slot_numbers - tied.slot_numbers == 2 * kernels  # two moments each
    assert len(untied.slots) - len(tied.slots) == 2 * len(STAGES)
    assert tied.file_bytes < untied.file_bytes


def test_both_start_from_the_same_encoder():
    tied, untied = (make_autoencoder(decode, seed=3)[1] for decode in (models.tied, models.untied))
    for one, other in zip(tied.get_weights(), untied.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_adjoint_is_exact_and_naive_reuse_is_not(results):
    for number, (_, _, stride) in enumerate(STAGES, 1):
        attempts = {attempt.method: attempt for attempt in results.attempts if attempt.layer == f"conv{number}"}
        assert attempts["ka.adjoint"].passed
        assert attempts["ka.adjoint"].residual < 1e-6
        same = attempts["Conv2DTranspose, same settings and kernel"]
        assert same.passed == (stride == 1)
        assert stride == 1 or same.outcome.startswith("wrong size")
        swapped = attempts["Conv2DTranspose, H and W of the kernel swapped"]
        assert not swapped.passed and swapped.residual > 1e-3
        assert attempts["… set on a layer that is not built"].outcome.startswith("ValueError")
        assert attempts["Conv2D with the same kernel"].outcome.startswith("ValueError")


def test_cropping_behind_shifts(results):
    behind = [attempt for attempt in results.attempts if "last row" in attempt.method]
    assert len(behind) == 2
    assert all("shifted by pixels: +1 along axis 1, +1 along axis 2" in attempt.outcome for attempt in behind)


def test_the_file_is_tied_in_a_new_process(results):
    assert results.reloaded["tied"]
    assert results.reloaded["parameters"] == results.tied.parameters
    assert results.reloaded["difference"] < 1e-5
    assert results.reloaded["change"] > 1e-3
    assert results.reloaded["still_adjoint"]


def test_the_files_are_there_and_nothing_else(results, out):
    assert sorted(path.name for path in out.iterdir()) == ["autoencoder.keras", "demo.png"]
    assert zipfile.is_zipfile(out / "autoencoder.keras")
    picture = matplotlib.image.imread(out / "demo.png")
    assert min(picture.shape[:2]) > 1000
    assert picture[..., :3].std() > 0.1
    assert ka.is_tied(keras.saving.load_model(out / "autoencoder.keras"))


def test_the_tables_say_what_was_measured(results, printed):
    text = printed.getvalue()
    for words in (
        f"{results.tied.parameters:,}",
        f"{results.untied.slot_numbers:,}",
        f"{results.tied.psnr['cat']:.2f} dB",
        "wrong size: 46×46×3 for 45×45×3",
        "loaded in a new process",
        "demo.png",
    ):
        assert words in text


def test_the_facts_for_programs_are_plain_json(results):
    data = json.loads(json.dumps(as_data(results)))
    assert data["tied"]["parameters"] == results.tied.parameters < data["untied"]["parameters"]
    assert data["reloaded"]["tied"]
    check_style("demo", data)
    assert [attempt["passed"] for attempt in data["attempts"]] == [attempt.passed for attempt in results.attempts]


def test_photographs_are_disjoint_odd_and_there_without_a_download():
    assert not set(training.TRAINING) & set(training.HELD_OUT)
    files = {name: photographs.BUNDLED[name][0] for name in (*training.TRAINING, *training.HELD_OUT)}
    assert len(set(files.values())) == len(files)
    assert all((Path(skimage.data.__file__).parent / file).exists() for file in files.values())
    for photograph in training.held_out_photographs().values():
        assert all(size % 4 == 1 for size in photograph.shape[:2])
        assert photograph.min() >= -0.5 and photograph.max() <= 0.5


def test_the_same_seed_gives_the_same_patches():
    pictures = training.training_photographs().values()
    first, again, other = (training.random_patches(pictures, 6, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (6, PATCH, PATCH, 3)
    assert np.abs(first - other).max() > 0.1
