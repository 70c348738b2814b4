"""Adjoint layers written out in stock Keras layers: pieces, writers by family, and `write` with the table of them."""
