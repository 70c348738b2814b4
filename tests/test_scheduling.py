"""Tests that share a fixture run in one process, which makes it once."""

from pathlib import Path

import pytest
from scheduling import unit_of

pytestmark = pytest.mark.any_backend
ROOT = Path(__file__).parents[1]


def test_tests_that_share_a_fixture_are_one_unit_and_others_are_each_their_own():
    tests = ["tests/test_site.py::test_a", "tests/test_site.py::test_b", "tests/test_sizes.py::test_a"]
    assert [unit_of(test, ROOT) for test in tests] == ["tests/test_site.py", "tests/test_site.py", tests[2]]


def test_xdist_has_the_method_that_is_replaced():
    scheduler = pytest.importorskip("xdist.scheduler")
    assert "_split_scope" in vars(scheduler.LoadScopeScheduling)
