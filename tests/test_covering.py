"""The cases that stand for many: each pair of properties meets, in the fewest cases that a greedy choice finds."""

import itertools

import pytest
from covering import covering, product

pytestmark = pytest.mark.any_backend
FACTORS = {"rank": [1, 2, 3], "stride": [1, 2, 3, 4], "padding": ["same", "valid"], "groups": [1, 2, 3]}


def combinations(case, strength):
    return set(itertools.combinations(case.items(), strength))


@pytest.mark.parametrize("strength", [1, 2, 3, 4])
def test_every_combination_meets(strength):
    cases = product(FACTORS, most=1000)
    chosen = covering(cases, dict.items, strength)
    assert set().union(*(combinations(case, strength) for case in chosen)) == set().union(
        *(combinations(case, strength) for case in cases)
    )


@pytest.mark.parametrize(("strength", "fewest", "most"), [(1, 4, 4), (2, 12, 15), (3, 36, 46), (4, 72, 72)])
def test_the_cases_are_few(strength, fewest, most):
    """As many as the largest factors have values between them, and not many more."""
    assert fewest <= len(covering(product(FACTORS, most=1000), dict.items, strength)) <= most


def test_what_never_meets_is_not_asked_for():
    cases = [case for case in product(FACTORS, most=1000) if case["padding"] == "same" or case["rank"] == 1]
    chosen = covering(cases, dict.items)
    assert all(case in cases for case in chosen)
    met = set().union(*(combinations(case, 2) for case in chosen))
    assert (("rank", 1), ("padding", "valid")) in met and (("rank", 2), ("padding", "valid")) not in met


def test_the_same_seed_chooses_the_same_cases():
    cases = product(FACTORS, most=1000)
    assert covering(cases, dict.items, seed=1) == covering(cases, dict.items, seed=1)
    assert covering(cases, dict.items, seed=1) != covering(cases, dict.items, seed=2)


def test_a_product_is_whole_or_drawn_from():
    assert len(product(FACTORS, most=1000)) == 72
    drawn = product(FACTORS, most=20)
    assert len({tuple(case.items()) for case in drawn}) == 20
