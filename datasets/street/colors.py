"""What surfaces look like to a camera: the colour of every primitive and the texture of the ground.

Colours are linear RGB reflectances. A primitive's colour is drawn from the palette of its material
by the factor on its intensity: that factor is drawn once an object, so all parts of one car, house
or shirt agree, in every frame.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street import materials as m
from perception.datasets.street import raycast as rc
from perception.datasets.street.classes import POLE
from perception.datasets.street.ground import value_noise
from perception.datasets.street.materials import ASPHALT, GRASS, MARKING, PAVING, SOIL

__all__ = ["ground_color", "primitive_colors"]

#: sRGB palettes; a material that is not here is grey.
_PALETTES: Final[dict[int, tuple[str, ...]]] = {
    m.ASPHALT: ("77777a",),
    m.MARKING: ("e8e8e4",),
    m.PAVING: ("a9a59e", "9b9893", "b3ada2"),
    m.GRASS: ("5f7a35",),
    m.SOIL: ("7d6a50",),
    m.PLASTER: (
        "e6dfcf", "d9c7a3", "e3d3b5", "cfc9bd", "efe9dd", "d8b48f", "c8b7a1", "b9c0bd", "e2c7b0", "d6cf9f",
    ),
    m.BRICK: ("8d5a45", "9c6a50", "7c5344", "a5826b", "91705c"),
    m.GLASS: ("20262b",),
    m.PAINT: (
        "eeeeec", "e4e4e2", "c3c6c8", "a7abad", "8f9497", "aeb4b8", "2f5d93", "1d3f73", "a5201c",
        "7d1418", "c9ccd0", "5b7a5a", "b9a88a", "d8d8d6", "6c7f93", "cfa21d",
    ),
    m.DARK_PAINT: ("16171a", "1d1f24", "23262b", "14202f", "2d2f33", "301a1c", "1b2a26"),
    m.TYRE: ("1c1c1d",),
    m.PLATE: ("e9e8e0",),
    m.BARK: ("5e4f41", "6b5d4f", "514438", "75695c"),
    m.LEAF: ("486b2a", "56752f", "3d5c2a", "65803a", "4e6f3c", "6f8440", "395230"),
    m.CLOTH: (
        "26292e", "1f2a44", "3b4a63", "54585c", "6d2a2e", "8a8f94", "b9b4aa", "2f4a3a", "a33b35",
        "c79a3a", "3f6ea3", "d9d6d0", "4b3a30", "7a5a86",
    ),
    m.WOOD: ("7a5c3e", "8d6f4d", "6a523c", "9a8163"),
    m.METAL: ("7f8486", "6a6f70", "8f9492", "4a5250", "585d5e"),
    m.ROOF: ("7c4334", "8a4b38", "5b4a45", "4f5053", "6b3c32", "945a42"),
}  # fmt: skip
_SIGNS: Final = ("f2f2ee", "1f4fa0", "c3272b", "f2f2ee", "e0b31c", "2a6f3f")
_SKIN: Final = ("d9ac8c", "c08d6c", "8a5f47", "e3bb9c", "6b4635")


def _linear(palette: tuple[str, ...]) -> NDArray[np.float64]:
    values = np.array([[int(c[k : k + 2], 16) for k in (0, 2, 4)] for c in palette])
    return np.asarray((values / 255.0) ** 2.2)


def _share(values: NDArray[np.float64], salt: int) -> NDArray[np.float64]:
    """Uniform in [0, 1) from the bits of each value."""
    z = values.astype(np.float64).view(np.uint64) + np.uint64(salt)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z >> np.uint64(40)).astype(np.float64) / float(1 << 24))


def primitive_colors(rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """``[M, 3]`` linear reflectance of primitives ``[M, 20]``; the seed shifts who gets which."""
    material = rows[:, rc.MATERIAL].astype(np.int64)
    kind = rows[:, rc.KIND].astype(np.int64)
    cabin = material == m.CABIN
    material = np.where(
        cabin, np.where(rows[:, 12] > 0.0, m.DARK_PAINT, rows[:, 13].astype(np.int64)), material
    )
    gain = np.ascontiguousarray(rows[:, rc.GAIN])
    which, shade = _share(gain, seed & 0xFFFF), _share(gain, (seed & 0xFFFF) + 77)
    colors = np.full((len(rows), 3), 0.2)
    for known in np.unique(material):
        palette = _linear(_PALETTES.get(int(known), ("808080",)))
        mine = material == known
        colors[mine] = palette[(which[mine] * len(palette)).astype(np.int64)]
    # Signs stand still: where they are says what they show.
    sign = (material == m.PLATE) & (rows[:, rc.LABEL] == POLE)
    palette = _linear(_SIGNS)
    place = _share(np.round(rows[sign, rc.X], 3) + np.round(rows[sign, rc.Z], 3), 3)
    colors[sign] = palette[(place * len(palette)).astype(np.int64)]
    head = (material == m.CLOTH) & (kind == rc.ELLIPSOID)
    palette = _linear(_SKIN)
    colors[head] = palette[(_share(np.round(rows[head, 8], 4), seed) * len(palette)).astype(int)]
    varied = np.isin(material, (m.PLASTER, m.BRICK, m.LEAF, m.BARK, m.WOOD, m.ROOF, m.PAVING))
    colors[varied] *= (0.8 + 0.35 * shade[varied])[:, None]
    return colors


@njit(nogil=True, cache=True)
def ground_color(
    material: int, x: float, y: float, far: float, wet: float, tint: float
) -> tuple[float, float, float]:
    """Linear reflectance of the ground at (x, y), seen from ``far`` metres; fine grain is left out
    where pixels are larger than it. ``tint`` 0..1 differs from street to street."""
    near = np.exp(-far / 9.0)
    coarse = value_noise(0.21 * x, 0.23 * y, 21) + 0.5 * value_noise(0.9 * y, 0.8 * x, 22)
    # Turned against the axes, along which lattices show.
    u, w = 0.81 * x + 0.59 * y, 0.81 * y - 0.59 * x
    fine = near * (0.5 * value_noise(17.0 * u, 17.0 * w, 23) + value_noise(53.0 * w, 53.0 * u, 24))
    r, gr, b = 0.2, 0.2, 0.2
    if material == ASPHALT:
        v = (0.085 + 0.06 * tint) * (1.0 + 0.08 * coarse + 0.13 * fine)
        r, gr, b = v, v * 0.99, v * 1.0
    elif material == MARKING:
        v = 0.62 * (1.0 + 0.10 * coarse + 0.05 * fine)
        r, gr, b = v, v, 0.96 * v
    elif material == PAVING:
        v = (0.21 + 0.10 * tint) * (1.0 + 0.06 * coarse + 0.05 * fine)
        joint = 0.018 + 0.002 * far
        row = np.floor(y / 0.5)
        if far < 25.0 and (y % 0.5 < joint or (x + 0.25 * (row % 2.0)) % 0.5 < joint):
            v *= 0.72
        else:
            v *= 1.0 + 0.12 * near * value_noise(np.floor(x / 0.5) + 0.5, row + 0.5, 25)
        r, gr, b = v, 0.97 * v, 0.92 * v
    elif material == GRASS:
        dry = 0.5 + 0.5 * value_noise(0.11 * x, 0.11 * y, 26)
        v = 1.0 + 0.18 * coarse + 0.35 * fine
        r = (0.085 + 0.09 * dry + 0.03 * tint) * v
        gr = (0.155 + 0.05 * dry) * v
        b = (0.04 + 0.02 * dry) * v
    elif material == SOIL:
        # Trodden earth with short grass on it, more of the one or the other from place to place.
        bare = value_noise(0.09 * x, 0.09 * y, 27) + 0.3 * value_noise(0.9 * u, 0.9 * w, 28)
        bare = min(max(1.2 * bare + 0.05, 0.0), 1.0)
        v = 1.0 + 0.12 * coarse + 0.2 * fine
        r = (0.125 + 0.065 * bare) * v
        gr = (0.17 - 0.025 * bare) * v
        b = (0.06 + 0.035 * bare) * v
    dark = 1.0 - 0.5 * wet
    return r * dark, gr * dark, b * dark
