"""Decoders of whole encoders: what has an adjoint is undone by it, and named policies decide about everything else."""
