"""What goes wrong in scripts, which are read and never run.

`flow.py` follows names through assignments and writes down every call; each file of a family of illnesses looks through
those calls, and `illnesses.py` is the table.
"""
