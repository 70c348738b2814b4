"""Files that people hand to the command, and those that it writes."""
