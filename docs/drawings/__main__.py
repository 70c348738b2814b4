"""`python docs/drawings` draws all of them anew, as SVG files beside these programs."""

from pathlib import Path

import algorithms
import convolutions
import ideas

DRAWINGS = (*convolutions.DRAWINGS, *algorithms.DRAWINGS, *ideas.DRAWINGS)

if __name__ == "__main__":
    for draw in DRAWINGS:
        drawing = draw()
        (Path(__file__).parent / f"{drawing.name}.svg").write_text(drawing.svg(), encoding="utf-8")
