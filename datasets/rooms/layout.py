"""Furnishes rooms: which things a kind of room has, and where they go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from perception.datasets.rooms import decor as de
from perception.datasets.rooms import furniture as fu
from perception.datasets.rooms.look import Look
from perception.datasets.rooms.placing import Placed, Placer
from perception.datasets.rooms.plan import Plan
from perception.datasets.rooms.shapes import Item, Vector

__all__ = ["KINDS", "Furnished", "furnish"]

#: Kinds of rooms.
KINDS: Final[tuple[str, ...]] = ("living", "bedroom", "office", "dining", "meeting")


@dataclass(slots=True)
class Furnished:
    """A room with everything in it.

    Attributes:
        plan, look, placer: its shell, its materials and what stands where.
        bulbs: middle of each ceiling lamp.
        panes: middle, width, height and heading of each window pane.
    """

    plan: Plan
    look: Look
    placer: Placer
    bulbs: list[Vector]
    panes: list[tuple[Vector, float, float, float]]


def furnish(seed: int, kind: str, *, people: bool, ceiling: bool) -> Furnished:
    """The room of a seed."""
    r = Random(f"room {seed} {kind}")
    plan, look = Plan(r, kind), Look(r)
    placer = Placer(r, plan)
    for item in plan.shell(r, look, ceiling=ceiling):
        placer.build_in(item)
    for item in plan.doors(r, look):
        placer.build_in(item)
    windows, panes = plan.windows(r, look)
    for item in windows:
        placer.build_in(item)
    for wall in plan.walls:
        for o in wall.openings:
            middle, wide = 0.5 * (o.start + o.end), o.end - o.start
            if o.kind == "door":
                placer.keep_free((1.0, wide + 0.1, 2.0), wall.at(middle, 0.5, 1.02), wall.yaw)
            else:
                high = o.high - o.low
                z = 0.5 * (o.low + o.high)
                placer.keep_free((0.5, wide, high), wall.at(middle, 0.27, z), wall.yaw)
    work = Work(r, plan, look, placer)
    bulbs = work.lights()
    work.heating()
    {
        "living": work.living,
        "bedroom": work.bedroom,
        "office": work.office,
        "dining": work.dining,
        "meeting": work.meeting,
    }[kind]()
    work.finish(people=people)
    return Furnished(plan, look, placer, bulbs, panes)


class Work:
    """The furnishing of one room under way."""

    def __init__(self, r: Random, plan: Plan, look: Look, placer: Placer) -> None:
        self.r, self.plan, self.look, self.placer = r, plan, look, placer
        self.chair_style = fu.ChairStyle(r, look)
        self.sofa_style = fu.SofaStyle(r, look)

    # Parts that several kinds of rooms have.

    def lights(self) -> list[Vector]:
        """One lamp below the ceiling, two in long rooms."""
        r, plan = self.r, self.plan
        count = 2 if plan.length > 5.6 else 1
        drop = r.choice((0.08, 0.1, r.uniform(0.4, 0.7)))
        state = r.getstate()
        bulbs: list[Vector] = []
        for k in range(count):
            r.setstate(state)  # alike
            item = de.ceiling_lamp(r, self.look, drop)
            x = (k - 0.5 * (count - 1)) * 0.5 * plan.length
            y = 0.0 if plan.corner is None else -0.25 * plan.corner[1]
            at = (x, y, plan.height - drop - 0.001)
            if self.placer.put(item, at, 0.0, coarse=True):
                bulbs.append((x, y, at[2] - 0.02))
        return bulbs

    def heating(self) -> None:
        """Radiators below windows, curtains beside them."""
        r, plan, look, placer = self.r, self.plan, self.look, self.placer
        warm, cloth = r.random() < 0.7, look.cushion()
        drapes = r.random() < 0.6
        for wall in plan.walls:
            for o in (o for o in wall.openings if o.kind == "window"):
                middle, wide = 0.5 * (o.start + o.end), o.end - o.start
                if warm:
                    item = de.radiator(r, look, 0.8 * wide)
                    placer.put(item, wall.at(middle, 0.03), wall.yaw, coarse=True)
                if drapes:
                    for s in (o.start - 0.21, o.end + 0.21):
                        item = de.curtain(
                            r, look, cloth, min(o.high + 0.1, plan.height - 0.05), 0.3
                        )
                        if 0.2 < s < wall.length - 0.2:
                            placer.put(item, wall.at(s, 0.02), wall.yaw, coarse=True)

    def rug(self, x: float, y: float, yaw: float, size: tuple[float, float]) -> None:
        """A rug; it is floor to whoever labels it, and things stand in its pile."""
        item = Item("floor", self.r)
        flat = Item("floor", self.r).box(self.look.rug(), (size[0], size[1], 0.007), (0, 0, 0.0035))
        item.add(flat, (x, y, 0.0), yaw)
        c, s = math.cos(yaw), math.sin(yaw)
        for sx in (-0.5, 0.5):
            for sy in (-0.5, 0.5):
                u, v = sx * size[0], sy * size[1]
                if not self.plan.inside(x + c * u - s * v, y + s * u + c * v, 0.03):
                    return
        self.placer.build_in(item)

    def seat_at(self, table: Placed, local: tuple[float, float], toward: float, item: Item) -> bool:
        """A chair at a point of a table's edge, pulled out as far as it needs to be."""
        r = self.r
        c, s = math.cos(table.yaw), math.sin(table.yaw)
        u, v = math.cos(toward), math.sin(toward)
        pull = r.uniform(-0.02, 0.3) if r.random() < 0.8 else r.uniform(0.3, 0.5)
        turn = r.gauss(0.0, 0.12)
        for _ in range(10):
            x, y = local[0] + pull * u, local[1] + pull * v
            at = (table.at[0] + c * x - s * y, table.at[1] + s * x + c * y, 0.0)
            yaw = table.yaw + toward + math.pi + turn
            if self.placer.put(item, at, yaw, gap=0.01):
                return True
            pull += 0.06
            turn *= 0.7
        return False

    def dining_set(self, at: Vector, yaw: float, seats: int) -> Placed | None:
        """A table with chairs around it, its length along its own y."""
        r, look, placer = self.r, self.look, self.placer
        if seats <= 4 and r.random() < 0.45:
            across = r.uniform(0.95, 1.25)
            item = fu.dining_table(r, look, across, across, round_=True)
            if not placer.put(item, at, yaw, gap=0.3):
                return None
            table = placer.placed[-1]
            for k in range(seats):
                a = 2.0 * math.pi * k / seats + r.gauss(0.0, 0.08)
                edge = 0.5 * across
                spot = (edge * math.cos(a), edge * math.sin(a))
                self.seat_at(table, spot, a, fu.chair(r, look, self.chair_style))
            return table
        wide = r.uniform(0.8, 1.0)
        sides = max(1, (seats - (2 if seats > 5 and r.random() < 0.6 else 0)) // 2)
        length = max(1.15, 0.62 * sides + r.uniform(0.1, 0.35))
        item = fu.dining_table(r, look, length, wide, round_=False)
        if not placer.put(item, at, yaw, gap=0.3):
            return None
        table = placer.placed[-1]
        for side in (0.0, math.pi):
            for k in range(sides):
                y = (k - 0.5 * (sides - 1)) * (length - 0.1) / max(sides, 1)
                spot = (0.5 * wide * math.cos(side), y)
                if r.random() < 0.93:
                    self.seat_at(table, spot, side, fu.chair(r, look, self.chair_style))
        if seats > 2 * sides:
            for end in (-1.0, 1.0):
                item = fu.chair(r, look, self.chair_style)
                self.seat_at(table, (0.0, end * 0.5 * length), end * 0.5 * math.pi, item)
        return table

    def litter(self, on: Placed | None, most: int) -> None:
        """Small things, a plant or a lamp on top of something."""
        r = self.r
        if on is None:
            return
        items = []
        for _ in range(r.randrange(1, most + 2)):
            kind = r.random()
            if kind < 0.15:
                items.append(de.pot_plant(r, self.look))
            elif kind < 0.2 and on.item.label == "cabinet":
                items.append(de.table_lamp(r, self.look))
            else:
                items.append(de.small_thing(r, self.look))
        self.placer.on_top(on, items)

    def desk_set(self, walls: bool = True) -> Placed | None:
        """A desk at a wall with a screen, a chair and what lies on it."""
        r, look = self.r, self.look
        item = fu.desk(r, look, r.uniform(1.15, 1.6), r.uniform(0.65, 0.8))
        desk = self.placer.against(item, front=0.0, gap=0.03, coarse=False)
        if desk is None:
            return None
        self._at_desk(desk)
        return desk

    def _at_desk(self, desk: Placed) -> None:
        r, look = self.r, self.look
        screen = de.monitor(r, look)
        top = desk.item.tops[0]
        c, s = math.cos(desk.yaw), math.sin(desk.yaw)
        x, y = top[0] - 0.5 * top[2] + 0.02, r.uniform(-0.15, 0.15)
        at = (desk.at[0] + c * x - s * y, desk.at[1] + s * x + c * y, top[4] + 0.0005)
        self.placer.put(screen, at, desk.yaw, zones=False)
        seat = fu.office_chair(r, look, look.cloth(2))
        if r.random() < 0.25:
            seat = fu.chair(r, look, self.chair_style)
        front = desk.item.extent()[1][0]
        side = -math.copysign(0.12, self._drawer_side(desk))
        self.seat_at(desk, (front + 0.02, side), r.gauss(0.0, 0.05), seat)
        self.litter(desk, 3)

    @staticmethod
    def _drawer_side(desk: Placed) -> float:
        """+1 or -1: where the drawers of a desk are."""
        return max((row[13] * row[14], row[1]) for row in desk.item.rows[1:])[1] or 1.0

    def pictures(self, count: int) -> None:
        """Pictures where walls are free at the height of the eyes."""
        r = self.r
        for _ in range(count):
            wide = r.uniform(0.3, 1.0)
            tall = wide * r.choice((0.7, 0.75, 1.0, 1.35))
            tall = min(tall, 0.95)
            item = de.picture(r, self.look, wide, tall)
            z = r.uniform(1.5, 1.6) - 0.5 * tall
            self.placer.against(item, z=z, gap=0.002, tries=6, coarse=False)

    def shelves(self, count: int) -> None:
        """Bookshelves, low and high."""
        r = self.r
        for _ in range(count):
            high = r.choice((0.85, 1.2, 1.8, 1.95, 2.05))
            item = fu.bookshelf(r, self.look, r.choice((0.6, 0.8, 0.9, 1.2, 1.7)), high)
            shelf = self.placer.against(item, front=0.45)
            if shelf is not None and high < 1.4:
                self.litter(shelf, 3)

    def cabinet(self, *, low: bool = True) -> None:
        """One more cabinet."""
        r, look = self.r, self.look
        if not low and r.random() < 0.5:
            self.placer.against(fu.wardrobe(r, look), front=0.5)
            return
        if r.random() < 0.4:
            item = fu.drawers(r, look)
        else:
            item = fu.sideboard(r, look, r.uniform(0.8, 1.7), high=r.uniform(0.6, 0.9))
        self.litter(self.placer.against(item, front=0.4), 4)

    def in_corner(self, item: Item) -> Placed | None:
        """Something free-standing at a wall, rather in a corner."""
        return self.placer.against(item, gap=0.05, tries=12)

    def finish(self, *, people: bool) -> None:
        """Lamps, plants, pictures, bins and people wherever there is room."""
        r, look = self.r, self.look
        if r.random() < 0.6:
            self.in_corner(de.floor_lamp(r, look))
        for _ in range(r.choice((0, 1, 1, 2, 3))):
            self.in_corner(de.plant(r, look, r.uniform(0.5, 1.5)))
        self.pictures(r.randrange(2, 6))
        if r.random() < 0.5:
            self.in_corner(de.basket(r, look))
        for _ in range(r.choice((0, 1, 2, 3))):
            self._anywhere(r.choice((de.carton, de.toy))(r, look))
        self._fill()
        if people:
            for _ in range(r.choice((1, 1, 2))):
                self._somebody()

    def _fill(self) -> None:
        """Never an empty hall: more furniture until there is a piece on every 3 m²."""
        r, look, plan = self.r, self.look, self.plan
        large = ("table", "cabinet", "bookshelf", "bed", "sofa")
        for _ in range(12):
            have = sum(p.item.label in large for p in self.placer.placed)
            if have > plan.length * plan.width / 3.0:
                return
            kind = r.random()
            if kind < 0.25:
                self.shelves(1)
            elif kind < 0.5:
                self.cabinet()
            elif kind < 0.7:
                self._anywhere(fu.armchair(r, look, self.sofa_style), gap=0.25)
            else:
                x, y = r.uniform(-0.35, 0.35) * plan.length, r.uniform(-0.35, 0.35) * plan.width
                at = (x, y, 0.0)
                if kind < 0.85:
                    if self.placer.put(fu.coffee_table(r, look), at, r.uniform(0, 3), gap=0.3):
                        self.litter(self.placer.placed[-1], 3)
                elif self.dining_set(at, r.choice((0.0, 0.5 * math.pi)), r.choice((2, 4))):
                    self.litter(self._table(), 3)
        self.in_corner(fu.stool(r, look))

    def _anywhere(self, item: Item, gap: float = 0.05) -> bool:
        r, plan = self.r, self.plan
        for _ in range(12):
            x = r.uniform(-0.5, 0.5) * (plan.length - 0.8)
            y = r.uniform(-0.5, 0.5) * (plan.width - 0.8)
            at = (x, y, 0.0005)
            if self.placer.put(item, at, r.uniform(-math.pi, math.pi), gap=gap, coarse=True):
                return True
        return False

    def _somebody(self) -> None:
        r = self.r
        seats = [p for p in self.placer.placed if p.item.label == "chair"]
        if seats and r.random() < 0.5:
            seat = r.choice(seats)
            someone = de.person(r, self.look, sitting=True)
            if self.placer.put(someone, seat.at, seat.yaw, zones=False):
                return
        self._anywhere(de.person(r, self.look, sitting=False), gap=0.1)

    # Kinds of rooms.

    def living(self) -> None:
        """A sofa, what stands around it, a television, shelves, perhaps a table to eat at."""
        r, plan, look, placer = self.r, self.plan, self.look, self.placer
        long = r.uniform(1.7, 2.4)
        couch = placer.against(
            fu.sofa(r, look, self.sofa_style, long, seats=2 if long < 2.0 else 3),
            front=1.0,
            tries=30,
        )
        if couch is not None:
            c, s = math.cos(couch.yaw), math.sin(couch.yaw)
            ahead = 0.5 * self.sofa_style.deep + r.uniform(0.55, 0.75)
            x, y = couch.at[0] + c * ahead, couch.at[1] + s * ahead
            if r.random() < 0.75:
                size = (r.uniform(1.3, 1.9), r.uniform(1.9, 2.6))
                self.rug(x, y, couch.yaw + r.gauss(0.0, 0.03), size)
            placer.free_again()  # the table may stand in front of the sofa
            if placer.put(fu.coffee_table(r, look), (x, y, 0.0), couch.yaw, gap=0.2):
                self.litter(placer.placed[-1], 4)
            for side in r.sample((-1.0, 1.0), r.choice((0, 1, 1, 2))):
                seat = fu.armchair(r, look, self.sofa_style)
                u, v = ahead + r.uniform(-0.1, 0.3), side * r.uniform(1.35, 1.7)
                at = (couch.at[0] + c * u - s * v, couch.at[1] + s * u + c * v, 0.0)
                turn = couch.yaw - side * (0.5 * math.pi + r.uniform(0.0, 0.5))
                placer.put(seat, at, turn, gap=0.1, coarse=True)
            opposite = [
                w for w in plan.walls if math.cos(w.yaw - couch.yaw) < -0.9 and w.length > 1.5
            ]
            stand = fu.sideboard(r, look, r.uniform(1.2, 1.9), high=r.uniform(0.38, 0.52))
            place = placer.against(stand, walls=opposite or None, front=0.4, tries=20)
            if place is not None:
                screen = de.television(r, look, r.uniform(0.85, 1.25))
                at = (place.at[0], place.at[1], place.item.tops[0][4] + 0.0005)
                placer.put(screen, at, place.yaw, zones=False, coarse=True)
                self.litter(place, 3)
        if plan.length > 5.4:
            for _ in range(6):
                x, y = r.uniform(-0.3, 0.3) * plan.length, r.uniform(-0.25, 0.25) * plan.width
                if self.dining_set((x, y, 0.0), r.choice((0.0, 0.5 * math.pi)), 4):
                    self.litter(self._table(), 3)
                    break
        self.shelves(r.choice((1, 1, 2)))
        if r.random() < 0.6:
            self.cabinet()

    def _table(self) -> Placed:
        return next(p for p in reversed(self.placer.placed) if p.item.label == "table")

    def bedroom(self) -> None:
        """A bed with nightstands, a wardrobe, drawers, perhaps a desk."""
        r, look, placer = self.r, self.look, self.placer
        wide = r.choice((0.9, 1.2, 1.4, 1.6, 1.8))
        sleep = placer.against(
            fu.bed(r, look, wide), front=0.5, tries=40, beside=0.0 if wide < 1.3 else 0.35
        )
        if sleep is None:
            sleep = placer.against(fu.bed(r, look, 0.9), tries=60)
        if sleep is not None:
            c, s = math.cos(sleep.yaw), math.sin(sleep.yaw)
            for side in (-1.0, 1.0):
                item = fu.nightstand(r, look)
                low, high = item.extent()
                x = -1.1 - low[0]
                y = side * (0.5 * wide + 0.12 + 0.5 * (high[1] - low[1]))
                at = (sleep.at[0] + c * x - s * y, sleep.at[1] + s * x + c * y, 0.0)
                if r.random() < 0.85 and placer.put(item, at, sleep.yaw, coarse=True):
                    stand = placer.placed[-1]
                    if r.random() < 0.75:
                        placer.on_top(stand, [de.table_lamp(r, look)])
                    self.litter(stand, 2)
            if r.random() < 0.6:
                x, y = sleep.at[0] + 0.5 * c, sleep.at[1] + 0.5 * s
                self.rug(x, y, sleep.yaw, (r.uniform(1.4, 2.0), wide + r.uniform(0.8, 1.3)))
        placer.against(fu.wardrobe(r, look), front=0.6, tries=24)
        if r.random() < 0.6:
            self.desk_set()
        if r.random() < 0.7:
            self.cabinet()
        if r.random() < 0.5:
            self.shelves(1)

    def office(self) -> None:
        """Desks at walls or face to face, shelves, cabinets, a board."""
        r, plan, look, placer = self.r, self.plan, self.look, self.placer
        if r.random() < 0.5:
            item = fu.desk(r, look, r.uniform(1.4, 1.6), 0.75)
            turn = r.choice((0.0, 0.5 * math.pi))
            x, y = r.uniform(-0.1, 0.1) * plan.length, r.uniform(-0.1, 0.1) * plan.width
            c, s = math.cos(turn), math.sin(turn)
            for side in (1.0, -1.0):
                at = (x + 0.4 * side * c, y + 0.4 * side * s, 0.0)
                yaw = turn if side > 0 else turn + math.pi
                if placer.put(item, at, yaw):
                    self._at_desk(placer.placed[-1])
                item = fu.desk(r, look, r.uniform(1.4, 1.6), 0.75)
        for _ in range(r.choice((2, 3, 4))):
            self.desk_set()
        self.shelves(r.choice((1, 2, 3)))
        self.cabinet(low=False)
        if r.random() < 0.8:
            item = de.board(r, look, r.uniform(1.2, 2.2))
            placer.against(item, z=0.95, gap=0.002, tries=24, coarse=False)

    def dining(self) -> None:
        """A kitchen along a wall and a table to eat at."""
        r, plan, look, placer = self.r, self.plan, self.look, self.placer
        front = r.choice((look.paint(), look.paint(strong=True), look.wood(0), look.white))
        top = r.choice((look.wood(1), look.dark, look.ceramic()))
        for _ in range(3):
            run = fu.counter(r, look, r.uniform(1.6, 2.9), front, top)
            kitchen = placer.against(run, front=0.8, tries=24)
            if kitchen is not None:
                self.litter(kitchen, 6)
                low, high = run.extent()
                wide = 0.9 * (high[1] - low[1])
                c, s = math.cos(kitchen.yaw), math.sin(kitchen.yaw)
                hung = fu.hanging_cabinet(r, look, wide, front)
                at = (kitchen.at[0] - 0.14 * c, kitchen.at[1] - 0.14 * s, 1.42)
                placer.put(hung, at, kitchen.yaw, coarse=True)
                break
        placer.against(fu.fridge(r, look), front=0.6, tries=20)
        for _ in range(12):
            x, y = r.uniform(-0.2, 0.2) * plan.length, r.uniform(-0.2, 0.2) * plan.width
            turn = r.choice((0.0, 0.5 * math.pi)) + r.gauss(0.0, 0.03)
            if self.dining_set((x, y, 0.0), turn, r.choice((4, 4, 6))):
                self.litter(self._table(), 5)
                break
        self.cabinet(low=False)
        if r.random() < 0.4:
            self.shelves(1)

    def meeting(self) -> None:
        """A long table with many chairs, boards on the walls."""
        r, plan, look, placer = self.r, self.plan, self.look, self.placer
        seats = 10 if plan.length > 5.8 else 8
        for _ in range(6):
            at = (r.uniform(-0.06, 0.06) * plan.length, r.uniform(-0.05, 0.05) * plan.width, 0.0)
            if self.dining_set(at, 0.5 * math.pi, seats):
                self.litter(self._table(), 8)
                break
            seats -= 2
        for _ in range(r.choice((1, 2))):
            item = de.board(r, look, r.uniform(1.4, 2.4))
            placer.against(item, z=0.9, gap=0.002, tries=24, coarse=False)
        self.cabinet()
        if r.random() < 0.5:
            self.shelves(1)
