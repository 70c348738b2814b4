"""What goes wrong in the wild, found in models and scripts: `models/` and `scripts/` look, `repair/` makes repaired copies.

Each of the two has a table of the illnesses that it knows, `models/illnesses.py` and `scripts/illnesses.py`.
"""
