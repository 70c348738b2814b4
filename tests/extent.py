"""How much is run: `conftest.py` says so before tests are collected, so that `make test` does not even make large products."""

EXHAUSTIVE = False
