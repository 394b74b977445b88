"""Who is under way: the own car, and the cars, trucks, cyclists and people around it.

Vehicles are simulated in steps of a tenth of a second from a few seconds before time 0: they follow
each other, stop at lights and at the mouths of side streets, cross, and turn. The steps always
begin at the same time, so where everybody is follows from the seed and the time alone, in whatever
order times are asked for; what was simulated once is remembered.

Car following is the Intelligent Driver Model (Treiber, Hennecke, Helbing 2000). Lanes and routes are
those of ``roads.py``.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import objects as ob
from perception.datasets.street import vehicles as ve
from perception.datasets.street.course import Place
from perception.datasets.street.roads import Junction, Lane, Roads, Route, Vehicle
from perception.datasets.street.style import Style
from perception.datasets.street.walkers import Walkers

__all__ = ["BEGIN", "Traffic"]

STEP: Final = 0.1
#: Simulated time begins here, s.
BEGIN: Final = -4.0
#: Vehicles of the main road live this far before and behind the own car, m.
WINDOW: Final = 112.0
#: Length of crossing roads on either side, m.
CROSS: Final = 74.0
ACCELERATION: Final = 1.8
BRAKING: Final = 2.5
HEADWAY: Final = 1.2
GAP: Final = 2.0


class Traffic:
    """Everybody under way in one street.

    Args:
        style: the street.

    Places are known from ``BEGIN`` on; earlier times raise ``ValueError``.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.seed = style.seed
        self._r = Random(f"traffic {self.seed}")
        self._count = 0
        self._time = BEGIN
        self._roads = Roads(style)
        self._filled: set[float] = set()  # crossing roads that have had traffic put on them
        self._vehicles: list[Vehicle] = []
        self._history: list[list[tuple[Vehicle, float]]] = []
        self._walkers = Walkers(style)
        r = self._r
        self.lane_speed = {
            (side, lane): (
                style.speed
                if style.speed > 0.0 and style.mouth is None and side == -style.hand and lane == 0
                else r.uniform(4.0, 13.5)
            )
            for side in (1.0, -1.0)
            for lane in range(style.lanes)
        }
        # Nobody is quite parallel to the lane, but stays within it.
        slack = max(0.5 * (style.lane - 1.85) - 0.05, 0.0) / 2.2
        self._own_turn = min(max(style.ego_yaw, -slack), slack)
        self._own = self._own_car()
        self._vehicles.append(self._own)
        self._renew()
        self._remember()

    # What there is.

    def own(self, time: float) -> Place:
        """World x, y and yaw of the own car at a time."""
        k, f = self._until(time)
        (vehicle, a), (_, b) = self._history[k][0], self._history[k + 1][0]
        x, y, yaw = self._place(vehicle, a + f * (b - a))
        return x, y, yaw + self._own_turn

    def states(
        self, time: float
    ) -> tuple[list[ob.Item], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Items, poses (x, y, yaw), velocities (world) and track ids of all others at a time."""
        k, f = self._until(time)
        later = {vehicle.track: s for vehicle, s in self._history[k + 1]}
        items: list[ob.Item] = []
        poses: list[Place] = []
        velocities: list[tuple[float, float]] = []
        tracks: list[int] = []
        for vehicle, a in self._history[k][1:]:
            b = later.get(vehicle.track)
            if b is None:
                continue  # it leaves, far off
            s = a + f * (b - a)
            place = self._place(vehicle, s)
            ahead = self._place(vehicle, s + (b - a))
            item = vehicle.item
            if vehicle.kind == "cyclist":
                item = ob.cyclist(Random(vehicle.name), s * 1.1)
            items.append(item)
            poses.append(place)
            velocities.append(((ahead[0] - place[0]) / STEP, (ahead[1] - place[1]) / STEP))
            tracks.append(vehicle.track)
        own = self.own(time)
        self._walkers.append_to(time, own[0], items, poses, velocities, tracks)
        return (
            items,
            np.array(poses, dtype=np.float64).reshape(-1, 3),
            np.array(velocities, dtype=np.float64).reshape(-1, 2),
            np.array(tracks, dtype=np.int64),
        )

    def _until(self, time: float) -> tuple[int, float]:
        """Simulate as far as needed: the step before a time and the fraction of it."""
        if time < BEGIN:
            raise ValueError(f"Traffic: time {time:g} s; a street begins at {BEGIN:g} s")
        steps = (time - BEGIN) / STEP
        k = math.floor(steps + 1e-9)
        while len(self._history) < k + 2:
            self._step()
            self._remember()
        return k, max(steps - k, 0.0)

    def _remember(self) -> None:
        self._history.append([(vehicle, vehicle.s) for vehicle in self._vehicles])

    def _place(self, vehicle: Vehicle, s: float) -> Place:
        x, y, yaw = vehicle.route.course.at(s)
        return (
            x - vehicle.shift * math.sin(yaw),
            y + vehicle.shift * math.cos(yaw),
            yaw,
        )

    # Who comes and goes.

    def _own_car(self) -> Vehicle:
        style = self.style
        item = ob.Item([], (4.4, 1.85, 1.5))
        if style.mouth is not None:
            x, _, side, back = style.mouth
            row = next(row for row in style.junctions(x - 0.5, x + 0.5) if row[0] == x)
            junction = self._roads.junction(row)
            near = style.single or self._r.random() < 0.75
            route = self._roads.into_main(junction, -side, near)
            assert route is not None
            line = -(self._roads.line(junction) + 0.5 + 0.5 * 4.4)
            s = min(-(style.half_width + back), line)
            return Vehicle("own", "car", item, 0, route, 0.0, style.cruise, s, 0.0)
        lane: Lane = ("main", -style.hand, 0.0)
        # Where it is at time 0 is drawn; before that it has driven at its speed.
        u = style.start + style.speed * BEGIN
        room = max(0.5 * (style.lane - 1.85) - abs(self._own_turn) * 2.2, 0.0)
        shift = min(max(style.ego_shift, -room), room) if not style.single else style.ego_shift
        return Vehicle(
            "own",
            "car",
            item,
            0,
            Route(self._roads.main(lane), lane),
            shift,
            style.speed,
            u,
            style.speed,
        )

    def _make(self, kind: str, route: Route, s: float, wish: float, room: float) -> Vehicle:
        """A vehicle that fits a lane ``room`` metres wide, or a car."""
        self._count += 1
        name = f"vehicle {self.seed} {self._count}"
        build = {"car": ve.car, "truck": ve.truck, "cyclist": ob.cyclist}[kind]
        item = build(Random(name))
        assert item.size is not None
        slack = 0.5 * (room - item.size[1]) - 0.1
        if kind == "truck" and slack < 0.0:
            kind, item = "car", ve.car(Random(name))
            assert item.size is not None
            slack = 0.5 * (room - item.size[1]) - 0.1
        shift = self._r.gauss(0.0, 0.15)
        if kind == "cyclist":
            shift = -self.style.hand * self._r.uniform(0.2, 0.8)
        slack = max(slack, 0.0)
        return Vehicle(
            name, kind, item, self._count, route, min(max(shift, -slack), slack), wish, s, wish
        )

    def _kind(self) -> str:
        chance = self._r.random()
        return "truck" if chance < 0.2 else "cyclist" if chance > 0.9 else "car"

    def _enter(self, vehicle: Vehicle) -> bool:
        """Let a vehicle in if nobody is near the place in its lane."""
        lane, u = vehicle.lanes()[0]
        for other in self._vehicles:
            for its_lane, its_u in other.lanes():
                if its_lane == lane:
                    gap = abs(its_u - u) - 0.5 * (vehicle.length + other.length)
                    behind, front = (vehicle, other) if its_u > u else (other, vehicle)
                    closing = max(behind.v - front.v, 0.0)
                    if gap < GAP + 1.0 + 0.8 * behind.v + closing * closing / 4.0:
                        return False
        self._vehicles.append(vehicle)
        return True

    def _renew(self) -> None:
        """Take out who has left, let newcomers in at the ends of the lanes."""
        style, r = self.style, self._r
        own_x = self._place(self._own, self._own.s)[0]
        begin = not self._history
        active: list[Junction] = []
        for row in style.junctions(own_x - WINDOW, own_x + WINDOW):
            junction = self._roads.junction(row)
            active.append(junction)
            if row[0] not in self._filled:
                self._filled.add(row[0])
                self._fill_crossing(junction, begin)
        known = {junction.x for junction in active}
        kept = []
        for vehicle in self._vehicles:
            lane, u = vehicle.lanes()[-1]
            if lane[0] == "main":
                stays = abs(u * self._roads.direction(lane) - own_x) < WINDOW + 8.0
            else:
                stays = u < CROSS and lane[1] in known
            if stays or vehicle is self._own:
                kept.append(vehicle)
        self._vehicles = kept
        if begin:
            for lane in self._roads.main_lanes():
                at = -WINDOW + r.uniform(8.0, 20.0)
                while at < WINDOW:
                    if r.random() < 0.6 * style.traffic:
                        self._come(lane, self._roads.direction(lane) * own_x + at, active)
                    at += r.uniform(9.0, 36.0)
            return
        if r.random() < 0.06 * style.traffic:
            lane = r.choice(self._roads.main_lanes())
            along = self._roads.direction(lane) > 0.0
            end = -WINDOW if not along or r.random() < 0.5 else WINDOW
            self._come(lane, self._roads.direction(lane) * own_x + end, active)
        if active and r.random() < 0.05 * style.traffic:
            self._come_across(r.choice(active), -CROSS + 2.0)

    def _come(self, lane: Lane, u: float, active: list[Junction]) -> None:
        r, d = self._r, self._roads.direction(lane)
        if any(abs(j.x - d * u) < j.zone_x + 10.0 for j in active):
            return
        wish = max(self.lane_speed[lane[1], int(lane[2])] * r.uniform(0.8, 1.15), 3.0)
        kind = self._kind()
        if kind == "cyclist":
            wish = r.uniform(3.5, 7.0)
            if lane[1] == -self.style.hand and u > d * self._own.s - 5.0:
                kind, wish = "car", self.style.speed + 3.0  # nobody slows the own car down for long
        route = Route(self._roads.main(lane), lane)
        ahead = [j for j in active if d * j.x > u + j.zone_x + 20.0]
        if ahead and kind == "car" and r.random() < 0.25:
            turn = self._roads.out_of_main(min(ahead, key=lambda j: d * j.x), lane)
            route = turn or route
        room = 2.0 * self.style.half_width if self.style.single else self.style.lane
        self._enter(self._make(kind, route, u, wish, room))

    def _come_across(self, junction: Junction, u: float, standing: bool = False) -> None:
        r = self._r
        only = junction.row[3]
        d = -only if only != 0.0 else r.choice((-1.0, 1.0))
        mouth = self.style.mouth
        own = mouth is not None and (junction.x, d) == (mouth[0], -mouth[2])
        if own and u > -CROSS + 3.0:
            return  # the own car comes from there
        route: Route | None = Route(self._roads.cross(junction, d), ("cross", junction.x, d))
        kind = self._kind()
        if only != 0.0 and self._roads.tight:
            return
        if only != 0.0 or (r.random() < 0.45 and not self._roads.tight):
            route = self._roads.into_main(junction, d, near=r.random() < 0.7)
            kind = "car"
        assert route is not None
        wish = r.uniform(5.0, 10.0) if kind != "cyclist" else r.uniform(3.5, 6.0)
        vehicle = self._make(kind, route, u, wish, 2.0 * self.style.cross_lane(junction.row))
        if standing:
            line = self._roads.line(junction) + r.uniform(0.5, 1.5)
            vehicle.s = -(line + 0.5 * vehicle.length)
            vehicle.v = 0.0
        self._enter(vehicle)

    def _fill_crossing(self, junction: Junction, begin: bool) -> None:
        r, style = self._r, self.style
        if begin and r.random() < 0.2 + 0.5 * style.traffic:
            self._come_across(junction, 0.0, standing=True)
        for _ in range(5):
            if r.random() < 0.5 * style.traffic:
                self._come_across(junction, r.uniform(-CROSS + 2.0, -style.half_width - 14.0))
        # Those who have passed already.
        for d in (-1.0, 1.0):
            if junction.row[3] in (0.0, d) and r.random() < 0.4 * style.traffic:
                route = Route(self._roads.cross(junction, d), ("cross", junction.x, d))
                room = 2.0 * style.cross_lane(junction.row)
                u = r.uniform(style.half_width + 12.0, CROSS)
                self._enter(self._make(self._kind(), route, u, r.uniform(5.0, 10.0), room))

    # One step.

    def _step(self) -> None:
        self._time += STEP
        lanes: dict[Lane, list[tuple[float, Vehicle]]] = {}
        for vehicle in self._vehicles:
            for lane, u in vehicle.lanes():
                lanes.setdefault(lane, []).append((u, vehicle))
        for row in lanes.values():
            row.sort(key=lambda entry: entry[0])
        own_x = self._place(self._own, self._own.s)[0]
        near = [j for j in self._roads.junctions.values() if abs(j.x - own_x) < WINDOW + 20.0]
        zones = {j.x: self._occupants(j, lanes) for j in near}
        moves = []
        for vehicle in self._vehicles:
            room, speed = self._room(vehicle, lanes)
            if vehicle.wish <= 0.0:
                moves.append((vehicle, 0.0))
                continue
            if vehicle.route.next_lane is not None and vehicle.s < vehicle.route.s2:
                slow = max(vehicle.route.s1 - vehicle.s, 0.0)
                limit = math.sqrt(vehicle.route.bend_speed**2 + 3.0 * slow)
            else:
                limit = vehicle.wish
            stop = self._stop(vehicle, near, zones, lanes)
            if stop < room:
                room, speed = stop, 0.0
            wish = min(vehicle.wish, limit)
            v = vehicle.v
            free = 1.0 - (v / wish) ** 4 if v < wish else -(v - wish) * 1.2
            wanted = GAP + max(
                v * HEADWAY + v * (v - speed) / (2.0 * math.sqrt(ACCELERATION * BRAKING)), 0.0
            )
            a = ACCELERATION * (free - (wanted / max(room + GAP, 0.1)) ** 2)
            v = max(v + max(a, -7.0) * STEP, 0.0)
            moves.append((vehicle, min(v, max(room, 0.0) / STEP)))
        for vehicle, v in moves:
            vehicle.v = v
            vehicle.s += v * STEP
        self._renew()

    def _room(
        self, vehicle: Vehicle, lanes: dict[Lane, list[tuple[float, Vehicle]]]
    ) -> tuple[float, float]:
        """Free metres up to the next one ahead less a little, and its speed."""
        best, speed = 1e6, 0.0
        route = vehicle.route
        places = [(lane, u, u) for lane, u in vehicle.lanes()]
        if route.next_lane is not None and route.s1 - 25.0 < vehicle.s < route.s1:
            # Of the lane to come, what stands behind the end of the bend.
            start = route.s2 + route.next_offset
            places.append((route.next_lane, vehicle.s + route.next_offset, start))
        for lane, u, start in places:
            for its_u, other in lanes.get(lane, ()):
                if other is vehicle or its_u < start:
                    continue
                gap = its_u - u - 0.5 * (vehicle.length + other.length) - 0.8
                if gap < best:
                    best, speed = gap, other.v
                break
        return best, speed

    def _occupants(
        self, junction: Junction, lanes: dict[Lane, list[tuple[float, Vehicle]]]
    ) -> tuple[list[Vehicle], dict[float, list[Vehicle]]]:
        """Who is in a junction: from the main road, and from either side of the crossing one."""
        main: list[Vehicle] = []
        cross: dict[float, list[Vehicle]] = {-1.0: [], 1.0: []}
        for lane in self._roads.main_lanes():
            d = self._roads.direction(lane)
            for u, vehicle in lanes.get(lane, ()):
                if abs(d * u - junction.x) < junction.zone_x + 0.5 * vehicle.length:
                    if vehicle.route.lane[0] == "main":
                        main.append(vehicle)
                    elif vehicle.s < vehicle.route.s2:
                        cross[vehicle.route.lane[2]].append(vehicle)
        for d in (-1.0, 1.0):
            for u, vehicle in lanes.get(("cross", junction.x, d), ()):
                waiting = vehicle.committed == junction.x and u < 0.0
                if abs(u) < junction.zone_v + 0.5 * vehicle.length or waiting:
                    if vehicle.route.lane[0] == "main":
                        if vehicle.s < vehicle.route.s2:
                            main.append(vehicle)
                    elif vehicle not in cross[d]:
                        cross[d].append(vehicle)
        return main, cross

    def _stop(
        self,
        vehicle: Vehicle,
        near: list[Junction],
        zones: dict[float, tuple[list[Vehicle], dict[float, list[Vehicle]]]],
        lanes: dict[Lane, list[tuple[float, Vehicle]]],
    ) -> float:
        """Metres to the line at which a vehicle must stop now; large when it may go on."""
        best = 1e6
        lane, u = vehicle.lanes()[0]
        half = 0.5 * vehicle.length
        if lane[0] == "main":
            d = self._roads.direction(lane)
            for junction in near:
                room = d * junction.x - u - junction.zone_x - half - 1.5
                if not -0.5 < room < 70.0:
                    continue
                _, cross = zones[junction.x]
                shut = junction.signal and not junction.green(self._time, True)
                if shut and vehicle.v * vehicle.v > 8.0 * max(room, 0.1):
                    shut = False  # too late to stop
                if shut or cross[-1.0] or cross[1.0]:
                    best = min(best, room)
            return best
        if vehicle.s >= vehicle.route.s1:
            return best
        junction = self._roads.junctions[lane[1]]
        room = -u - self._roads.line(junction) - half
        if room < -0.6 or room > 40.0 or vehicle.committed == junction.x:
            return best
        if room > 2.5:
            return room  # everybody from a side street slows down to the line
        main, cross = zones[junction.x]
        shut = junction.signal and not junction.green(self._time, False)
        if shut or main or cross[-lane[2]] or self._coming(vehicle, junction, lanes):
            return room
        vehicle.committed = junction.x
        cross[lane[2]].append(vehicle)
        return best

    def _coming(
        self,
        vehicle: Vehicle,
        junction: Junction,
        lanes: dict[Lane, list[tuple[float, Vehicle]]],
    ) -> bool:
        """Whether somebody on the main road arrives before a vehicle at the line is across."""
        way = 2.0 * (self.style.half_width + 1.5) + vehicle.length
        needed = math.sqrt(2.0 * way / ACCELERATION) + 1.5
        if vehicle.kind == "cyclist" or vehicle.route.next_lane is not None:
            needed += 4.0 if self._roads.tight else 1.5
        for lane in self._roads.main_lanes():
            d = self._roads.direction(lane)
            for u, other in lanes.get(lane, ()):
                gap = d * junction.x - u - junction.zone_x - 0.5 * other.length
                if gap < 0.0 or other.wish <= 0.0:
                    continue
                reach = max(other.v, 3.0) * needed + 2.0
                if junction.signal and other.v < 0.5:
                    reach = 0.0  # it waits at its red light
                if gap < reach:
                    return True
        # The way out must be free too.
        room, speed = self._room(vehicle, lanes)
        return room < way and speed < 3.0
