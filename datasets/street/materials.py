"""What surfaces return to a 905 nm LiDAR.

One row a material: mean intensity, its spread from point to point, share of pulses that never come
back, roughness in metres along the ray. The values are fitted by eye to the intensity histograms
a class of public 64-beam scans, where intensity is 0..1, calibrated and nearly independent of range.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MATERIALS"]

ASPHALT: Final = 0
MARKING: Final = 1
PAVING: Final = 2
GRASS: Final = 3
SOIL: Final = 4
PLASTER: Final = 5
BRICK: Final = 6
GLASS: Final = 7
PAINT: Final = 8
DARK_PAINT: Final = 9
TYRE: Final = 10
PLATE: Final = 11  # retro-reflective: signs, number plates
BARK: Final = 12
LEAF: Final = 13
CLOTH: Final = 14
WOOD: Final = 15
METAL: Final = 16
ROOF: Final = 17
CABIN: Final = 18  # glass band between painted posts and roof, decided where the ray hits

#: ``[19, 4] float64``: intensity, spread, share lost, roughness (m).
MATERIALS: Final[NDArray[np.float64]] = np.array(
    [
        [0.21, 0.09, 0.00, 0.002],
        [0.55, 0.10, 0.00, 0.001],
        [0.32, 0.06, 0.00, 0.002],
        [0.36, 0.07, 0.00, 0.030],
        [0.28, 0.06, 0.00, 0.024],
        [0.34, 0.06, 0.00, 0.003],
        [0.26, 0.07, 0.00, 0.005],
        [0.10, 0.10, 0.75, 0.000],
        [0.22, 0.09, 0.03, 0.002],
        [0.03, 0.04, 0.12, 0.002],
        [0.10, 0.05, 0.04, 0.003],
        [0.92, 0.10, 0.00, 0.002],
        [0.34, 0.08, 0.00, 0.016],
        [0.36, 0.12, 0.00, 0.010],
        [0.34, 0.12, 0.01, 0.008],
        [0.32, 0.08, 0.00, 0.004],
        [0.30, 0.14, 0.03, 0.001],
        [0.24, 0.06, 0.01, 0.010],
        [0.22, 0.09, 0.03, 0.002],
    ]
)
