"""Larger than memory: operators and models applied block by block, equal to what they compute in one piece."""
