"""Which algorithm is considered, which one is chosen, and what the cost model knows of each backend."""

import itertools

import pytest
from geometries import every_problem, label, problems
from helpers import BACKEND

from keras_adjoint.ops.algorithms import choose as choosing
from keras_adjoint.ops.algorithms import native
from keras_adjoint.ops.algorithms.choose import BY_NAME, candidates, choose
from keras_adjoint.ops.algorithms.cost_model import COEFFICIENTS, completed, seconds, whole_blocks
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution, Window

KINDS = ("sequence", "image", "volume", "dilated", "dilated sequence", "grouped", "depthwise", "strided depthwise")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_long_sums_in_half_precision_are_left_to_products_of_matrices(dtype):
    """In the first layer of CREPE a phase sums over 2¹⁷ numbers, for which oneDNN's convolutions have a loop alone."""
    names = {way.name for way in candidates(Problem(Convolution((Window(512, 4).at(1024),)), 16, 1, 1024, dtype=dtype))}
    convolutions = names & {"native", "subpixel", "phases"}
    assert names and bool(convolutions) == (dtype == "float32" or BACKEND == "jax")


def test_where_all_sums_are_long_something_is_considered():
    assert candidates(Problem(Convolution((Window(64, 1).at(128),)), 4, 1024, 2048, dtype="bfloat16"))


@pytest.mark.only_on("tensorflow", "torch")  # JAX's transposed convolutions are not oneDNN's
@pytest.mark.parametrize("dtype, trusted", [("float32", True), ("bfloat16", False)])
def test_native_is_not_trusted_where_onednn_writes_beyond_its_memory(dtype, trusted):
    """The first layer of CREPE, in bfloat16 on a processor with AMX."""
    crepe = Convolution((Window(512, 4, padding="same").at(1024),))
    assert BY_NAME["native"].fits(Problem(crepe, 16, 1, 1024, dtype=dtype)) == trusted


@pytest.mark.parametrize("groups, at_once", [(1, current().CHANNELS_AT_ONCE), (3, 1)])
def test_dense_convolutions_compute_whole_blocks_of_channels(groups, at_once):
    problem = Problem(Convolution((Window(3).at(8),), groups), 1, 3, 3)
    assert [whole_blocks(problem, number) for number in (1, at_once, at_once + 1)] == [at_once, at_once, 2 * at_once]


def costs_of(problem):
    """The expected seconds of the candidates, with what others have to be cheaper than the backend's own operation by."""
    margins = {way.name: 1 if way.name == "native" else current().NATIVE_MARGIN for way in candidates(problem)}
    return {name: seconds(BY_NAME[name].work(problem), name, problem) * margin for name, margin in margins.items()}


def test_the_cheapest_candidate_is_chosen():
    choices = [(choose(problem).name, costs_of(problem)) for problem in problems() if candidates(problem)]
    assert any(name != next(iter(costs)) for name, costs in choices)  # and not simply the first
    for name, costs in choices:
        assert costs[name] == min(costs.values())


@pytest.mark.only_on("tensorflow", "torch")  # JAX's own is no candidate
def test_of_equal_costs_the_operation_of_the_backend_is_chosen(monkeypatch):
    monkeypatch.setattr(choosing, "seconds", lambda work, name, problem: 1.0)
    monkeypatch.setattr(current(), "NATIVE_MARGIN", 1.05)
    offered = [problem for problem in problems() if "native" in {way.name for way in candidates(problem)}]
    assert offered
    for problem in offered:
        assert choose(problem).name == "native"


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_native_is_trusted_with_long_sums_in_single_precision_or_at_stride_one(dtype, stride):
    problem = Problem(Convolution((Window(512, stride, padding="same").at(1024),)), 16, 1, 1024, dtype=dtype)
    known_to_fail = dtype == "bfloat16" and stride > 1 and BACKEND != "jax"
    assert native.is_safe(problem) == (not known_to_fail)


def test_some_algorithm_is_chosen_for_every_convolution():
    for _, problem in every_problem():
        assert choose(problem).fits(problem), label(problem)


@pytest.mark.parametrize("name", [name for name in COEFFICIENTS if name.startswith(BACKEND)])
@pytest.mark.parametrize("precision", ["full", "half"])
def test_costs_know_what_the_backend_offers(precision, name):
    assert set(current().CANDIDATES[precision]) == set(KINDS)
    for kind in KINDS:
        assert set(COEFFICIENTS[name][precision][kind]) == set(current().CANDIDATES[precision][kind]), kind


@pytest.mark.parametrize("batch", [1, 5])
def test_an_operation_that_writes_columns_does_the_multiply_adds_of_the_forward(monkeypatch, batch):
    monkeypatch.setattr(current(), "WRITES_COLUMNS", ("full",))
    problem = Problem(Convolution((Window(3, 2).at(9), Window(4).at(8))), batch, 2, 7)
    work = native.work(problem)
    products = work.rows * work.depth * work.width * work.repeats
    assert products == problem.outputs * problem.positions("taps") * problem.channels
    assert (
        work.elements == 2 * products // work.depth + problem.inputs
    )  # columns are written and read, then x is written


@pytest.mark.parametrize("groups", [1, 2])
def test_an_operation_that_collects_reads_y_and_the_kernel_and_writes_x(monkeypatch, groups):
    monkeypatch.setattr(current(), "WRITES_COLUMNS", ())
    monkeypatch.setattr(current(), "CHANNELS_AT_ONCE", 1)
    problem = Problem(Convolution((Window(3, 2).at(9), Window(4).at(8)), groups), 5, 2, 6)
    assert native.work(problem).elements == problem.inputs + problem.outputs + problem.kernel


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("taps", "stride", "filters", "expected"), [(3, 1, 4, 12), (4, 2, 4, 8), (3, 2, 1, 1), (1, 2, 1, 1), (1, 4, 6, 1)]
)
def test_sums_are_over_the_taps_that_meet_on_average(taps, stride, filters, expected):
    assert native.depth_of(Problem(Convolution((Window(taps, stride).at(9),)), 1, 1, filters), filters) == expected


@pytest.mark.any_backend
@pytest.mark.parametrize("problem", problems(), ids=label)
def test_blocks_have_a_position_of_each_phase_and_cover_the_input(problem):
    first = itertools.product(*(range(0, axis.size, axis.stride) for axis in problem.convolution.axes))
    assert problem.blocks == problem.batch * len(list(first))


def test_the_cost_model_knows_the_backend():
    assert current().NAME in COEFFICIENTS


def test_costs_of_a_backend_without_something_are_completed_by_those_with_it():
    whole = {"full": {"image": 1, "volume": 2}, "half": {"image": 3}}
    found = completed({"a": whole, "a without b": {"full": {"image": 4}}})
    assert found == {"a": whole, "a without b": {"full": {"image": 4, "volume": 2}, "half": {"image": 3}}}


def test_no_algorithm_is_chosen_by_timing(monkeypatch):
    monkeypatch.setattr("time.perf_counter", None)
    monkeypatch.setattr("time.monotonic", None)
    for problem in problems():
        choose(problem)
