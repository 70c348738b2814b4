"""Which tests go to one process when `make test` runs them in two: those of a file whose fixtures are made once per module."""

import functools
from pathlib import Path


def unit_of(test, root):
    """What a test is scheduled with: its file, if the tests there share a fixture, else itself."""
    file = test.partition("::")[0]
    return file if shares_fixtures(Path(root, file)) else test


@functools.cache
def shares_fixtures(path):
    return '@pytest.fixture(scope="module")' in path.read_text(encoding="utf-8")
