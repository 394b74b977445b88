"""The character of a street, drawn once a seed: its road, its ground, what stands along it, who
is on the way, and how the sensor is mounted.

Everything here is deliberately varied far beyond one city, so that a network trained on many
streets meets a real one as just another draw (domain randomisation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import ground as gr
from perception.datasets.street import materials as m
from perception.datasets.street.sensor import Sensor

__all__ = ["CHUNK", "PLOTS", "Style"]

#: Length of the pieces in which the world is laid out, m.
CHUNK: Final = 20.0
JUNCTION_PITCH: Final = 110.0

#: What may stand behind the pavement, and the likelihood of each by kind of district.
PLOTS: Final = ("block", "houses", "park", "thicket", "field", "car park", "plaza", "yard wall")
DISTRICTS: Final[dict[str, tuple[float, ...]]] = {
    "old town": (0.76, 0.02, 0.02, 0.04, 0.00, 0.01, 0.05, 0.10),
    "city": (0.66, 0.03, 0.03, 0.03, 0.00, 0.05, 0.12, 0.08),
    "town": (0.28, 0.30, 0.10, 0.12, 0.02, 0.05, 0.05, 0.08),
    "suburb": (0.02, 0.52, 0.12, 0.23, 0.02, 0.02, 0.01, 0.06),
    "green": (0.03, 0.08, 0.34, 0.42, 0.07, 0.02, 0.02, 0.02),
}


@dataclass(slots=True)
class Wave:
    """A sum of sines: a smooth endless curve."""

    amplitudes: tuple[float, ...]
    wavelengths: tuple[float, ...]
    phases: tuple[float, ...]

    @classmethod
    def draw(cls, r: Random, terms: tuple[tuple[float, float], ...]) -> Wave:
        """Terms (largest amplitude, wavelength)."""
        return cls(
            tuple(a * r.uniform(-1.0, 1.0) for a, _ in terms),
            tuple(w * r.uniform(0.8, 1.3) for _, w in terms),
            tuple(r.uniform(0.0, 2.0 * math.pi) for _ in terms),
        )

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        y = np.zeros_like(x)
        for a, w, p in zip(self.amplitudes, self.wavelengths, self.phases, strict=True):
            y += a * np.sin(2.0 * math.pi * x / w + p)
        return y

    def at(self, x: float) -> tuple[float, float]:
        """Value and derivative at one x."""
        y = dy = 0.0
        for a, w, p in zip(self.amplitudes, self.wavelengths, self.phases, strict=True):
            f = 2.0 * math.pi / w
            y += a * math.sin(f * x + p)
            dy += a * f * math.cos(f * x + p)
        return y, dy


@dataclass(slots=True)
class Edge:
    """How the plot beside a chunk meets the street.

    Attributes:
        plot: one of ``PLOTS``.
        surface: ground of the plot: 0 grass, 1 paved, 2 asphalt, 3 soil.
        drive: where a driveway leaves the street, metres from the middle of the chunk, or None.
        half: half its width, m.
    """

    plot: str
    surface: float
    drive: float | None
    half: float


class Style:
    """All that is constant along a street.

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int) -> None:
        r = Random(f"street {seed}")
        self.seed = seed
        self._junctions: dict[int, tuple[float, ...] | None] = {}
        self._edges: dict[tuple[int, float], Edge] = {}
        self.district = r.choices(tuple(DISTRICTS), (0.22, 0.13, 0.17, 0.2, 0.28))[0]
        old = self.district == "old town"
        city = old or self.district == "city"
        self.plots = DISTRICTS[self.district]
        #: 1 = traffic keeps to the right, -1 = to the left.
        self.hand = 1.0 if r.random() < 0.8 else -1.0
        self.parking_right = 2.1 if r.random() < (0.55 if city else 0.2) else 0.0
        self.parking_left = 2.1 if r.random() < (0.55 if city else 0.2) else 0.0
        self.lanes = 2 if r.random() < 0.08 and not old else 1
        self.lane = r.uniform(2.0, 3.2)
        #: Old towns have streets of one lane, shared or one-way.
        self.single = old and r.random() < 0.75
        if self.single:
            self.lane *= 0.5
            self.parking_left = 0.0
        # The kerbs are symmetric; a side without parking gets the extra width too.
        self.half_width = self.lane * self.lanes + max(self.parking_left, self.parking_right)
        self.half_width = max(self.half_width, 1.9)
        self.verge = (
            r.uniform(0.8, 4.5) if r.random() < (0.0 if old else 0.15 if city else 0.5) else 0.0
        )
        #: Cars at an angle to the kerb, on the verge: the side, and the angle.
        self.bays: tuple[float, float] | None = None
        if not old and r.random() < 0.1:
            self.bays = (r.choice((-1.0, 1.0)), r.choice((0.5, 0.5, 0.35, 0.25)) * math.pi)
            self.verge = 5.2
        self.pavement = (
            r.uniform(0.6, 1.8) if old else r.uniform(1.4, 4.5) if r.random() < 0.9 else 0.3
        )
        #: Whether things stand along the back of the pavement.
        self.furnished = self.pavement > 2.2
        self.centre = Wave.draw(r, ((14.0, 320.0), (3.5, 140.0)))
        steep = r.choice((0.3, 1.0, 1.0, 2.0))
        self.grade = Wave.draw(r, ((3.0 * steep, 420.0), (0.5 * steep, 130.0)))
        self.kerbs = Wave.draw(r, ((0.25, 37.0), (0.2, 11.0)))
        bank = (0.6 if city else 1.8) * r.choice((0.5, 1.0, 2.0))
        self.bank_left = Wave.draw(r, ((bank, 140.0), (0.4 * bank, 50.0)))
        self.bank_right = Wave.draw(r, ((bank, 140.0), (0.4 * bank, 50.0)))
        g = np.zeros(gr.GROUND_SIZE)
        g[gr.HALF_WIDTH] = self.half_width
        g[gr.VERGE] = self.verge
        g[gr.PAVEMENT] = self.pavement
        g[gr.KERB] = 0.0 if r.random() < 0.04 else r.uniform(0.03, 0.17)
        g[gr.KERB_WIDTH] = r.choice((0.04, 0.04, 0.08, 0.25))
        g[gr.WALK_SLOPE] = r.choice((0.0, r.uniform(-0.01, 0.025), r.uniform(0.01, 0.06)))
        g[gr.ROUGH_ROAD] = r.choice((0.0, r.uniform(0.0, 0.01), r.uniform(0.0, 0.022)))
        g[gr.ROUGH_WALK] = r.choice((0.0, r.uniform(0.0, 0.01), r.uniform(0.0, 0.022)))
        g[gr.MOWN] = r.choice((0.0, r.random(), r.random(), 1.0))
        g[gr.DROPPED] = r.uniform(0.0, 1.0)
        g[gr.PATH_HALF] = r.uniform(0.6, 1.9)
        g[gr.ZEBRA] = 1.0 if r.random() < 0.35 else 0.0
        g[gr.RUT] = r.choice((0.0, r.uniform(0.0, 0.02)))
        g[gr.LANE] = self.lane
        g[gr.CROSS_SLOPE] = r.gauss(0.0, r.choice((0.008, 0.025)))
        g[gr.CAMBER] = r.uniform(0.0, 0.03)
        g[gr.BANK_START] = r.uniform(0.0, 4.0)
        g[gr.BANK_LENGTH] = r.uniform(4.0, 16.0)
        g[gr.BUMP] = r.choice((r.uniform(0.0, 0.08), r.uniform(0.03, 0.28)))
        g[gr.BUMP_LENGTH] = r.uniform(2.0, 7.0)
        g[gr.TUFT] = r.choice((0.008, r.uniform(0.008, 0.02), r.uniform(0.01, 0.05)))
        g[gr.NOISE_SEED] = r.randrange(1 << 16)
        g[gr.PATH] = r.uniform(4.0, 18.0) if r.random() < 0.3 else 0.0
        g[gr.CORNER] = r.uniform(4.0, 20.0)
        g[gr.VERGE_GRASS] = 1.0 if r.random() < 0.8 else 0.0
        g[gr.LANES] = r.choice((0.0, 1.0, 1.0, 2.0))
        g[gr.PAVEMENT_MATERIAL] = m.PAVING if r.random() < 0.97 else m.ASPHALT
        g[gr.ROAD_MATERIAL] = m.ASPHALT if r.random() < 0.97 else m.PAVING
        g[gr.HILL] = r.uniform(0.0, 0.4 if city else 1.6)
        self.ground = g
        #: Factors on how much of each there is.
        self.parked = r.uniform(0.1, 0.9)
        self.people = r.choice((r.uniform(0.0, 0.5), r.uniform(0.2, 2.2))) * (1.6 if city else 1.0)
        self.poles = r.uniform(0.4, 2.6)
        #: How much stands about that has no class.
        self.clutter = r.uniform(0.1, 1.6) * (1.4 if city else 1.0)
        #: Share of the trees that stand bare.
        self.bare = r.choice((0.0, 0.0, 0.0, r.uniform(0.0, 0.3), r.uniform(0.5, 1.0)))
        #: Distance between the trees of an avenue, m; 0 = none.
        self.avenue = r.uniform(6.0, 14.0) if r.random() < 0.22 else 0.0
        #: How far parked cars stand on the kerb, m.
        self.on_kerb = r.uniform(0.3, 1.2) if r.random() < 0.25 else 0.0
        self.rough_grass = r.choice((0.0, r.uniform(0.0, 1.0), r.uniform(0.0, 2.5)))
        self.street_trees = r.uniform(0.0, 1.0)
        self.greenery = r.uniform(0.7, 2.6)
        self.tree_size = r.uniform(0.7, 1.4)
        self.setback = (
            r.uniform(0.0, 0.5) if old else r.uniform(0.0, 2.0) if city else r.uniform(0.5, 6.0)
        )
        self.storeys = r.uniform(2.0, 6.0)
        self.speed = 0.0 if r.random() < 0.15 else r.uniform(3.0, 13.5)
        self.traffic = r.uniform(0.1, 1.0)
        #: Speed of the own car once it has left a side street.
        self.cruise = r.uniform(3.0, 9.0) if r.random() < 0.7 else 0.0
        #: Share of the junctions with traffic lights.
        self.signals = r.choice((0.0, 0.0, 0.5, 1.0)) * (1.0 if city else 0.6)
        # Half of the streets start near a junction.
        self.junction_share = r.uniform(0.3, 1.0)
        self.start = 0.0
        junctions = self.junctions(-80.0, 200.0)
        if junctions and r.random() < 0.5:
            self.start = r.choice(junctions)[0] + r.uniform(-18.0, 12.0)
        #: Where the own car waits in a side street instead of driving along: (junction, skew,
        #: side, metres behind the kerb of the main road).
        self.mouth: tuple[float, float, float, float] | None = None
        if junctions and r.random() < 0.2:
            x, skew, _, only, *_ = r.choice(junctions)
            side = only or r.choice((-1.0, 1.0))
            self.mouth = (x, skew, side, r.choice((r.uniform(2.0, 8.0), r.uniform(4.0, 26.0))))
            self.start, self.speed = x, 0.0
        self.ego_shift = r.gauss(0.0, 0.3)
        self.ego_yaw = r.gauss(0.0, 0.04)
        #: Intensities differ from street to street as well as from sensor to sensor.
        self.materials = m.MATERIALS.copy()
        for material, row in enumerate(self.materials):
            # Grounds keep their order: asphalt is darker than paving almost everywhere.
            spread = 0.1 if material in (m.ASPHALT, m.PAVING, m.GRASS, m.SOIL) else 0.25
            row[0] = min(row[0] * r.uniform(1.0 - spread, 1.0 + spread), 1.0)
            smooth = material in (m.ASPHALT, m.PAVING, m.GRASS, m.SOIL)
            row[1] *= r.uniform(0.3, 1.2) if smooth else r.uniform(0.6, 2.0)
            row[3] *= r.uniform(0.5, 4.0) if material in (m.BARK, m.BRICK) else 1.0
        self.materials[m.GRASS, 0] *= 1.1
        if r.random() < 0.92:
            self.materials[m.SOIL, :2] = self.materials[m.GRASS, :2]
        self.sensor = Sensor(
            unit=r.randrange(1 << 16),
            columns=r.randint(2130, 2170),
            height=r.uniform(1.6, 1.9),
            # Mounts are a degree off now and then, and a car leans in bends and when it brakes.
            pitch=r.gauss(0.0, r.choice((0.008, 0.018))),
            roll=r.gauss(0.0, r.choice((0.008, 0.025))),
            range_noise=r.choice((r.uniform(0.006, 0.012), r.uniform(0.008, 0.022))),
            dropout=r.uniform(0.001, 0.008),
            gain=r.uniform(0.9, 1.24),
            range_bias=r.choice((r.uniform(0.0, 0.008), r.uniform(0.004, 0.018))),
        )

    def junctions(self, x_from: float, x_to: float) -> list[tuple[float, ...]]:
        """Other roads that join or cross the main road between two x: x, skew, half width, side,
        verge, pavement, corner radius (the columns of the crossings in ``ground.py``)."""
        found = []
        first, last = math.floor(x_from / JUNCTION_PITCH), math.ceil(x_to / JUNCTION_PITCH)
        for i in range(first - 1, last + 1):
            if i not in self._junctions:
                r = Random(f"junction {self.seed} {i}")
                wide = r.random() < 0.3
                drawn = (
                    (i + r.uniform(0.2, 0.8)) * JUNCTION_PITCH,
                    r.uniform(-0.25, 0.25),
                    r.uniform(4.0, 7.5) if wide else r.uniform(2.6, 4.5),
                    r.choice((-1.0, 0.0, 0.0, 1.0)),
                    self.verge * r.choice((0.0, 1.0)) if r.random() < 0.7 else r.uniform(0.5, 3.0),
                    self.pavement if r.random() < 0.4 else r.uniform(1.0, 4.0),
                    float(self.ground[gr.CORNER]) * r.uniform(0.7, 1.3),
                )
                self._junctions[i] = drawn if r.random() < self.junction_share else None
            junction = self._junctions[i]
            if junction is not None and x_from <= junction[0] <= x_to:
                found.append(junction)
        return found

    def plot(self, chunk: int, side: float) -> str:
        """What lies along one chunk on one side (+1 left, -1 right); neighbours are alike."""
        r = Random(f"plot {self.seed} {side} {chunk // 2}")
        if r.random() < 0.35:
            r = Random(f"plot {self.seed} {side} {chunk}")
        return r.choices(PLOTS, self.plots)[0]

    def edge(self, chunk: int, side: float) -> Edge:
        """What the plot of a chunk does to the ground."""
        if (chunk, side) not in self._edges:
            r = Random(f"edge {self.seed} {side} {chunk}")
            plot = self.plot(chunk, side)
            surface = 3.0 if r.random() < 0.12 else 0.0
            if plot in ("block", "plaza"):
                surface = 1.0 if r.random() < 0.85 else 0.0
            elif plot == "car park":
                surface = 2.0
            share = {"houses": 0.85, "block": 0.15, "yard wall": 0.5, "field": 0.25}.get(plot, 0.05)
            drive = r.choice((-8.5, 8.5)) if r.random() < share else None
            self._edges[chunk, side] = Edge(plot, surface, drive, r.uniform(1.3, 2.4))
        return self._edges[chunk, side]

    def table(self, x_from: int, rows: int) -> NDArray[np.float64]:
        """The table of ``ground.py`` for x = x_from, x_from + 1, ..."""
        x = np.arange(x_from, x_from + rows, dtype=np.float64)
        table = np.empty((rows, gr.T_SIZE))
        table[:, gr.T_CENTRE] = self.centre(x)
        table[:, gr.T_SLOPE] = (self.centre(x + 0.5) - self.centre(x - 0.5)) / 1.0
        table[:, gr.T_HEIGHT] = self.grade(x)
        table[:, gr.T_BANK_LEFT] = self.bank_left(x)
        table[:, gr.T_BANK_RIGHT] = self.bank_right(x)
        chunks = np.floor(x / CHUNK).astype(int)
        first, last = int(chunks[0]), int(chunks[-1])
        kerbs = np.clip(1.0 + self.kerbs(x), 0.3, 1.4)
        for plot, kerb, side in (
            (gr.T_PLOT_LEFT, gr.T_KERB_LEFT, 1.0),
            (gr.T_PLOT_RIGHT, gr.T_KERB_RIGHT, -1.0),
        ):
            edges = [self.edge(c, side) for c in range(first, last + 1)]
            table[:, plot] = np.array([edge.surface for edge in edges])[chunks - first]
            table[:, kerb] = kerbs
            for chunk, edge in enumerate(edges, first):
                if edge.drive is not None:
                    middle = (chunk + 0.5) * CHUNK + edge.drive
                    table[np.abs(x - middle) < edge.half + 0.5, kerb] *= 0.2
        return table

    def on_road(self, x: float, lateral: float) -> tuple[float, float, float]:
        """World x, y and heading of the place ``lateral`` metres left of the centre line at x."""
        y, slope = self.centre.at(x)
        heading = math.atan(slope)
        return x - lateral * math.sin(heading), y + lateral * math.cos(heading), heading

    def on_crossing(
        self, junction: tuple[float, ...], along: float, right: float
    ) -> tuple[float, float, float]:
        """World x, y and heading (towards the left of the main road) of the place ``along`` metres
        from the main centre line on a crossing road, ``right`` metres beside its own."""

        def at(v: float) -> tuple[float, float]:
            x = junction[0] + junction[1] * v + right * math.hypot(1.0, junction[1])
            y, slope = self.centre.at(x)
            return x, y + v * math.hypot(1.0, slope)

        (ax, ay), (bx, by) = at(along - 0.5), at(along + 0.5)
        return (*at(along), math.atan2(by - ay, bx - ax))

    def cross_lane(self, junction: tuple[float, ...]) -> float:
        """Distance of the lanes of a crossing road from its centre line; wide ones have cars
        parked on both sides (``parked_across``)."""
        half = junction[2]
        return 0.5 * (half - 2.2) if self.parked_across(junction) else 0.5 * half

    def parked_across(self, junction: tuple[float, ...]) -> bool:
        """Whether a crossing road is wide enough for parked cars."""
        return junction[2] > 4.4

    def lane_at(self, side: float, lane: int = 0) -> float:
        """Lateral position of a lane on the left (+1) or right (-1) half of the main road."""
        if self.single:
            return 0.0 if not self.parking_right else 1.05
        return side * self.lane * (lane + 0.5)
