"""Files that users name: models, arrays and scripts are read or refused in words, and written in full or not at all."""
