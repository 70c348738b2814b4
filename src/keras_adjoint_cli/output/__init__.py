"""What the commands print, for people and with `--json` for programs: each file is about the command of its name."""
