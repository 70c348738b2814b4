"""What commonly goes wrong with transposed kernels, found in models and scripts.

`rules.py` is the table of everything that is found; `models/` and `scripts/` hold the searches, and `repair.py` in each makes
repaired copies.
"""
