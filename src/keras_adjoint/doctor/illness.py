"""A line in one of the tables of illnesses."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Illness:
    """What can be found.

    Attributes:
        name: Its name, as findings have it.
        find: Takes a `Patient` or a `Script`, and yields findings.
        fixable: Whether `--fix` can repair it, and how, or why not.
    """

    name: str
    find: Callable
    fixable: str
