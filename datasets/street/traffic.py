"""Who is under way: the own car, and the cars, trucks, cyclists and people around it.

Where everybody is follows from the seed and the time alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import objects as ob
from perception.datasets.street.style import Style

__all__ = ["Traffic"]

#: Moving things live on a loop of this length centred on the own car; it closes out of sight.
LOOP: Final = 200.0


@dataclass(slots=True)
class Mover:
    """Somebody under way along the street at constant speed."""

    kind: str
    seed: str
    start: float  # along x at time 0, relative to the own car, m
    lateral: float  # left of the centre line, m
    speed: float  # along x, m/s


class Traffic:
    """Everybody under way in one street."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.seed = style.seed
        self._own_lateral = self._lane(-style.hand) + style.ego_shift
        self._movers = self._draw()

    def _lane(self, side: float, lane: int = 0) -> float:
        """Lateral position of a lane on the left (+1) or right (-1) half of the road."""
        if self.style.single:
            return 0.0 if not self.style.parking_right else 1.05
        return side * self.style.lane * (lane + 0.5)

    def _draw(self) -> list[Mover]:
        style = self.style
        r = Random(f"traffic {self.seed}")
        movers: list[Mover] = []
        for side in (-1.0, 1.0):
            along = side == -style.hand  # the own direction
            for lane in range(0 if style.single and not along else style.lanes):
                own = along and lane == 0
                speed = (
                    style.speed
                    if own and style.mouth is None
                    else r.uniform(3.0, 14.0) * (1.0 if along else -1.0)
                )
                at = -0.5 * LOOP + r.uniform(8.0, 20.0)
                while at < 0.5 * LOOP - 12.0:
                    if r.random() < 0.55 * style.traffic and not (own and abs(at) < 12.0):
                        wide = style.lane > 2.6 and abs(at) > 14.0 and r.random() < 0.4
                        kind = "truck" if wide else "car"
                        shift = r.gauss(0.0, 0.15)
                        name = f"mover {self.seed} {len(movers)}"
                        movers.append(Mover(kind, name, at, self._lane(side, lane) + shift, speed))
                    at += r.uniform(14.0, 40.0)
            edge = style.lane * style.lanes
            for _ in range(int(r.uniform(0.0, 3.5))):
                speed = r.uniform(2.5, 6.5) * (1.0 if along else -1.0)
                lateral = side * (
                    edge - 0.5 if r.random() < 0.4 else style.half_width + 0.6 + style.verge
                )
                movers.append(self._mover("cyclist", r, len(movers), lateral, speed))
            for _ in range(int(r.uniform(0.0, 4.0 * style.people))):
                speed = r.uniform(0.6, 1.8) * r.choice((-1.0, 1.0))
                walk = style.half_width + style.verge
                lateral = walk + r.uniform(0.4, max(style.pavement - 0.3, 0.5))
                if r.random() < 0.1:
                    lateral = edge - 0.3
                movers.append(self._mover("person", r, len(movers), side * lateral, speed))
        # Nobody walks or rides through the own car.
        return [
            mover
            for mover in movers
            if mover.kind in ("car", "truck") or abs(mover.lateral - self._own_lateral) > 1.8
        ]

    def _mover(self, kind: str, r: Random, number: int, lateral: float, speed: float) -> Mover:
        return Mover(
            kind, f"mover {self.seed} {number}", r.uniform(-0.5, 0.5) * LOOP, lateral, speed
        )

    def _own_x(self, time: float) -> float:
        return self.style.start + self.style.speed * time

    def own(self, time: float) -> tuple[float, float, float]:
        """World x, y and yaw of the own car at a time."""
        along, lateral, turn = self._own_x(time), self._own_lateral, self.style.ego_yaw
        if self.style.mouth is not None:
            junction, skew, side, back = self.style.mouth
            lateral = side * (self.style.half_width + back)
            along = junction + skew * lateral - side * self.style.hand * 1.2
            turn -= side * 0.5 * math.pi + math.atan(skew)
        x, y, heading = self.style.on_road(along, lateral)
        return x, y, heading + turn

    def states(
        self, time: float
    ) -> tuple[list[ob.Item], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Items, poses (x, y, yaw), velocities (world) and track ids at a time."""
        items, poses, velocities, tracks = [], [], [], []
        own = self._own_x(time)
        for i, mover in enumerate(self._movers):
            x = self.style.start + mover.start + mover.speed * time
            loops = math.floor((x - own) / LOOP + 0.5)
            x -= loops * LOOP
            wx, wy, heading = self.style.on_road(x, mover.lateral)
            ax, ay, _ = self.style.on_road(x + 0.01, mover.lateral)
            velocity = ((ax - wx) * 100.0 * mover.speed, (ay - wy) * 100.0 * mover.speed)
            r = Random(f"{mover.seed} {loops}")
            phase = r.uniform(0.0, 6.0) + time * 2.0 * math.pi * abs(mover.speed) / 1.4
            if mover.kind == "car":
                item = ob.car(r)
            elif mover.kind == "truck":
                item = ob.truck(r)
            elif mover.kind == "cyclist":
                item = ob.cyclist(r, phase * 0.3)
            else:
                item = ob.person(r, 0.55 * math.sin(phase))
            items.append(item)
            poses.append((wx, wy, heading + (math.pi if mover.speed < 0.0 else 0.0)))
            velocities.append(velocity)
            tracks.append(1 + i + 500 * (loops % 150))
        return (
            items,
            np.array(poses, dtype=np.float64).reshape(-1, 3),
            np.array(velocities, dtype=np.float64).reshape(-1, 2),
            np.array(tracks, dtype=np.int64),
        )
