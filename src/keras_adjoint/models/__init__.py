"""Whole models: `graph.py` reads the calls, and `backward.py` goes through them from the outputs to the inputs.

`adjoint.py` and `mirror.py` have the public functions. `policies.py` is the table of a mirror's policies, `policy_layers.py`
puts their layers in place, and `decisions.py` says what became of each call.
"""
