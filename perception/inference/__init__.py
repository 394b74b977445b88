"""How a trained network is applied: tiles, turned copies, precision, running sequences.

`perception.load` gives the pipeline that all of it hangs on; see docs/inference.md.
"""

from perception.inference.drives import Drive, find_drive
from perception.inference.prediction import Method, Prediction
from perception.inference.stream import StreamingSegmenter
from perception.inference.tiles import Tile, TooLittleMemory, cut
from perception.inference.variants import Variant, variants
from perception.inference.window import Lattice

__all__ = [
    "Drive",
    "Lattice",
    "Method",
    "Prediction",
    "StreamingSegmenter",
    "Tile",
    "TooLittleMemory",
    "Variant",
    "cut",
    "find_drive",
    "variants",
]
