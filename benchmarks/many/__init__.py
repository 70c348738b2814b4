"""Training on many devices, and space that is divided among them: what is asserted, and the figures."""
