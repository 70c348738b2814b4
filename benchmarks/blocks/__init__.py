"""Arrays larger than memory: what applying an operator to them block by block holds, and how long it takes."""
