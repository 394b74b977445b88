"""Rain and fog: what they take from a pulse, what they send back, and how wet they leave the street."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLEAR", "Weather"]


@dataclass(frozen=True, kw_only=True)
class Weather:
    """The weather of one scan; the default is clear and dry.

    Attributes:
        rain: mm/h. 2 is light, 10 heavy, 50 a downpour.
        visibility: metres at which contrast falls to 2 % (the meteorological optical range):
            200 is fog, 50 thick fog, infinity clear.
        wetness: of the ground, 0 = dry, 1 = soaked; by default what the rain makes of it.

    Raises:
        ValueError: a value that no weather has.

    Example:
        >>> Weather(rain=10.0).extinction < Weather(visibility=100.0).extinction
        True
    """

    rain: float = 0.0
    visibility: float = math.inf
    wetness: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.rain < math.inf:
            raise ValueError(f"Weather: rain {self.rain} mm/h; give 0 (none) to about 100")
        if not self.visibility >= 5.0:
            raise ValueError(f"Weather: visibility {self.visibility} m; give 5 m to infinity")
        if self.wetness is not None and not 0.0 <= self.wetness <= 1.0:
            raise ValueError(f"Weather: wetness {self.wetness}; give 0 (dry) to 1 (soaked)")

    @property
    def extinction(self) -> float:
        """Loss of light on its way, 1/m, one way.

        Fog: Koschmieder, 3.912 / visibility, the same for near infrared as for visible light.
        Rain: 1.076 R^0.67 dB/km (the optical attenuation of rain that ITU-R P.1814 tabulates).
        """
        fog = 3.912 / self.visibility
        return fog + 1.076 * self.rain**0.67 / (1000.0 * 10.0 * math.log10(math.e))

    @property
    def soaked(self) -> float:
        """Wetness of the ground, 0 to 1."""
        return 1.0 - math.exp(-self.rain / 2.0) if self.wetness is None else self.wetness

    @property
    def grey(self) -> float:
        """How far the clouds take the sun's shadows away, 0 to 1."""
        return 1.0 - math.exp(-self.rain / 1.5 - 300.0 / self.visibility)

    def pulse(self) -> NDArray[np.float64]:
        """``[6]`` what ``echo.py`` wants: extinction, mean number of echoes that a pulse gets from
        drops on a free way, the distance at which half of them have come (m), wetness, mean
        intensity of such an echo, share of pulses that drops on the sensor's window scatter.

        Only the nearest metres send enough back to be taken for a target, the nearer the likelier.
        The shares are set to what public recordings show: a pulse in five in fog of 50 m, one in
        two hundred in rain of 10 mm/h.
        """
        fog = 3.9 / self.visibility
        rain = 0.001 * self.rain**0.7
        near = (5.0 * fog + 7.0 * rain) / max(fog + rain, 1e-12)
        return np.array(
            [
                self.extinction,
                3.0 * fog + rain,
                near,
                self.soaked,
                0.05,
                1.0 - math.exp(-0.003 * self.rain),
            ]
        )


#: No rain, no fog, dry.
CLEAR = Weather()
