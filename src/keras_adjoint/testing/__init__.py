"""Proof that one operator is the adjoint of another, and a diagnosis where it is not."""
