"""Repaired copies of models and scripts: what takes the place of what, and the proof that nothing else has changed."""
