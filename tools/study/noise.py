"""What a bad sensor does to a scan: ranges and intensities that waver, pulses that are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["LEVELS", "TABLE", "Draws", "Level", "between", "measured"]


class Level(NamedTuple):
    """How bad a sensor is.

    range_noise: standard deviation of the range, m, along the pulse.
    dropout: share of pulses that are lost.
    intensity_noise: standard deviation of the intensity, which is 0..1.
    """

    range_noise: float
    dropout: float
    intensity_noise: float


LEVELS: Final[tuple[Level, ...]] = (
    Level(0.0, 0.0, 0.0),
    Level(0.025, 0.25, 0.025),
    Level(0.05, 0.5, 0.05),
    Level(0.1, 0.7, 0.1),
    Level(0.2, 0.85, 0.2),
)
"""From a perfect sensor to a hopeless one. Training draws from all that lies between."""
TABLE: Final = 2
"""The level of the table."""


def between(place: float) -> Level:
    """The level at a place on the scale of `LEVELS`, 0 to 4, linear between them."""
    index = min(int(place), len(LEVELS) - 2)
    share = place - index
    pairs = zip(LEVELS[index], LEVELS[index + 1], strict=True)
    return Level(*((1.0 - share) * low + share * high for low, high in pairs))


@dataclass(frozen=True)
class Draws:
    """The random numbers of N pulses: uniform `lost`, standard normal `range` and `intensity`, `[N]`.

    They do not depend on the level: with more drop-out the same scan has fewer points, with more
    noise the same points move further, as in the simulator.
    """

    lost: Tensor
    range: Tensor
    intensity: Tensor

    @classmethod
    def make(cls, count: int, seed: int, device: torch.device) -> Draws:
        """Of a seed. Those of the CPU are the same on every machine; a GPU's are others."""
        generator = torch.Generator(device).manual_seed(seed)
        lost = torch.rand(count, generator=generator, device=device)
        normal = torch.randn(2, count, generator=generator, device=device)
        return cls(lost, normal[0], normal[1])

    def to(self, device: torch.device) -> Draws:
        """On another device."""
        return Draws(self.lost.to(device), self.range.to(device), self.intensity.to(device))


def measured(
    points: Tensor, intensity: Tensor, levels: Tensor, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """What sensors measure of perfect `points [N, 3]` and `intensity [N]`.

    Args:
        levels: `[N, 3]`, the `Level` of each pulse's sensor, or `[1, 3]`.

    Returns:
        the rows that come back (`[M] int64`), their points and intensities.
    """
    levels = levels.expand(len(points), 3)
    kept = (draws.lost >= levels[:, 1]).nonzero()[:, 0]
    points, intensity, levels = points[kept], intensity[kept], levels[kept]
    distance = points.norm(dim=1).clamp(min=1e-3)
    points = points * (1.0 + levels[:, 0] * draws.range[kept] / distance)[:, None]
    intensity = (intensity + levels[:, 2] * draws.intensity[kept]).clamp(0.0, 1.0)
    return kept, points, intensity
