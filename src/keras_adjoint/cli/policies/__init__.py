"""Policies as they are written on the command line, and what they decided."""
