"""How much is run. `conftest.py` sets it before tests are collected, so that `make test` does not even make the large products."""

EXHAUSTIVE = False
