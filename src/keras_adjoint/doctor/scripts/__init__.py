"""The doctor on scripts, which are read and never run.

`flow.py` follows names through assignments and records every call; the files of rules search these events.
"""
