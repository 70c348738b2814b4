"""The subcommands: each file has the options of one of them, in a function of its name, and examples for its help.

Whatever needs time to import is imported inside the function.
"""
