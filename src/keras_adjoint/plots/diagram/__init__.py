"""An encoder and its mirror as two ladders that stand side by side: what is on each rung, and where it is drawn."""
