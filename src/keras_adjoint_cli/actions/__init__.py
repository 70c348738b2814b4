"""The work of the commands: each file does that of the command of its name, once its files and options are known."""
