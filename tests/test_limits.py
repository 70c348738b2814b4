"""The limits that `--limit` sets, and what a model file is held to while it is built."""

import keras
import pytest
from bad_models import archive_of, members, with_layer
from command_line import complains, run, saved
from keras import layers

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.graph import count_calls, trace
from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.limits import Limits, memory_text, read_limits

pytestmark = pytest.mark.any_backend


def test_limits_are_read_with_their_units():
    limits = read_limits(["memory=1.5GB", "layers=7"])
    assert (limits.memory, limits.layers, limits.lines) == (1_500_000_000, 7, Limits().lines)
    assert [read_limits([f"memory={text}"]).memory for text in ("3", "3kB", "3MB", "3 gb", "3TB")] == [
        *(3, 3_000, 3_000_000, 3_000_000_000, 3_000_000_000_000)
    ]
    assert read_limits(None) == read_limits([]) == Limits()


def test_a_file_may_take_a_hundred_times_its_size_unless_a_limit_is_given():
    assert Limits().memory_for(10) == 256_000_000
    assert Limits().memory_for(10_000_000) == 1_000_000_000
    assert Limits().memory_for(10**9) == 4_000_000_000
    assert read_limits(["memory=9GB"]).memory_for(10) == 9_000_000_000


@pytest.mark.parametrize(
    "size, text", [(1, "1 bytes"), (999, "999 bytes"), (4 * 10**9, "4 GB"), (12_345_678, "12.3 MB")]
)
def test_memory_in_words(size, text):
    assert memory_text(size) == text


@pytest.mark.parametrize("claimed", [4_000_000_001, 4_049_999_999, 12_345_678_901, 999_999_999_999, 10**15 - 1])
def test_the_limit_that_an_error_names_is_enough(claimed, tmp_path):
    with pytest.raises(Unusable) as refusal:
        Limits().check_memory(tmp_path, claimed, "it")
    option = str(refusal.value).rpartition("--limit ")[2].rstrip(".")
    read_limits([option]).check_memory(tmp_path, claimed, "it")


def test_a_model_within_raised_limits_is_loaded(tmp_path):
    file = with_layer("", "UpSampling2D", {"size": [4000, 4000]}).write(tmp_path)
    result = run("inspect", file)
    complains(result, "a tensor of shape (None, 36000, 32000, 1) would take 18.4 GB, and the limit is 4 GB")
    option = result.stderr.strip().rpartition(" ")[2].rstrip(".")
    assert "36000" in run("inspect", file, "--limit", option).stdout


def test_causal_padding_counts(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 3)), layers.Conv1D(2, 3, padding="causal", dilation_rate=10**8, name="c")]
    )
    complains(run("check", saved(model, tmp_path)), "the padded input of c would take 9.6 GB, and the limit is 4 GB")


def test_commands_that_run_a_model_count_all_its_tensors(tmp_path):
    x = image = keras.Input((2000, 2000, 1))
    for _ in range(9):
        x = layers.Conv2D(8, 1)(x)
    file = saved(keras.Model(image, x), tmp_path)
    assert run("inspect", file).exit_code == 0
    report = ("report", file, "-o", tmp_path / "out.html", "--limit", "memory=1GB")
    complains(run(*report), "the tensors of all its layers would take 1.2 GB, and the limit is 1 GB.")


def test_calls_are_counted_as_often_as_their_models_are_called(tmp_path):
    inner = layers.Dense(3)
    for _ in range(4):
        x = keras.Input((3,))
        inner = keras.Model(x, inner(inner(x)))
    file = saved(inner, tmp_path)
    result = run("inspect", file, "--limit", "calls=15")
    complains(
        result, "it has 16 calls of layers, those in a model that is called twice counted twice, and the limit is 15"
    )
    option = result.stderr.strip().rpartition(" ")[2].rstrip(".")
    assert run("inspect", file, "--limit", option).exit_code == 0
    assert count_calls(inner) == len(trace(inner).calls) == 16


def test_a_graph_of_calls_without_end_is_not_walked():
    inner = layers.Dense(3)
    for _ in range(30):
        x = keras.Input((3,))
        inner = keras.Model(x, inner(inner(x)))
    with pytest.raises(NoRuleError, match="makes 1,073,741,824 calls of layers"):
        trace(inner)


def test_members_of_a_name_that_leads_elsewhere_are_written_nowhere(tmp_path):
    outside = tmp_path / "outside"
    folder = tmp_path / "inside"
    folder.mkdir()
    contents = members() | {"../outside": b"evil", str(outside): b"evil", "assets/../../outside": b"evil"}
    (folder / "model.keras").write_bytes(archive_of(contents))
    complains(run("inspect", folder / "model.keras"), "it has a member whose name leads out of it")
    assert not outside.exists() and [one.name for one in folder.iterdir()] == ["model.keras"]
