"""Layers and models as linear operators: an algebra, matrices, norms and bounds."""
