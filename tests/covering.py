"""Covering arrays: few cases in which every two properties meet that meet in any case at all."""

import itertools
import random

import extent


def covering(cases, properties, strength=2, seed=0):
    """A few of the cases, such that what they have in common is what all have in common.

    Greedy: each case that is taken adds the most combinations of `strength` properties to those that were met.

    Args:
        cases: What to choose from.
        properties: Takes a case and returns its properties, as values that can be hashed.
        strength: 2 for pairs of properties, 3 for triples.
        seed: Decides between cases that add equally many.

    Returns:
        A list of cases, the most telling ones first.
    """
    cases = list(cases)
    random.Random(seed).shuffle(cases)
    numbers = {}  # of the combinations, each of them a bit
    masks = []
    for case in cases:
        met = itertools.combinations(sorted(set(properties(case)), key=repr), strength)
        masks.append(sum(1 << numbers.setdefault(combination, len(numbers)) for combination in met))
    missing, chosen = (1 << len(numbers)) - 1, []
    while missing:
        best = max(range(len(cases)), key=lambda place: (masks[place] & missing).bit_count())
        chosen.append(cases[best])
        missing &= ~masks[best]
    return chosen


def fewest(cases, properties, strength=2):
    """What `make test` runs of the cases, see `covering`; exhaustive runs have all of them."""
    return list(cases) if extent.EXHAUSTIVE else covering(cases, properties, strength)


def product(factors, most, seed=0):
    """At most so many combinations of one value per factor, as dictionaries, drawn by a seed from all there are."""
    every = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    return every if len(every) <= most else random.Random(seed).sample(every, most)
