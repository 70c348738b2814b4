"""Algorithms for adjoint convolutions: one file each. The table of them, and the choice among them, are in `choose.py`."""
